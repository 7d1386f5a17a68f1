// SPDX-License-Identifier: AGPL-3.0-or-later
//! Request and reply: DEALER asks, ROUTER in the place of REP answers (internal RPC, framing).

use crate::change::{Arrival, Change};
use crate::error::{SendError, Taken};
use crate::message::Message;
use crate::role::Role;
use crate::socket::{Handle, socket_common};

/// Routing parts that a request may carry before its empty part; more than a few relays is no honest request.
const MAX_ENVELOPE: usize = 8;

/// What a [`Dealer`] has for its owner.
pub enum Answer {
    /// A reply.
    Reply(Message),
    /// A peer joined or left.
    Change(Change),
}

/// The asking side. Requests go to the connected peers in turns; replies are matched by an id in their content.
pub struct Dealer {
    core: Handle,
}

socket_common!(Dealer, Role::Dealer);

impl Dealer {
    /// Sends a request.
    pub fn send(&self, request: &[u8]) -> Result<Taken, SendError> {
        self.core.send(&[b"", request])
    }

    /// Whether a peer is connected that takes a request now.
    pub fn writable(&self) -> bool {
        self.core.is_writable()
    }

    /// The next reply; for owners to whom it is all the same who is there.
    pub fn recv(&self) -> Option<Message> {
        loop {
            if let Answer::Reply(reply) = self.incoming()? {
                return Some(reply);
            }
        }
    }

    /// What has come next: a reply, or a peer that joined or left. A peer leaves after its last reply; requests that it
    /// had not begun to take have gone to another by then, or wait for one. Only connections on this machine (`ipc:`) are
    /// told of.
    pub fn incoming(&self) -> Option<Answer> {
        loop {
            let empty = match self.core.next_arrival()? {
                Arrival::Change(change) => return Some(Answer::Change(change)),
                Arrival::Part(part) => part,
            };
            if !empty.is_empty() || !empty.more() {
                if empty.more() {
                    self.core.skip_rest();
                } else {
                    self.core.count_malformed();
                }
                continue;
            }
            let content = self.core.recv_part()?;
            if content.more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count_received();
            return Some(Answer::Reply(content));
        }
    }
}

/// The way back to whoever asked.
pub struct Envelope(Vec<Vec<u8>>);

/// The answering side.
pub struct Replier {
    core: Handle,
}

socket_common!(Replier, Role::Router);

impl Replier {
    /// The next request and the way back.
    pub fn recv(&self) -> Option<(Envelope, Message)> {
        'message: loop {
            let mut route = Vec::with_capacity(2);
            loop {
                let part = self.core.recv_part()?;
                if !part.more() {
                    self.core.count_malformed();
                    continue 'message;
                }
                if part.is_empty() && !route.is_empty() {
                    break;
                }
                if route.len() == MAX_ENVELOPE {
                    self.core.skip_rest();
                    continue 'message;
                }
                route.push(part.to_vec());
            }
            let content = self.core.recv_part()?;
            if content.more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count_received();
            return Some((Envelope(route), content));
        }
    }

    /// Answers a request. The asker may be gone; then nothing happens.
    pub fn reply(&self, to: &Envelope, content: &[u8]) -> Result<Taken, SendError> {
        let mut parts: Vec<&[u8]> = to.0.iter().map(Vec::as_slice).collect();
        parts.push(b"");
        parts.push(content);
        self.core.send(&parts)
    }
}
