//! Request and reply: DEALER asks, ROUTER in the place of REP answers (internal RPC, framing).

use crate::error::{Error, SendError};
use crate::socket::{Context, Core, Handle, Message, Options, socket_common};

/// Routing parts that a request may carry before its empty part; more than a few relays is no honest request.
const MAX_ENVELOPE: usize = 8;

/// The asking side. Requests go to the connected peers in turns; replies are matched by an id in their content.
pub struct Dealer {
    core: Handle,
}

socket_common!(Dealer);

impl Dealer {
    /// A socket that is not connected yet.
    pub fn new(context: &Context, options: &Options) -> Result<Self, Error> {
        Ok(Dealer { core: Core::new(context, zmq::DEALER, "DEALER", options)? })
    }

    /// Sends a request.
    pub fn send(&self, request: &[u8]) -> Result<(), SendError> {
        self.core.send(&[b"", request])
    }

    /// Whether a peer is connected that takes a request now.
    pub fn writable(&self) -> bool {
        self.core.touched.set(true);
        self.core.waiting() == 0 && self.core.raw.get_events().is_ok_and(|e| e.contains(zmq::POLLOUT))
    }

    /// The next reply.
    pub fn recv(&self) -> Option<Message> {
        loop {
            let empty = self.core.recv_part()?;
            if !empty.is_empty() || !empty.0.get_more() {
                if empty.0.get_more() {
                    self.core.skip_rest();
                } else {
                    self.core.count(|c| c.malformed += 1);
                }
                continue;
            }
            let content = self.core.recv_part()?;
            if content.0.get_more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count(|c| c.received += 1);
            return Some(content);
        }
    }
}

/// The way back to whoever asked.
pub struct Envelope(Vec<Vec<u8>>);

/// The answering side.
pub struct Replier {
    core: Handle,
}

socket_common!(Replier);

impl Replier {
    /// A socket that is not connected yet.
    pub fn new(context: &Context, options: &Options) -> Result<Self, Error> {
        Ok(Replier { core: Core::new(context, zmq::ROUTER, "ROUTER", options)? })
    }

    /// The next request and the way back.
    pub fn recv(&self) -> Option<(Envelope, Message)> {
        'message: loop {
            let mut route = Vec::with_capacity(2);
            loop {
                let part = self.core.recv_part()?;
                if !part.0.get_more() {
                    self.core.count(|c| c.malformed += 1);
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
            if content.0.get_more() {
                self.core.skip_rest();
                continue;
            }
            self.core.count(|c| c.received += 1);
            return Some((Envelope(route), content));
        }
    }

    /// Answers a request. The asker may be gone; then nothing happens.
    pub fn reply(&self, to: &Envelope, content: &[u8]) -> Result<(), SendError> {
        let mut parts: Vec<&[u8]> = to.0.iter().map(Vec::as_slice).collect();
        parts.push(b"");
        parts.push(content);
        self.core.send(&parts)
    }
}
