//! The chunked coding (RFC 9112, section 7.1), both ways.

use std::num::NonZeroUsize;

use super::{BodyError, Decoded};

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
                if digits == MAX_SIZE_DIGITS || self.chunk > MAX_CHUNK >> 4 {
                    return Err(BodyError::ChunkTooLarge);
                }
                self.chunk = self.chunk << 4 | u64::from(digit);
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
