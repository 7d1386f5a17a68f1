// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the client has said and the backend has not accepted.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use grip::websocket::events::Event;

use crate::websocket::pipe::Frame;

/// Content that may wait, in bytes: what a client has credits for, which no setting changes. So only a message larger than
/// this comes up against it.
pub const MAX_BYTES: usize = zhttp::INITIAL_BODY;
/// Messages and control frames that may wait. Those without content take no credits; with what an entry takes itself, this
/// many are some megabytes.
const MAX_ENTRIES: usize = 20_000;

/// One message or control frame.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    content: BytesMut,
    /// All of it has come.
    whole: bool,
    /// The number of the client's packet with which it begins.
    from: u32,
    /// Bytes of its content that the backend has accepted.
    taken: u32,
    /// The backend may have got it already, by a request whose answer was lost.
    repeated: bool,
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The number of the client's packet.
    pub seq: u32,
    /// It was sent to a predecessor of this proxy before.
    pub repeated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
}

/// Messages of the client, in order.
#[derive(Debug, Default)]
pub struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries at the front that a request has carried, of which the backend has accepted a part or nothing.
    replayed: usize,
}

/// What a request carries of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    entries: usize,
    /// Content, in bytes.
    pub bytes: usize,
    /// Nothing whole was left behind.
    pub all: bool,
}

impl Offer {
    /// All of a queue without anything.
    pub const OF_NOTHING: Offer = Offer { entries: 0, bytes: 0, all: true };

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// What waits can not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// A message is larger than what may wait.
    #[error("a message of the client is larger than {MAX_BYTES} bytes")]
    Message,
    /// There are too many.
    #[error("more than {MAX_ENTRIES} messages of the client wait")]
    Entries,
}

impl Entry {
    fn new(kind: Kind, body: &Bytes, whole: bool, Source { seq, repeated }: Source) -> Self {
        Entry { kind, content: body.as_ref().into(), whole, from: seq, taken: 0, repeated }
    }
}

impl Queue {
    /// Adds a frame. Pieces of a message are joined; a control frame between them goes before the message.
    ///
    /// # Errors
    /// The connection can not go on.
    pub fn push(&mut self, frame: Frame, source: Source) -> Result<(), Overflow> {
        let unfinished = self.entries.back().is_some_and(|entry| !entry.whole);
        self.bytes += frame.len();
        match frame {
            Frame::Data { more, body, .. } if unfinished => {
                if let Some(entry) = self.entries.back_mut() {
                    entry.content.extend_from_slice(&body);
                    entry.whole = !more;
                    entry.repeated |= source.repeated;
                }
            }
            Frame::Data { binary, more, body } => {
                let kind = if binary { Kind::Binary } else { Kind::Text };
                self.entries.push_back(Entry::new(kind, &body, !more, source));
            }
            Frame::Ping(body) => self.push_control(Kind::Ping, &body, unfinished, source),
            Frame::Pong(body) => self.push_control(Kind::Pong, &body, unfinished, source),
            Frame::Close(_) => {}
        }
        if self.entries.len() > MAX_ENTRIES {
            return Err(Overflow::Entries);
        }
        if self.bytes >= MAX_BYTES && self.entries.front().is_some_and(|entry| !entry.whole) {
            return Err(Overflow::Message);
        }
        Ok(())
    }

    fn push_control(&mut self, kind: Kind, body: &Bytes, before_last: bool, source: Source) {
        let at = self.entries.len() - usize::from(before_last);
        self.entries.insert(at, Entry::new(kind, body, true, source));
    }

    /// The number of the first packet of which the backend has not accepted all, and how many bytes of the message that begins
    /// with it it has; none if it has accepted all.
    pub fn position(&self) -> Option<(u32, u32)> {
        // One behind the first may begin before it: control frames overtake a message that is not complete.
        let seq = self.entries.iter().map(|entry| entry.from).min()?;
        let first = self.entries.front().filter(|entry| entry.from == seq);
        Some((seq, first.map_or(0, |entry| entry.taken)))
    }

    /// The answer to a request is lost, so the backend may have got what it carried.
    pub fn doubt(&mut self, offer: Offer) {
        self.entries.iter_mut().take(offer.entries).for_each(|entry| entry.repeated = true);
    }

    /// Of what a request carries, how many bytes the backend may have got before; none: it has got nothing of it.
    pub fn repeated_bytes(&self, offer: Offer) -> Option<usize> {
        let entries = self.entries.iter().take(offer.entries).filter(|entry| entry.repeated);
        entries.map(|entry| entry.content.len()).reduce(|all, more| all + more)
    }

    fn whole(&self) -> usize {
        self.entries.len() - usize::from(self.entries.back().is_some_and(|entry| !entry.whole))
    }

    /// Whether there is something that the backend has not seen yet.
    pub fn has_news(&self) -> bool {
        self.whole() > self.replayed
    }

    /// Bytes that a request has carried before.
    pub fn replayed_bytes(&self) -> usize {
        self.entries.iter().take(self.replayed).map(|entry| entry.content.len()).sum()
    }

    /// Appends whole messages to a body, at most one with `one`.
    pub fn offer(&self, one: bool, events: &mut Vec<Event>) -> Offer {
        let whole = self.whole();
        let entries = if one { whole.min(1) } else { whole };
        let mut bytes = 0;
        for entry in self.entries.iter().take(entries) {
            bytes += entry.content.len();
            let content = Bytes::copy_from_slice(&entry.content);
            events.push(match entry.kind {
                Kind::Text => Event::Text(content),
                Kind::Binary => Event::Binary(content),
                Kind::Ping => Event::Ping(content),
                Kind::Pong => Event::Pong(content),
            });
        }
        Offer { entries, bytes, all: entries == whole }
    }

    /// Removes so many bytes from the front, which must be within the offer. A message that is accepted in part keeps its
    /// rest, and what is left of the offer is known to the backend.
    pub fn accept(&mut self, offer: Offer, accepted: usize) {
        let mut rest = accepted;
        let mut removed = 0;
        while removed < offer.entries
            && let Some(entry) = self.entries.front_mut()
        {
            let part = rest.min(entry.content.len());
            if part < entry.content.len() {
                entry.taken = entry.taken.saturating_add(part as u32);
                drop(entry.content.split_to(part));
                break;
            }
            rest -= part;
            removed += 1;
            self.entries.pop_front();
        }
        self.bytes -= accepted;
        self.replayed = offer.entries - removed;
        if self.entries.is_empty() && self.entries.capacity() > 16 {
            self.entries = VecDeque::new();
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets a message that will not be finished.
    pub fn forget_unfinished(&mut self) {
        if self.entries.back().is_some_and(|entry| !entry.whole)
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.content.len();
        }
    }
}
