// SPDX-License-Identifier: AGPL-3.0-or-later
//! The chunked coding (RFC 9112, section 7.1), both ways.

use std::num::NonZeroUsize;

use super::BodyError;
use super::framing::Decoded;

/// What ends the payload of a chunk.
pub const CHUNK_SUFFIX: &[u8] = b"\r\n";
/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Larger chunks are refused; it leaves room for sums without overflow.
const MAX_CHUNK: u64 = 1 << 60;
/// Hexadecimal digits of a size, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;
/// Bytes between a chunk's size and the end of its line. Signed uploads need about 90.
const MAX_EXTENSION: u16 = 256;
/// Bytes of the whole trailer section.
const MAX_TRAILER: u16 = 8192;

/// The line before a chunk's payload: the size in lower-case hexadecimal digits, CR LF.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkPrefix {
    /// The bytes to write.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

impl AsRef<[u8]> for ChunkPrefix {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Frames a payload of this length as one chunk: this, the payload (which may be shared with others), [`CHUNK_SUFFIX`].
///
/// An empty chunk would end the body, hence the type.
pub fn chunk_prefix(length: NonZeroUsize) -> ChunkPrefix {
    let mut bytes = [0; 18];
    bytes[16..].copy_from_slice(b"\r\n");
    let mut rest = length.get();
    let mut start = 16;
    while rest > 0 {
        start -= 1;
        bytes[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    ChunkPrefix { bytes, start: start as u8 }
}

/// Where in the syntax the decoder stands. The variants say what the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Size {
        digits: u8,
    },
    /// Spaces between size and extension or line end, which old servers pad with.
    SizePadding,
    Extension,
    SizeLineFeed,
    Payload,
    SuffixReturn,
    SuffixLineFeed,
    TrailerLine {
        empty: bool,
    },
    TrailerLineFeed {
        last: bool,
    },
    Nothing,
}

/// Takes the payload out of a chunked body. Extensions and trailers are checked for size and discarded.
#[derive(Clone, Debug)]
pub(super) struct ChunkedDecoder {
    expect: Expect,
    /// Size of the chunk being announced, then what is missing of its payload.
    chunk: u64,
    /// Bytes of extension or trailer seen.
    skipped: u16,
}

impl ChunkedDecoder {
    pub(super) fn new() -> Self {
        ChunkedDecoder { expect: Expect::Size { digits: 0 }, chunk: 0, skipped: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.expect == Expect::Nothing
    }

    /// See [`BodyDecoder::decode`](super::BodyDecoder::decode).
    pub(super) fn decode<'a>(&mut self, input: &'a [u8], max: usize) -> Result<Decoded<'a>, BodyError> {
        let mut payload: &[u8] = &[];
        let mut consumed = 0;
        while consumed < input.len() && self.expect != Expect::Nothing {
            if self.expect == Expect::Payload {
                let available = (input.len() - consumed).min(max);
                let length = usize::try_from(self.chunk).unwrap_or(usize::MAX).min(available);
                if !payload.is_empty() || length == 0 {
                    break;
                }
                payload = &input[consumed..consumed + length];
                consumed += length;
                self.chunk -= length as u64;
                if self.chunk > 0 {
                    break;
                }
                self.expect = Expect::SuffixReturn;
            } else {
                self.expect = self.frame_byte(input[consumed])?;
                consumed += 1;
            }
        }
        Ok(Decoded { consumed, payload })
    }

    /// One byte that is not payload.
    fn frame_byte(&mut self, byte: u8) -> Result<Expect, BodyError> {
        match (self.expect, byte) {
            (Expect::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyError::ChunkTooLarge);
                }
                // Sixteen digits fit, so nothing is shifted out.
                self.chunk = self.chunk << 4 | u64::from(digit);
                if self.chunk > MAX_CHUNK {
                    return Err(BodyError::ChunkTooLarge);
                }
                Ok(Expect::Size { digits: digits + 1 })
            }
            (Expect::Size { digits: 1.. } | Expect::SizePadding | Expect::Extension, b'\r') => Ok(Expect::SizeLineFeed),
            (Expect::Size { digits: 1.. } | Expect::SizePadding, b';') => self.skip_extension(Expect::Extension),
            (Expect::Size { digits: 1.. } | Expect::SizePadding, b' ' | b'\t') => {
                self.skip_extension(Expect::SizePadding)
            }
            (Expect::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.skip_extension(Expect::Extension),
            (Expect::SizeLineFeed, b'\n') => {
                self.skipped = 0;
                Ok(if self.chunk == 0 { Expect::TrailerLine { empty: true } } else { Expect::Payload })
            }
            (Expect::SuffixReturn, b'\r') => Ok(Expect::SuffixLineFeed),
            (Expect::SuffixLineFeed, b'\n') => Ok(Expect::Size { digits: 0 }),
            (Expect::TrailerLine { empty }, b'\r') => Ok(Expect::TrailerLineFeed { last: empty }),
            (Expect::TrailerLine { .. }, b'\t' | b' '..=b'~' | 0x80..) => {
                if self.skipped == MAX_TRAILER {
                    return Err(BodyError::TrailerTooLong);
                }
                self.skipped += 1;
                Ok(Expect::TrailerLine { empty: false })
            }
            (Expect::TrailerLineFeed { last: true }, b'\n') => Ok(Expect::Nothing),
            (Expect::TrailerLineFeed { last: false }, b'\n') => Ok(Expect::TrailerLine { empty: true }),
            (Expect::SuffixReturn | Expect::SuffixLineFeed, _) => Err(BodyError::ChunkSuffix),
            (Expect::TrailerLine { .. } | Expect::TrailerLineFeed { .. }, _) => Err(BodyError::Trailer),
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn skip_extension(&mut self, next: Expect) -> Result<Expect, BodyError> {
        if self.skipped == MAX_EXTENSION {
            return Err(BodyError::ExtensionTooLong);
        }
        self.skipped += 1;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes all of `input` in reads of `step` bytes.
    fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let (mut decoder, mut payload, mut consumed) = (ChunkedDecoder::new(), Vec::new(), 0);
        let mut end = 0;
        while end < input.len() && !decoder.is_done() {
            end = (end + step).min(input.len());
            loop {
                let decoded = decoder.decode(&input[consumed..end], usize::MAX)?;
                payload.extend_from_slice(decoded.payload);
                consumed += decoded.consumed;
                if decoded.consumed == 0 {
                    break;
                }
            }
        }
        Ok((payload, consumed, decoder.is_done()))
    }

    #[test]
    fn a_body_in_one_read_is_decoded_with_its_end_and_nothing_behind_it() {
        assert_eq!(decode(b"3\r\nabc\r\n0\r\n\r\nGET /", 100), Ok((b"abc".to_vec(), 13, true)));
        let decoded = ChunkedDecoder::new().decode(b"3\r\nabc\r\n0\r\n\r\n", 100).unwrap();
        assert_eq!((decoded.payload, decoded.consumed), (&b"abc"[..], 13));
    }

    #[test]
    fn a_body_read_byte_by_byte_is_the_same() {
        let input = b"3;ext=\"1\"\r\nabc\r\n0A \r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n";
        assert_eq!(decode(input, 1), Ok((b"abc0123456789".to_vec(), input.len(), true)));
    }

    #[test]
    fn no_more_payload_than_asked_for_is_taken_but_the_end_is_seen() {
        let mut decoder = ChunkedDecoder::new();
        let first = decoder.decode(b"3\r\nabc\r\n0\r\n\r\n", 2).unwrap();
        assert_eq!((first.payload, first.consumed), (&b"ab"[..], 5));
        assert_eq!(decoder.decode(b"c\r\n0\r\n\r\n", 0).unwrap().consumed, 0);
        let last = decoder.decode(b"c\r\n0\r\n\r\n", 1).unwrap();
        assert_eq!((last.payload, last.consumed, decoder.is_done()), (&b"c"[..], 8, true));

        let mut empty = ChunkedDecoder::new();
        assert_eq!(empty.decode(b"0\r\n\r\n", 0).unwrap().consumed, 5);
        assert!(empty.is_done());
    }

    #[test]
    fn what_other_readers_might_see_differently_is_refused() {
        for (input, error) in [
            (&b"zz\r\nabc\r\n"[..], BodyError::ChunkSize),
            (b"-3\r\nabc\r\n", BodyError::ChunkSize),
            (b"+3\r\nabc\r\n", BodyError::ChunkSize),
            (b"0x3\r\nabc\r\n", BodyError::ChunkSize),
            (b" 3\r\nabc\r\n", BodyError::ChunkSize),
            (b"3 3\r\nabc\r\n", BodyError::ChunkSize),
            (b"\r\nabc\r\n", BodyError::ChunkSize),
            (b";ext\r\nabc\r\n", BodyError::ChunkSize),
            (b"3\nabc\r\n", BodyError::ChunkSize),
            (b"3\rabc\r\n", BodyError::ChunkSize),
            (b"3;a\nb\r\nabc\r\n", BodyError::ChunkSize),
            (b"3;a\rb\r\nabc\r\n", BodyError::ChunkSize),
            (b"3;a\0b\r\nabc\r\n", BodyError::ChunkSize),
            (b"3\r\nabcd\r\n", BodyError::ChunkSuffix),
            (b"3\r\nabc\n0\r\n\r\n", BodyError::ChunkSuffix),
            (b"3\r\nabc\r0\r\n\r\n", BodyError::ChunkSuffix),
            (b"0\r\n\n", BodyError::Trailer),
            (b"0\r\nA: b\n\r\n", BodyError::Trailer),
            (b"0\r\nA: \0\r\n\r\n", BodyError::Trailer),
            (b"0\r\n\rA: b\r\n\r\n", BodyError::Trailer),
            (b"FFFFFFFFFFFFFFFFFF\r\n", BodyError::ChunkTooLarge),
            (b"10000000000000000\r\n", BodyError::ChunkTooLarge),
            (b"1000000000000001\r\n", BodyError::ChunkTooLarge),
            (b"00000000000000003\r\nabc\r\n", BodyError::ChunkTooLarge),
        ] {
            for step in [1, 100] {
                assert_eq!(decode(input, step), Err(error), "{}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn the_largest_chunk_is_2_to_the_60() {
        let mut decoder = ChunkedDecoder::new();
        decoder.decode(b"0fffffffffffffff\r\n", 0).unwrap();
        assert_eq!(decoder.chunk, MAX_CHUNK - 1);
    }

    #[test]
    fn endless_extensions_and_trailers_are_refused() {
        let extension = [b"3;".as_slice(), &[b'a'; 300], b"\r\nabc\r\n"].concat();
        assert_eq!(decode(&extension, 7), Err(BodyError::ExtensionTooLong));
        assert_eq!(decode(&[b"3".as_slice(), &[b' '; 300]].concat(), 7), Err(BodyError::ExtensionTooLong));
        let trailers = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(4000)].concat();
        assert_eq!(decode(&trailers, 7), Err(BodyError::TrailerTooLong));
    }

    #[test]
    fn prefixes_are_lower_case_hexadecimal() {
        let prefix = |length| chunk_prefix(NonZeroUsize::new(length).unwrap()).as_slice().to_vec();
        assert_eq!(prefix(1), b"1\r\n");
        assert_eq!(prefix(255), b"ff\r\n");
        assert_eq!(prefix(4096), b"1000\r\n");
        assert_eq!(prefix(usize::MAX), b"ffffffffffffffff\r\n");
    }
}
