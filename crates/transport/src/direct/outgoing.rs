//! What waits to be written to one peer: encoded messages, one after the other.
//!
//! A turn's messages are collected here and leave with one system call. Where each message ends is known, so that what
//! waits can be counted, and what a peer did not take can go to another.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;

use crate::zmtp::frame;

/// Capacity that an empty buffer keeps, in bytes.
const IDLE_CAPACITY: usize = 256 * 1024;

/// Encoded messages in order.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of the bytes have been written.
    written: usize,
    /// Where each message stands that is not written to its end.
    messages: VecDeque<Range<usize>>,
}

impl Outgoing {
    /// Adds what is not a message: the handshake and commands.
    pub(crate) fn push_raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
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

    /// Messages that wait, the one that is written in part included.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
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
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_CAPACITY);
        self.messages.clear();
        self.written = 0;
        Ok(true)
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
        assert_eq!((outgoing.messages(), outgoing.len()), (4, 18));
        for _ in 0..3 {
            peer.room = 6;
            let _ = outgoing.write_to(&mut peer).unwrap();
        }
        assert_eq!((outgoing.messages(), outgoing.len()), (0, 0));
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
}
