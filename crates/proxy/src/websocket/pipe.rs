// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frames on their way to one side.
//!
//! Messages pass piece by piece, as they come. What has no credits waits, in order. A message that the handler inserts
//! waits until the one under way has ended, because pieces of two messages can not be told apart.

use std::collections::VecDeque;

use bytes::Bytes;

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

impl Frame {
    /// A whole message.
    pub fn message(binary: bool, body: Bytes) -> Self {
        Frame::Data { binary, more: false, body }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// The frame.
    pub frame: Frame,
    /// Bytes that its sender may send again once it has left.
    pub owed: usize,
    /// The number under which the handler waits to hear that it has left.
    pub ack: Option<Box<[u8]>>,
}

/// What waits for one side.
#[derive(Debug, Default)]
pub struct Pipe {
    queue: VecDeque<Leaving>,
    /// Inserted messages that wait for the end of the message under way.
    held: VecDeque<Leaving>,
    /// Content of both.
    bytes: usize,
    /// The last piece in the queue, or the last one that left, is not the last of its message.
    within: bool,
    /// Nothing follows.
    closed: bool,
    /// Frames that have come into the queue.
    added: u64,
    /// Those that have left as a whole.
    left: u64,
}

impl Pipe {
    /// Adds what the other side has sent. Its sender is owed `owed` bytes when it has left.
    pub fn relay(&mut self, frame: Frame, owed: usize) {
        let within = match &frame {
            Frame::Data { more, .. } => *more,
            // A message that is not finished never will be, and nothing may come in its middle.
            Frame::Close(_) => {
                self.bytes -= self.held.drain(..).map(|leaving| leaving.frame.len()).sum::<usize>();
                false
            }
            Frame::Ping(_) | Frame::Pong(_) => self.within,
        };
        self.within = within;
        self.add(Leaving { frame, owed, ack: None });
        while !self.within
            && let Some(leaving) = self.held.pop_front()
        {
            self.bytes -= leaving.frame.len();
            self.add(leaving);
        }
    }

    /// Adds a whole frame that is not of the other side.
    pub fn insert(&mut self, frame: Frame, ack: Option<Box<[u8]>>) {
        let leaving = Leaving { frame, owed: 0, ack };
        if self.within {
            self.bytes += leaving.frame.len();
            self.held.push_back(leaving);
        } else {
            self.add(leaving);
        }
    }

    fn add(&mut self, leaving: Leaving) {
        if self.closed {
            return;
        }
        self.closed = matches!(leaving.frame, Frame::Close(_));
        self.bytes += leaving.frame.len();
        self.added += 1;
        self.queue.push_back(leaving);
    }

    /// The next frame that `credits` bytes of credit are enough for, or a part of one.
    pub fn next(&mut self, credits: usize) -> Option<Leaving> {
        let first = self.queue.front_mut()?;
        let len = first.frame.len();
        if len <= credits {
            let leaving = self.queue.pop_front()?;
            self.bytes -= len;
            self.left += 1;
            if self.queue.is_empty() && self.queue.capacity() > 16 {
                self.queue = VecDeque::new();
            }
            return Some(leaving);
        }
        let Frame::Data { binary, body, .. } = &mut first.frame else { return None };
        if credits == 0 {
            return None;
        }
        let owed = first.owed.min(credits);
        first.owed -= owed;
        self.bytes -= credits;
        let frame = Frame::Data { binary: *binary, more: true, body: body.split_to(credits) };
        Some(Leaving { frame, owed, ack: None })
    }

    /// Whether a message of the handler would leave at once, given the credits.
    pub fn is_clear(&self) -> bool {
        self.queue.is_empty() && !self.within && !self.closed
    }

    /// The place behind all that is to leave, for [`Pipe::has_left`].
    pub fn end(&self) -> u64 {
        self.added
    }

    /// Whether all before a place has left.
    pub fn has_left(&self, place: u64) -> bool {
        self.left >= place
    }

    /// Whether a message is under way.
    pub fn is_within_message(&self) -> bool {
        self.within
    }

    /// Content that waits, in bytes.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// What that takes in memory, about: a frame without content takes some as well.
    pub fn weight(&self) -> usize {
        self.bytes + (self.queue.len() + self.held.len()) * size_of::<Leaving>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty()
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
        pipe.insert(text("news", false), Some(b"7"[..].into()));
        pipe.relay(Frame::Ping(Bytes::new()), 0);
        assert_eq!(all(&mut pipe, 10), [text("a", true), Frame::Ping(Bytes::new())]);
        pipe.relay(text("b", false), 1);
        assert_eq!(pipe.next(10).unwrap().frame, text("b", false));
        let news = pipe.next(10).unwrap();
        assert_eq!((news.frame, news.ack.as_deref()), (text("news", false), Some(&b"7"[..])));
        assert!(pipe.is_clear() && pipe.waiting() == 0);
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
    fn nothing_follows_a_close_nor_comes_into_the_message_that_it_breaks_off() {
        let mut pipe = Pipe::default();
        pipe.relay(text("a", true), 1);
        pipe.insert(text("news", false), None);
        pipe.relay(Frame::Close(None), 0);
        pipe.insert(text("late", false), None);
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
                    pipe.insert(Frame::Data { binary: true, more: false, body: vec![inserted; len].into() }, None);
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
