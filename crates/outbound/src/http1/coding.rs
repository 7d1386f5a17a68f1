// SPDX-License-Identifier: AGPL-3.0-or-later
//! The coding of a response's body (RFC 9110, section 8.4), which is taken off for a requester that would pass the body on
//! without saying that it has one: Pushpin's proxy and handler, for which Zurl does so.

use flate2::{Decompress, FlushDecompress, Status};
use wire::http1::ResponseHead;

/// What backends are asked for on behalf of such a requester.
pub const ASKED: &[u8] = b"deflate, gzip";

/// The coding can not be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// Another one than those that were asked for, or several.
    #[error("it has a coding that the proxy can not pass on, and that is not one of deflate and gzip")]
    Unknown,
    /// It is not what its head says.
    #[error("it is not what its Content-Encoding says, or damaged")]
    Data,
    /// Its last bytes are missing.
    #[error("its compressed data ends too soon")]
    Truncated,
    /// There is more than the coding has.
    #[error("something follows its compressed data")]
    Trailing,
}

/// What has been done to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or, as some servers have it, RFC 1951.
    Deflate,
}

impl Coding {
    /// The coding that a head names. None: the body is as it is.
    ///
    /// # Errors
    /// It is one that can not be taken off.
    pub fn of(head: &ResponseHead<'_>) -> Result<Option<Self>, CodingError> {
        let fields = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("Content-Encoding"));
        let names = fields.flat_map(|field| field.value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
        let mut coding = None;
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity")) {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            let found = match () {
                () if is(b"gzip") || is(b"x-gzip") => Coding::Gzip,
                () if is(b"deflate") => Coding::Deflate,
                () => return Err(CodingError::Unknown),
            };
            if coding.replace(found).is_some() {
                return Err(CodingError::Unknown);
            }
        }
        Ok(coding)
    }
}

/// A body whose coding is being taken off. It gives as much as is asked for, however much there is: a few bytes that become
/// very many take no more memory than others.
#[derive(Debug)]
pub struct Unpacker {
    /// None until the first bytes have told which of its two forms `deflate` has.
    state: Option<Decompress>,
    /// Packed, and not read yet: what was fed at once, or less than is needed to begin.
    input: Vec<u8>,
    read: usize,
    /// The first byte of what follows. Whether there is one tells whether more can be had.
    ahead: Option<u8>,
    ended: bool,
    dry: bool,
}

impl Unpacker {
    /// For a body with this coding.
    pub fn new(coding: Coding) -> Self {
        let state = (coding == Coding::Gzip).then(|| Decompress::new_gzip(15));
        Unpacker { state, input: Vec::new(), read: 0, ahead: None, ended: false, dry: true }
    }

    /// Whether nothing can be had before more is fed.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// The body goes on with this. To be called when all before has been taken.
    pub fn feed(&mut self, packed: &[u8]) {
        self.input.extend_from_slice(packed);
        self.dry = self.dry && packed.is_empty();
    }

    /// Gives up to `max` bytes, in the place of what is in `content`.
    ///
    /// # Errors
    /// It is not what it is said to be.
    pub fn take(&mut self, max: usize, content: &mut Vec<u8>) -> Result<(), CodingError> {
        content.clear();
        if self.state.is_none() {
            self.state = deflate(&self.input);
        }
        let Some(state) = &mut self.state else {
            self.dry = true;
            return Ok(());
        };
        content.resize(max + 1, 0);
        let mut len = 0;
        if let Some(byte) = self.ahead.take() {
            content[0] = byte;
            len = 1;
        }
        while len <= max && !self.ended {
            let (read, written) = (state.total_in(), state.total_out());
            let result = state.decompress(&self.input[self.read..], &mut content[len..], FlushDecompress::None);
            let read = (state.total_in() - read) as usize;
            let written = (state.total_out() - written) as usize;
            self.read += read;
            len += written;
            match result {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(_) if read == 0 && written == 0 => break,
                Ok(_) => {}
                Err(_) => return Err(CodingError::Data),
            }
        }
        if len > max {
            self.ahead = Some(content[max]);
        }
        content.truncate(len.min(max));
        self.dry = self.ahead.is_none();
        if self.dry {
            if self.read < self.input.len() {
                return Err(if self.ended { CodingError::Trailing } else { CodingError::Data });
            }
            self.input.clear();
            self.read = 0;
        }
        Ok(())
    }

    /// All of the body has been fed and taken.
    ///
    /// # Errors
    /// Its end is missing. A body of nothing at all has none.
    pub fn finish(&self) -> Result<(), CodingError> {
        let nothing = self.input.is_empty() && self.state.as_ref().is_none_or(|state| state.total_in() == 0);
        if self.ended || nothing { Ok(()) } else { Err(CodingError::Truncated) }
    }
}

/// The form of `deflate` that begins so. None: the beginning is not there yet.
fn deflate(input: &[u8]) -> Option<Decompress> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    // RFC 1950, section 2.2: the method, and a check that other data has by chance once in hundreds of times.
    let is_zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
    Some(Decompress::new(is_zlib))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use wire::http1::{Limits, parse_response};

    use super::*;

    fn coding(lines: &str) -> Result<Option<Coding>, CodingError> {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        Coding::of(&parse_response(text.as_bytes(), &Limits::default(), "GET").unwrap().unwrap().0)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Feeds pieces of this size, and takes as much at a time.
    fn unpack(coding: Coding, packed: &[u8], piece: usize, max: usize) -> Result<Vec<u8>, CodingError> {
        let mut unpacker = Unpacker::new(coding);
        let (mut all, mut content) = (Vec::new(), Vec::new());
        for piece in packed.chunks(piece) {
            unpacker.feed(piece);
            while !unpacker.is_dry() {
                unpacker.take(max, &mut content)?;
                assert!(content.len() <= max);
                all.extend_from_slice(&content);
            }
        }
        unpacker.finish()?;
        Ok(all)
    }

    #[test]
    fn a_head_names_its_coding() {
        assert_eq!(coding(""), Ok(None));
        assert_eq!(coding("Content-Encoding: identity\r\nContent-Encoding:\r\n"), Ok(None));
        assert_eq!(coding("content-encoding: GZip\r\n"), Ok(Some(Coding::Gzip)));
        assert_eq!(coding("Content-Encoding: identity, x-gzip\r\n"), Ok(Some(Coding::Gzip)));
        assert_eq!(coding("Content-Encoding: deflate\r\n"), Ok(Some(Coding::Deflate)));
        for others in ["br", "gzip, gzip", "gzip\r\nContent-Encoding: deflate", "gzip;q=1"] {
            assert_eq!(coding(&format!("Content-Encoding: {others}\r\n")), Err(CodingError::Unknown), "{others}");
        }
    }

    #[test]
    fn all_forms_are_unpacked_in_any_pieces() {
        let text = b"hello, hello, hello! ".repeat(100);
        for (coding, packed) in
            [(Coding::Gzip, gzip(&text)), (Coding::Deflate, zlib(&text)), (Coding::Deflate, raw(&text))]
        {
            for (piece, max) in [(1, 1), (1, 5000), (7, 13), (5000, 1), (5000, text.len()), (5000, 5000)] {
                assert_eq!(unpack(coding, &packed, piece, max).as_ref(), Ok(&text), "{coding:?} {piece} {max}");
            }
        }
    }

    #[test]
    fn a_body_of_nothing_is_nothing() {
        assert_eq!(unpack(Coding::Gzip, b"", 1, 1), Ok(Vec::new()));
        assert_eq!(unpack(Coding::Deflate, b"", 1, 1), Ok(Vec::new()));
        assert_eq!(unpack(Coding::Gzip, &gzip(b""), 3, 1), Ok(Vec::new()));
    }

    #[test]
    fn what_is_broken_is_told() {
        let packed = gzip(b"some text that is long enough, some text");
        for end in 1..packed.len() {
            assert_eq!(unpack(Coding::Gzip, &packed[..end], 5, 9), Err(CodingError::Truncated), "{end}");
        }
        assert_eq!(unpack(Coding::Deflate, b"\x78", 1, 1), Err(CodingError::Truncated));
        assert_eq!(unpack(Coding::Gzip, b"plain text", 100, 100), Err(CodingError::Data));
        assert_eq!(unpack(Coding::Gzip, &[&packed[..], b"x"].concat(), 100, 100), Err(CodingError::Trailing));
        let mut damaged = packed.clone();
        let check = damaged.len() - 6;
        damaged[check] ^= 1;
        assert_eq!(unpack(Coding::Gzip, &damaged, 100, 100), Err(CodingError::Data));
    }

    #[test]
    fn a_bomb_is_unpacked_only_as_far_as_is_asked_for() {
        let packed = gzip(&vec![0; 64 << 20]);
        let mut unpacker = Unpacker::new(Coding::Gzip);
        unpacker.feed(&packed);
        let mut content = Vec::new();
        unpacker.take(1000, &mut content).unwrap();
        assert_eq!((content.len(), unpacker.is_dry()), (1000, false));
        assert!(content.capacity() < 2000 && unpacker.read < packed.len());
        // Without room it only waits.
        unpacker.take(0, &mut content).unwrap();
        assert!(content.is_empty() && !unpacker.is_dry());
    }

    proptest::proptest! {
        #[test]
        fn anything_is_unpacked_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), piece in 1usize..50) {
            for coding in [Coding::Gzip, Coding::Deflate] {
                let one = unpack(coding, &bytes, piece, 7);
                let other = unpack(coding, &bytes, 1000, 1000);
                proptest::prop_assert_eq!(one.ok(), other.ok());
            }
        }
    }
}
