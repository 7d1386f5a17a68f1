//! Content that waits for one client, because it has no credits or its frontend's link has no room.
//!
//! Pieces are shared with all others that wait for the same; what is counted for one client is the bytes it is behind.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, Bytes};

/// Bytes of queued content that go into one packet at most.
const MAX_PACKET: usize = 65_536;
/// A packet that does not take all that waits has a multiple of so many bytes, so that clients whose credits differ by
/// little get the same packet.
const STEP: usize = 4_096;

/// How a piece of content is told from others while it waits: where it is, and its length.
pub type PieceKey = (usize, usize);

/// See the module.
#[derive(Default)]
pub struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Since when there has been too much.
    pub over_since: Option<Instant>,
}

impl Queue {
    /// Adds content.
    pub fn push(&mut self, content: Bytes) {
        if !content.is_empty() {
            self.bytes += content.len();
            self.pieces.push_back(content);
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that wait and what it takes to keep them, which for small pieces is more.
    pub fn weight(&self) -> usize {
        self.bytes + self.pieces.len() * size_of::<Bytes>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes the next packet takes when a client has so many credits.
    pub fn next_len(&self, credits: usize) -> usize {
        packet_len(self.bytes, credits)
    }

    /// What the next `len` bytes are made of. Queues that give the same keys have the same content next.
    pub fn keys(&self, len: usize, keys: &mut Vec<PieceKey>) {
        let mut left = len;
        for piece in &self.pieces {
            if left == 0 {
                break;
            }
            let part = piece.len().min(left);
            keys.push((piece.as_ptr() as usize, part));
            left -= part;
        }
    }

    /// The next `len` bytes in one piece, which stay in the queue. One piece of the queue, or a part of one, is not copied.
    pub fn peek(&self, len: usize) -> Bytes {
        match self.pieces.front() {
            Some(first) if first.len() >= len => first.slice(..len),
            _ => {
                let mut joined = Vec::with_capacity(len);
                for piece in &self.pieces {
                    joined.extend_from_slice(&piece[..piece.len().min(len - joined.len())]);
                }
                joined.into()
            }
        }
    }

    /// Removes the next `len` bytes.
    pub fn advance(&mut self, len: usize) {
        debug_assert!(len <= self.bytes, "{len} bytes of {}", self.bytes);
        self.bytes -= len;
        let mut left = len;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > left {
                return front.advance(left);
            }
            left -= front.len();
            self.pieces.pop_front();
        }
    }
}

/// How many of the bytes that wait go into one packet when a client has so many credits.
pub fn packet_len(waiting: usize, credits: usize) -> usize {
    let room = credits.min(MAX_PACKET);
    match waiting <= room {
        true => waiting,
        false if room > STEP => room - room % STEP,
        false => room,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(pieces: &[&'static str]) -> Queue {
        let mut queue = Queue::default();
        pieces.iter().for_each(|piece| queue.push(Bytes::from_static(piece.as_bytes())));
        queue
    }

    #[test]
    fn content_leaves_in_order_whatever_the_sizes_of_packets() {
        for size in 1..12 {
            let mut queue = queue(&["ab", "", "cdefg", "h", "ijk"]);
            let mut got = Vec::new();
            while !queue.is_empty() {
                let len = queue.next_len(size);
                got.extend_from_slice(&queue.peek(len));
                queue.advance(len);
            }
            assert_eq!(got, b"abcdefghijk");
            assert_eq!((queue.bytes(), queue.weight()), (0, 0));
        }
    }

    #[test]
    fn queues_with_the_same_content_next_have_the_same_keys() {
        let piece = Bytes::from(vec![b'x'; 10]);
        let (mut a, mut b) = (Queue::default(), Queue::default());
        a.push(piece.clone());
        b.push(piece.slice(3..));
        let keys = |queue: &Queue, len| {
            let mut keys = Vec::new();
            queue.keys(len, &mut keys);
            keys
        };
        assert_ne!(keys(&a, 5), keys(&b, 5));
        a.advance(3);
        assert_eq!(keys(&a, 5), keys(&b, 5));
        assert_ne!(keys(&a, 5), keys(&b, 4));
    }

    #[test]
    fn credits_that_differ_by_little_give_packets_of_the_same_length() {
        let mut queue = Queue::default();
        queue.push(Bytes::from(vec![b'x'; 300_000]));
        assert_eq!([9_000, 10_000, 12_287].map(|credits| queue.next_len(credits)), [8_192; 3]);
        assert_eq!([100, 4_096, 1_000_000].map(|credits| queue.next_len(credits)), [100, 4_096, 65_536]);
        queue.advance(299_000);
        assert_eq!(queue.next_len(5_000), 1_000);
    }
}
