// SPDX-License-Identifier: AGPL-3.0-or-later
//! The bytes before a frame's payload (RFC 6455, section 5.2).

use super::{MAX_CONTROL, Violation};

/// The longest header, in bytes: two, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The message goes on.
    Continuation,
    /// A message of text begins.
    Text,
    /// A message of bytes begins.
    Binary,
    /// Nothing follows from this side.
    Close,
    /// Is to be answered with a pong of the same content.
    Ping,
    /// An answer, or a sign of life.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether such frames may come between those of a message.
    pub fn is_control(self) -> bool {
        self.bits() & 8 != 0
    }
}

/// All of a frame but its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub opcode: Opcode,
    /// It is the last of its message.
    pub fin: bool,
    /// The message that it begins is compressed (RFC 7692): the first reserved bit.
    pub compressed: bool,
    /// The mask, which a client puts on.
    pub key: Option<[u8; 4]>,
}

impl Header {
    /// The header of a whole message in one frame without a mask.
    pub fn whole(opcode: Opcode) -> Self {
        Header { opcode, fin: true, compressed: false, key: None }
    }

    /// The bytes that stand before a payload of `length` bytes.
    pub fn encode(&self, length: usize) -> Encoded {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = u8::from(self.fin) << 7 | u8::from(self.compressed) << 6 | self.opcode.bits();
        let masked = u8::from(self.key.is_some()) << 7;
        let mut len = match length {
            0..=125 => {
                bytes[1] = masked | length as u8;
                2
            }
            126..=0xffff => {
                bytes[1] = masked | 126;
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = masked | 127;
                bytes[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        if let Some(key) = self.key {
            bytes[len..len + 4].copy_from_slice(&key);
            len += 4;
        }
        Encoded { bytes, len: len as u8 }
    }

    /// Reads a header and the length of the payload. `None` if more bytes are needed; what the first two have wrong is an
    /// error nevertheless.
    pub(super) fn decode(input: &[u8]) -> Result<Option<(Header, u64, usize)>, Violation> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        if first & 0x30 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & 15).ok_or(Violation::Opcode(first & 15))?;
        let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        let short = second & 127;
        if opcode.is_control() {
            if usize::from(short) > MAX_CONTROL {
                return Err(Violation::LongControl);
            }
            if !fin {
                return Err(Violation::FragmentedControl);
            }
        }
        let (length, rest) = match short {
            126 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*bytes)), rest)
            }
            127 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*bytes), rest)
            }
            _ => (u64::from(short), rest),
        };
        let shortest = match short {
            126 => length > 125,
            127 => length > 0xffff && length < 1 << 63,
            _ => true,
        };
        if !shortest {
            return Err(Violation::Length);
        }
        let (key, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (Some(*key), rest)
        };
        Ok(Some((Header { opcode, fin, compressed, key }, length, input.len() - rest.len())))
    }
}

/// An encoded header.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl std::ops::Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Puts a mask on, or takes it off. `offset` is where in the frame's payload `payload` begins.
pub fn mask(payload: &mut [u8], key: [u8; 4], offset: u64) {
    let mut turned = key;
    turned.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.into_iter().cycle()) {
        *byte ^= key;
    }
}
