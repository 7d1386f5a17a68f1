// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bytes that wait to be written to one client.
//!
//! A [`Piece`] is a small header of its own and a body that may be shared: a fan-out's body is one buffer for all its
//! receivers, and what frames it for one of them needs no allocation. All that waits is written with one system call.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};

/// Slices given to one `writev`.
const MAX_SLICES: usize = 64;
/// Pieces behind the first for which a client that has got everything keeps room.
const IDLE_PIECES: usize = 4;
/// So many small pieces at the end of the queue become one, so that what it takes to keep them stays in proportion to
/// their bytes. Only a client that does not read has so many.
const SMALL_PIECES: usize = 64;
/// Bytes that a small piece has at most.
const SMALL: usize = 256;

/// Up to 14 bytes in front of a body: an HTTP/2 frame header, a WebSocket frame header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    bytes: [u8; 14],
    start: u8,
    end: u8,
}

impl Header {
    /// `None` if there are more bytes than a header holds.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut header = Header { end: u8::try_from(bytes.len()).ok()?, ..Header::default() };
        header.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(header)
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }
}

/// A part of the output: a header of its own, and a body that other clients may share.
#[derive(Clone, Debug)]
pub struct Piece {
    header: Header,
    body: Bytes,
}

impl Piece {
    /// With a header in front of the body.
    pub fn new(header: Header, body: Bytes) -> Self {
        Piece { header, body }
    }

    fn len(&self) -> usize {
        self.header.as_slice().len() + self.body.len()
    }

    /// Both in one.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        [self.header.as_slice(), &self.body].concat()
    }

    fn advance(&mut self, n: usize) {
        let of_header = n.min(self.header.as_slice().len());
        self.header.start += of_header as u8;
        self.body.advance(n - of_header);
    }
}

impl From<Bytes> for Piece {
    fn from(body: Bytes) -> Self {
        Piece { header: Header::default(), body }
    }
}

impl From<Vec<u8>> for Piece {
    fn from(body: Vec<u8>) -> Self {
        Bytes::from(body).into()
    }
}

/// The pieces, in order. The first has its place here, so a client that reads what it gets needs no memory elsewhere.
#[derive(Debug, Default)]
pub struct Output {
    first: Option<Piece>,
    /// What waits behind the first. None until there has been something.
    rest: Option<Box<Rest>>,
    len: usize,
}

#[derive(Debug, Default)]
struct Rest {
    pieces: VecDeque<Piece>,
    /// Small pieces at the end.
    small: usize,
}

impl Output {
    /// Adds a piece.
    pub fn push(&mut self, piece: impl Into<Piece>) {
        let piece = piece.into();
        if piece.len() == 0 {
            return;
        }
        self.len += piece.len();
        if self.first.is_none() {
            self.first = Some(piece);
            return;
        }
        self.rest.get_or_insert_default().push(piece);
    }

    fn rest(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.pieces.len())
    }

    /// The bytes that wait, as slices in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let rest = self.rest.iter().flat_map(|rest| &rest.pieces);
        let pieces = self.first.iter().chain(rest);
        pieces.flat_map(|piece| [piece.header.as_slice(), &piece.body[..]]).filter(|slice| !slice.is_empty())
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pieces that wait.
    pub fn pieces(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest()
    }

    /// Writes as much as the client takes; returns how many bytes that was.
    ///
    /// # Errors
    /// The connection is broken. That it takes no more is no error.
    pub fn write_to(&mut self, client: &mut impl Write) -> io::Result<usize> {
        let mut written = 0;
        while let Some(first) = &self.first {
            let result = if self.rest() == 0 && first.header.as_slice().is_empty() {
                client.write(&first.body)
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(self.slices()) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
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
        while let Some(first) = &mut self.first {
            if first.len() > n {
                first.advance(n);
                return;
            }
            n -= first.len();
            self.first = self.rest.as_mut().and_then(|rest| rest.pop());
        }
        self.rest.take_if(|rest| rest.pieces.capacity() > IDLE_PIECES);
    }
}

impl Rest {
    fn push(&mut self, piece: Piece) {
        self.small = if piece.len() <= SMALL { self.small + 1 } else { 0 };
        self.pieces.push_back(piece);
        if self.small == SMALL_PIECES {
            self.join_small();
        }
    }

    fn pop(&mut self) -> Option<Piece> {
        let first = self.pieces.pop_front();
        self.small = self.small.min(self.pieces.len());
        first
    }

    fn join_small(&mut self) {
        let mut joined = Vec::with_capacity(SMALL_PIECES * SMALL);
        for piece in self.pieces.drain(self.pieces.len() - SMALL_PIECES..) {
            joined.extend_from_slice(piece.header.as_slice());
            joined.extend_from_slice(&piece.body);
        }
        joined.shrink_to_fit();
        self.pieces.push_back(joined.into());
        self.small = 0;
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

    impl Client {
        fn with_room(room: usize) -> Self {
            Client { taken: Vec::new(), step: 7, room }
        }
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
            output.push(vec![i; 3]);
        }
        let mut client = Client::with_room(100);
        assert_eq!(output.write_to(&mut client).unwrap(), 100);
        assert_eq!(output.len(), 500);
        client.room = 1000;
        assert_eq!(output.write_to(&mut client).unwrap(), 500);
        assert!(output.is_empty());
        assert_eq!(client.taken, (0..200u8).flat_map(|i| [i; 3]).collect::<Vec<_>>());
    }

    #[test]
    fn a_header_goes_before_the_body_it_belongs_to_however_it_is_cut() {
        for room in 0..16 {
            let shared = Bytes::from_static(b"body");
            let mut output = Output::default();
            output.push(Piece::new(Header::new(b"1:").unwrap(), shared.clone()));
            output.push(Piece::new(Header::new(b"22:").unwrap(), shared.clone()));
            output.push(Piece::new(Header::new(b"3").unwrap(), Bytes::new()));
            let mut client = Client { step: 16, ..Client::with_room(room) };
            output.write_to(&mut client).unwrap();
            client.room = 100;
            output.write_to(&mut client).unwrap();
            assert_eq!(client.taken, b"1:body22:body3");
            assert_eq!((output.len(), output.pieces()), (0, 0));
        }
        assert!(Header::new(&[0; 15]).is_none());
    }

    #[test]
    fn many_small_pieces_take_memory_for_their_bytes_and_not_for_each() {
        let mut output = Output::default();
        for i in 0..60_000u32 {
            output.push(vec![i as u8; 1]);
        }
        assert!(output.pieces() < 60_000 / SMALL_PIECES + SMALL_PIECES + 2, "{} pieces", output.pieces());
        let mut client = Client { step: 1000, ..Client::with_room(usize::MAX) };
        assert_eq!(output.write_to(&mut client).unwrap(), 60_000);
        assert!(client.taken.iter().enumerate().all(|(i, &byte)| byte == i as u8));
    }

    #[test]
    fn a_large_piece_is_never_copied() {
        let mut output = Output::default();
        let large = Bytes::from(vec![1; SMALL + 1]);
        for _ in 0..100 {
            output.push(large.clone());
        }
        assert_eq!(output.pieces(), 100);
    }
}
