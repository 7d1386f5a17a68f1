// SPDX-License-Identifier: AGPL-3.0-or-later
//! Encoded messages one after the other: those that wait to be written to one peer, or to be given to any.
//!
//! A turn's messages are collected here and leave with one system call. Where each message ends is known, so that what
//! waits can be counted, and what a peer did not take can go to another.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;

use crate::counters::Load;
use crate::zmtp::frame;

/// Capacity that an empty buffer keeps, in bytes.
const IDLE_CAPACITY: usize = 256 * 1024;

/// Bytes of the first message that may have left before it was packed.
const MAX_BEFORE: usize = 1 << 30;

/// Encoded messages in order.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of the bytes have been written.
    written: usize,
    /// Where each message stands that is not written to its end.
    messages: VecDeque<Range<usize>>,
    /// Bytes that are no messages, added since the buffer was last empty.
    control: usize,
}

impl Outgoing {
    /// Adds what is not a message: the handshake and commands.
    pub(crate) fn push_control(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.control += self.bytes.len() - before;
    }

    /// Bytes that are no messages, at most; 0 if nothing waits.
    pub(crate) fn control(&self) -> usize {
        self.control
    }

    /// Adds a message.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        let start = self.bytes.len();
        frame::write_message(&mut self.bytes, parts);
        self.messages.push_back(start..self.bytes.len());
    }

    /// Adds a message that another peer did not take.
    pub(crate) fn push_encoded(&mut self, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.messages.push_back(start..self.bytes.len());
    }

    /// What waits. A message that is written in part counts.
    pub(crate) fn load(&self) -> Load {
        Load { messages: self.messages.len(), bytes: self.bytes.len() - self.written }
    }

    /// Whether all has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Writes as much as the peer takes; `false` if something is left.
    pub(crate) fn write_to(&mut self, peer: &mut impl Write) -> io::Result<bool> {
        while self.written < self.bytes.len() {
            match peer.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.forget_written();
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.clear();
        Ok(true)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_CAPACITY);
        self.messages.clear();
        (self.written, self.control) = (0, 0);
    }

    /// The first message of which nothing has been written.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        self.untouched().next()
    }

    /// Takes the first message out, of which nothing has been written; it was given to a peer.
    pub(crate) fn remove_first(&mut self) {
        if let Some(first) = self.messages.pop_front() {
            self.written = first.end;
            if self.is_empty() { self.clear() } else { self.forget_written() }
        }
    }

    fn forget_written(&mut self) {
        while self.messages.front().is_some_and(|message| message.end <= self.written) {
            self.messages.pop_front();
        }
        // Moving what is left costs as much as was written at most, so it does not add up.
        if self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            for message in &mut self.messages {
                *message = message.start.saturating_sub(self.written)..message.end - self.written;
            }
            self.written = 0;
        }
    }

    /// What has not been written, where messages begin and end in it (one may have begun before), and how many of its bytes
    /// are none at most.
    pub(crate) fn pack(&self) -> (Vec<u8>, Vec<(i64, u64)>, u64) {
        let place = |message: &Range<usize>| {
            (message.start as i64 - self.written as i64, message.end.saturating_sub(self.written) as u64)
        };
        let messages = self.messages.iter().filter(|message| message.end > self.written).map(place).collect();
        (self.bytes[self.written..].to_vec(), messages, self.control as u64)
    }

    /// Takes up what was packed; none if that does not fit together.
    pub(crate) fn unpack(bytes: Vec<u8>, messages: &[(i64, u64)], control: u64) -> Option<Self> {
        // As if the part of the first message that has left were there still.
        let before = usize::try_from(messages.first().map_or(0, |first| first.0.min(0)).unsigned_abs()).ok()?;
        let total = before.checked_add(bytes.len())?;
        let place = |(start, end): &(i64, u64)| {
            let start = usize::try_from(start.checked_add(i64::try_from(before).ok()?)?).ok()?;
            let end = usize::try_from(*end).ok()?.checked_add(before)?;
            (start < end && end <= total).then_some(start..end)
        };
        let messages = messages.iter().map(place).collect::<Option<VecDeque<_>>>()?;
        if before > MAX_BEFORE {
            return None;
        }
        let bytes = [vec![0; before], bytes].concat();
        Some(Outgoing { bytes, written: before, messages, control: usize::try_from(control).ok()? })
    }

    /// The messages of which nothing has been written yet, each encoded.
    pub(crate) fn untouched(&self) -> impl Iterator<Item = &[u8]> {
        let begins_later = |message: &&Range<usize>| message.start >= self.written;
        self.messages.iter().filter(begins_later).map(|message| &self.bytes[message.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes `room` bytes.
    struct Peer {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room);
            if n == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_not_taken_waits_in_order_and_is_counted() {
        let (mut outgoing, mut peer) = (Outgoing::default(), Peer { taken: Vec::new(), room: 7 });
        for byte in 0..5u8 {
            outgoing.push(&[&[byte; 3]]);
        }
        // Five bytes each: two of the header, three of the body.
        assert!(!outgoing.write_to(&mut peer).unwrap());
        assert_eq!(outgoing.load(), Load { messages: 4, bytes: 18 });
        for _ in 0..3 {
            peer.room = 6;
            let _ = outgoing.write_to(&mut peer).unwrap();
        }
        assert!(outgoing.is_empty() && outgoing.load() == Load::default());
        let expected: Vec<u8> = (0..5u8).flat_map(|byte| [0, 3, byte, byte, byte]).collect();
        assert_eq!(peer.taken, expected);
    }

    #[test]
    fn messages_that_were_not_begun_can_go_elsewhere() {
        let (mut outgoing, mut peer) = (Outgoing::default(), Peer { taken: Vec::new(), room: 1 });
        outgoing.push(&[b"a"]);
        outgoing.push(&[b"b"]);
        outgoing.push(&[b"c"]);
        let _ = outgoing.write_to(&mut peer).unwrap();
        let untouched: Vec<&[u8]> = outgoing.untouched().collect();
        assert_eq!(untouched, [b"\0\x01b", b"\0\x01c"]);
    }

    #[test]
    fn messages_for_anybody_are_taken_out_one_by_one() {
        let mut outgoing = Outgoing::default();
        (0..100u8).for_each(|byte| outgoing.push(&[&[byte]]));
        for byte in 0..100u8 {
            assert_eq!(outgoing.load(), Load { messages: 100 - usize::from(byte), bytes: 300 - 3 * usize::from(byte) });
            assert_eq!(outgoing.first(), Some(&[0, 1, byte][..]));
            outgoing.remove_first();
        }
        assert!(outgoing.is_empty() && outgoing.first().is_none());
    }

    #[test]
    fn what_is_packed_goes_on_where_it_stood() {
        for room in 0..12 {
            let (mut outgoing, mut peer) = (Outgoing::default(), Peer { taken: Vec::new(), room });
            (0..3u8).for_each(|byte| outgoing.push(&[&[byte; 2]]));
            let _ = outgoing.write_to(&mut peer).unwrap();
            let (bytes, messages, control) = outgoing.pack();
            let mut again = Outgoing::unpack(bytes, &messages, control).unwrap();
            assert_eq!(again.load(), outgoing.load(), "{room}");
            assert!(again.untouched().eq(outgoing.untouched()), "{room}");
            peer.room = 100;
            assert!(again.write_to(&mut peer).unwrap());
            let expected: Vec<u8> = (0..3u8).flat_map(|byte| [0, 2, byte, byte]).collect();
            assert_eq!(peer.taken, expected, "{room}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_not_unpacked() {
        for messages in [&[(0, 5)][..], &[(2, 1)], &[(i64::MIN, 3)], &[(0, u64::MAX)], &[(-5_000_000_000, 1)]] {
            assert!(Outgoing::unpack(vec![0; 4], messages, 0).is_none(), "{messages:?}");
        }
    }
}
