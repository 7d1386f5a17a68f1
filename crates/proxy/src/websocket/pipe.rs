// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frames on their way to one side.
//!
//! Messages pass piece by piece, as they come. What has no credits waits, in order. A message that the handler inserts
//! waits until the one under way has ended, because pieces of two messages can not be told apart.

use std::collections::VecDeque;

use bytes::Bytes;
use zhttp::{Kind, Packet};

use super::had::Named;

/// A piece of a message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of a message.
    Data {
        /// The message is bytes and not text.
        binary: bool,
        /// The message goes on.
        more: bool,
        /// Content.
        body: Bytes,
    },
    /// Is to be answered.
    Ping(Bytes),
    /// An answer.
    Pong(Bytes),
    /// The last frame.
    Close(Option<Status>),
}

/// Why a connection is closed: a code of RFC 6455 and a text, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: u16,
    /// The text.
    pub reason: Bytes,
}

impl Status {
    /// The client may come back at once: what served it has ended, and nobody can go on with it.
    pub fn restarted() -> Self {
        Status { code: 1012, reason: Bytes::from_static(b"service restart") }
    }
}

impl Frame {
    /// A whole message.
    pub fn message(binary: bool, body: Bytes) -> Self {
        Frame::Data { binary, more: false, body }
    }

    /// The packet that carries a frame.
    pub fn packet(&self) -> Packet<'_> {
        match self {
            Frame::Data { binary, more, body } => {
                let content_type: &[u8] = if *binary { b"binary" } else { b"text" };
                Packet { content_type: Some(content_type), more: *more, body, ..Packet::default() }
            }
            Frame::Ping(body) => Packet { kind: Kind::Ping, body, ..Packet::default() },
            Frame::Pong(body) => Packet { kind: Kind::Pong, body, ..Packet::default() },
            Frame::Close(None) => Packet { kind: Kind::Close, ..Packet::default() },
            Frame::Close(Some(status)) => {
                Packet { kind: Kind::Close, code: Some(status.code), body: &status.reason, ..Packet::default() }
            }
        }
    }

    /// Whether it is the end of something: see [`zhttp::retained`].
    fn has_end(&self) -> bool {
        !matches!(self, Frame::Data { more: true, .. })
    }

    /// Bytes of credit that it takes.
    pub fn len(&self) -> usize {
        match self {
            Frame::Data { body, .. } | Frame::Ping(body) | Frame::Pong(body) => body.len(),
            Frame::Close(_) => 0,
        }
    }

    /// Messages that it is the end of, as statistics count them: pings and pongs are messages, a close is none.
    pub fn messages(&self) -> u32 {
        match self {
            Frame::Data { more, .. } => u32::from(!more),
            Frame::Ping(_) | Frame::Pong(_) => 1,
            Frame::Close(_) => 0,
        }
    }

    /// Whether it takes no credits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame that may leave now.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaving {
    /// The frame.
    pub frame: Frame,
    /// Bytes that its sender may send again once it has left.
    pub owed: usize,
    /// The number under which the handler waits to hear that it has left.
    pub ack: Option<Box<[u8]>>,
    /// Of which of the handler's messages it is the last.
    pub named: Option<Named>,
    /// The position behind it, if that counts and it is of the other side.
    pub at: u64,
}

/// What waits for one side.
#[derive(Debug, Default)]
pub struct Pipe {
    /// None until something has waited, and again after a [`Pipe::rest`].
    waiting: Option<Box<Waiting>>,
    /// The last piece in the queue, or the last one that left, is not the last of its message.
    within: bool,
    /// Nothing follows.
    closed: bool,
    /// Frames that have come into the queue.
    added: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Leaving>,
    /// Frames that wait for the end of the message under way.
    held: VecDeque<Leaving>,
    /// Content of both.
    bytes: usize,
}

impl Pipe {
    /// Adds what the other side has sent. Its sender is owed `owed` bytes when it has left.
    pub fn relay(&mut self, frame: Frame, owed: usize) {
        self.relay_at(frame, owed, 0);
    }

    /// The same with the position behind it; 0: none.
    pub fn relay_at(&mut self, frame: Frame, owed: usize, at: u64) {
        let within = match &frame {
            Frame::Data { more, .. } => *more,
            // A message that is not finished never will be, and nothing may come in its middle.
            Frame::Close(_) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.bytes -= waiting.held.drain(..).map(|leaving| leaving.frame.len()).sum::<usize>();
                }
                false
            }
            Frame::Ping(_) | Frame::Pong(_) => self.within,
        };
        self.within = within;
        self.add(Leaving { frame, owed, ack: None, named: None, at });
        while !self.within
            && let Some(waiting) = &mut self.waiting
            && let Some(leaving) = waiting.held.pop_front()
        {
            waiting.bytes -= leaving.frame.len();
            self.add(leaving);
        }
    }

    /// Adds a whole frame that is not of the other side.
    pub fn insert(&mut self, frame: Frame, ack: Option<Box<[u8]>>, named: Option<Named>) {
        self.add_between(Leaving { frame, owed: 0, ack, named, at: 0 });
    }

    /// Adds a control frame of the other side that must not come into the middle of a message.
    pub fn postpone(&mut self, frame: Frame, owed: usize) {
        self.add_between(Leaving { frame, owed, ack: None, named: None, at: 0 });
    }

    fn add_between(&mut self, leaving: Leaving) {
        if self.within {
            let waiting = self.waiting.get_or_insert_default();
            waiting.bytes += leaving.frame.len();
            waiting.held.push_back(leaving);
        } else {
            self.add(leaving);
        }
    }

    fn add(&mut self, leaving: Leaving) {
        if self.closed {
            return;
        }
        self.closed = matches!(leaving.frame, Frame::Close(_));
        self.added += 1;
        let waiting = self.waiting.get_or_insert_default();
        waiting.bytes += leaving.frame.len();
        waiting.queue.push_back(leaving);
    }

    /// The next frame that `credits` bytes of credit are enough for, or a part of one.
    pub fn next(&mut self, credits: usize) -> Option<Leaving> {
        let waiting = self.waiting.as_mut()?;
        let first = waiting.queue.front_mut()?;
        let len = first.frame.len();
        if len <= credits {
            let leaving = waiting.queue.pop_front()?;
            waiting.bytes -= len;
            if waiting.queue.is_empty() && waiting.queue.capacity() > 16 {
                waiting.queue = VecDeque::new();
            }
            return Some(leaving);
        }
        let end = u64::from(first.frame.has_end());
        let Frame::Data { binary, body, .. } = &mut first.frame else { return None };
        if credits == 0 {
            return None;
        }
        let owed = first.owed.min(credits);
        first.owed -= owed;
        waiting.bytes -= credits;
        let frame = Frame::Data { binary: *binary, more: true, body: body.split_to(credits) };
        // In front of what is left of it.
        let at = first.at.saturating_sub((len - credits) as u64 + end);
        Some(Leaving { frame, owed, ack: None, named: None, at })
    }

    /// The beginning of a message has left for the other side by a predecessor.
    pub fn go_on_within(&mut self) {
        self.within = true;
    }

    /// Nothing has passed for a while: gives up the room for what might wait.
    pub fn rest(&mut self) {
        if self.is_empty() {
            self.waiting = None;
        }
    }

    /// Frames in the queue.
    fn queued(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.queue.len())
    }

    /// Frames that wait for the end of the message under way.
    fn held(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.held.len())
    }

    /// Whether a message of the handler would leave at once, given the credits.
    pub fn is_clear(&self) -> bool {
        self.queued() == 0 && !self.within && !self.closed
    }

    /// The place behind all that is to leave, for [`Pipe::has_left`].
    pub fn end(&self) -> u64 {
        self.added
    }

    /// Whether all before a place has left.
    pub fn has_left(&self, place: u64) -> bool {
        self.added - self.queued() as u64 >= place
    }

    /// Whether a message is under way.
    pub fn is_within_message(&self) -> bool {
        self.within
    }

    /// Content that waits, in bytes.
    pub fn waiting(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    /// What that takes in memory, about: a frame without content takes some as well.
    pub fn weight(&self) -> usize {
        self.waiting() + (self.queued() + self.held()) * size_of::<Leaving>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queued() + self.held() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(body: &str, more: bool) -> Frame {
        Frame::Data { binary: false, more, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn all(pipe: &mut Pipe, credits: usize) -> Vec<Frame> {
        std::iter::from_fn(|| pipe.next(credits)).map(|leaving| leaving.frame).collect()
    }

    #[test]
    fn a_message_of_the_handler_waits_for_the_end_of_the_one_under_way() {
        let mut pipe = Pipe::default();
        pipe.relay(text("a", true), 1);
        pipe.insert(text("news", false), Some(b"7"[..].into()), None);
        pipe.relay(Frame::Ping(Bytes::new()), 0);
        assert_eq!(all(&mut pipe, 10), [text("a", true), Frame::Ping(Bytes::new())]);
        pipe.relay(text("b", false), 1);
        assert_eq!(pipe.next(10).unwrap().frame, text("b", false));
        let news = pipe.next(10).unwrap();
        assert_eq!((news.frame, news.ack.as_deref()), (text("news", false), Some(&b"7"[..])));
        assert!(pipe.is_clear() && pipe.waiting() == 0);
    }

    #[test]
    fn a_control_frame_that_is_postponed_comes_behind_the_message_and_is_paid_back() {
        let mut pipe = Pipe::default();
        let ping = || Frame::Ping(Bytes::from_static(b"p"));
        pipe.relay(text("a", true), 1);
        pipe.postpone(ping(), 1);
        pipe.relay(text("b", false), 1);
        pipe.postpone(ping(), 1);
        assert_eq!(all(&mut pipe, 10), [text("a", true), text("b", false), ping(), ping()]);
        pipe.relay(text("c", true), 1);
        pipe.postpone(ping(), 1);
        pipe.rest();
        pipe.relay(text("d", false), 1);
        let owed: Vec<_> = std::iter::from_fn(|| pipe.next(10)).map(|leaving| leaving.owed).collect();
        assert_eq!(owed, [1, 1, 1]);
    }

    #[test]
    fn a_pipe_that_rests_keeps_its_place_and_takes_no_room() {
        let mut pipe = Pipe::default();
        pipe.relay(text("a", true), 1);
        pipe.next(1);
        pipe.rest();
        assert!(pipe.waiting.is_none() && pipe.is_within_message() && pipe.has_left(1) && !pipe.has_left(2));
        pipe.relay(text("b", false), 1);
        pipe.rest();
        assert_eq!((pipe.waiting(), pipe.end(), pipe.has_left(2)), (1, 2, false));
    }

    #[test]
    fn a_message_larger_than_the_credits_leaves_in_parts_and_pays_back_as_it_leaves() {
        let mut pipe = Pipe::default();
        pipe.relay(text("abcde", false), 7);
        assert_eq!(pipe.next(0), None);
        let first = pipe.next(2).unwrap();
        assert_eq!((first.frame, first.owed), (text("ab", true), 2));
        let second = pipe.next(3).unwrap();
        assert_eq!((second.frame, second.owed), (text("cde", false), 5));
    }

    #[test]
    fn a_part_of_a_message_has_the_position_in_front_of_what_is_left() {
        let mut pipe = Pipe::default();
        pipe.relay_at(text("abcde", false), 5, 16);
        pipe.relay_at(text("fg", true), 2, 18);
        let at: Vec<_> = [2, 9, 1, 9].map(|credits| pipe.next(credits).unwrap().at).into();
        assert_eq!(at, [12, 16, 17, 18]);
    }

    #[test]
    fn nothing_follows_a_close_nor_comes_into_the_message_that_it_breaks_off() {
        let mut pipe = Pipe::default();
        pipe.relay(text("a", true), 1);
        pipe.insert(text("news", false), None, None);
        pipe.relay(Frame::Close(None), 0);
        pipe.insert(text("late", false), None, None);
        assert_eq!(all(&mut pipe, 10), [text("a", true), Frame::Close(None)]);
        assert_eq!((pipe.waiting(), pipe.is_empty()), (0, true));
    }

    proptest! {
        #[test]
        fn messages_stay_whole_and_each_sender_in_order_whatever_the_credits(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..20usize, 0..8usize), 0..60),
        ) {
            let (mut pipe, mut relayed, mut inserted) = (Pipe::default(), 0u8, 100u8);
            let mut out = Vec::new();
            for (relay, more, len, credits) in steps {
                if relay {
                    pipe.relay(Frame::Data { binary: false, more, body: vec![relayed; len].into() }, len);
                    relayed += u8::from(!more);
                } else {
                    pipe.insert(Frame::Data { binary: true, more: false, body: vec![inserted; len].into() }, None, None);
                    inserted += 1;
                }
                out.extend(pipe.next(credits));
            }
            pipe.relay(Frame::Data { binary: false, more: false, body: Bytes::new() }, 0);
            out.extend(std::iter::from_fn(|| pipe.next(1000)));
            prop_assert_eq!((pipe.waiting(), pipe.is_empty()), (0, true));
            let (mut begun, mut last) = (None, [None, None]);
            for leaving in out {
                let Frame::Data { binary, more, body } = leaving.frame else { unreachable!() };
                if let Some(of) = begun {
                    prop_assert_eq!(of, binary, "a message is torn");
                }
                begun = more.then_some(binary);
                for byte in body {
                    let last = &mut last[usize::from(binary)];
                    prop_assert!(last.is_none_or(|last| last <= byte), "out of order");
                    *last = Some(byte);
                }
            }
            prop_assert_eq!(begun, None);
        }
    }
}
