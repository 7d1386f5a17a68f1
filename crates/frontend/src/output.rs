//! Bytes that wait to be written to one client.
//!
//! Pieces come from the connection's state machine; a piece of a fan-out is shared by all its receivers. The worker
//! writes what waits with one system call, however many pieces it is.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};

/// Pieces given to one `writev`.
const MAX_PIECES: usize = 64;
/// Pieces for which an idle connection keeps room.
const IDLE_PIECES: usize = 4;

/// The pieces, in order. Nothing is allocated before the first.
#[derive(Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Output {
    /// Adds a piece.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The pieces that wait.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..])
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes as much as the client takes; returns how many bytes that was.
    ///
    /// # Errors
    /// The connection is broken. That it takes no more is no error.
    pub fn write_to(&mut self, client: &mut impl Write) -> io::Result<usize> {
        let mut written = 0;
        while self.len > 0 {
            let result = if self.pieces.len() == 1 {
                client.write(&self.pieces[0])
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_PIECES];
                let count = self.pieces.len().min(MAX_PIECES);
                for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                    *slice = IoSlice::new(piece);
                }
                client.write_vectored(&slices[..count])
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    written += n;
                    self.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let Some(front) = self.pieces.front_mut() else { return };
            if front.len() > n {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.pieces.pop_front();
        }
        // An idle connection keeps room for a few pieces (128 bytes), so that a delivery to it costs no allocation.
        if self.pieces.is_empty() && self.pieces.capacity() > IDLE_PIECES {
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that takes `room` bytes in all, at most `step` at a time.
    struct Client {
        taken: Vec<u8>,
        step: usize,
        room: usize,
    }

    impl Write for Client {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.step).min(self.room);
            if n == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.taken.extend(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_client_does_not_take_waits_in_order() {
        let mut output = Output::default();
        for i in 0..200u8 {
            output.push(Bytes::from(vec![i; 3]));
        }
        let mut client = Client { taken: Vec::new(), step: 7, room: 100 };
        assert_eq!(output.write_to(&mut client).unwrap(), 100);
        assert_eq!(output.len(), 500);
        client.room = 1000;
        assert_eq!(output.write_to(&mut client).unwrap(), 500);
        assert!(output.is_empty());
        assert_eq!(client.taken, (0..200u8).flat_map(|i| [i; 3]).collect::<Vec<_>>());
    }
}
