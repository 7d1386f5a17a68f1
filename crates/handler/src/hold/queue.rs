// SPDX-License-Identifier: AGPL-3.0-or-later
//! Content that waits for one client, because it has no credits or its frontend's link has no room.
//!
//! Pieces are shared with all others that wait for the same; what is counted for one client is the bytes it is behind.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, Bytes};

/// Bytes of queued content that go into one packet at most.
const MAX_PACKET: usize = 65_536;
/// A packet that takes a part of a piece ends at a multiple of so many bytes, so that clients whose credits differ by
/// little get the same packets.
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

    /// How many bytes the next packet takes when a client has so many credits: whole pieces if it can, so that clients
    /// that are behind by different amounts come to get the same packets again.
    pub fn next_len(&self, credits: usize) -> usize {
        let room = credits.min(MAX_PACKET);
        if self.bytes <= room {
            return self.bytes;
        }
        let mut whole = 0;
        for piece in &self.pieces {
            if whole + piece.len() > room {
                break;
            }
            whole += piece.len();
        }
        match self.pieces.front() {
            Some(first) if whole == 0 => part_len(first, room),
            _ => whole,
        }
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

    /// Whether the next `len` bytes are whole pieces.
    pub fn is_whole(&self, len: usize) -> bool {
        let mut left = len;
        for piece in &self.pieces {
            if left < piece.len() {
                break;
            }
            left -= piece.len();
        }
        left == 0
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

/// How many bytes of a piece go into one packet when there is room for less than all.
pub fn part_len(piece: &[u8], room: usize) -> usize {
    let room = room.min(MAX_PACKET);
    if room <= STEP {
        return room;
    }
    // All who share the piece have it at the same address.
    let start = piece.as_ptr() as usize;
    (start + room) / STEP * STEP - start
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
    fn credits_that_differ_by_little_give_packets_that_end_at_the_same_place() {
        let content = Bytes::from(vec![b'x'; 300_000]);
        let part = |from: usize, credits: usize| from + part_len(&content[from..], credits);
        assert_eq!(part(0, 20_000), part(100, 20_000 - 200));
        assert_eq!(part(0, 20_000), part(1_000, 19_000));
        assert!(part(0, 1_000_000) <= MAX_PACKET);
        for credits in 1..10_000 {
            assert!((1..=credits).contains(&part_len(&content, credits)));
        }
    }

    #[test]
    fn whole_pieces_are_preferred() {
        let queue = queue(&["abc", "defg", "hi"]);
        assert_eq!((0..10).filter(|&len| queue.is_whole(len)).collect::<Vec<_>>(), [0, 3, 7, 9]);
        assert_eq!([1, 2, 3, 6, 7, 8, 9, 100].map(|credits| queue.next_len(credits)), [1, 2, 3, 3, 7, 7, 9, 9]);
    }
}
