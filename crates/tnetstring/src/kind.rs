// SPDX-License-Identifier: AGPL-3.0-or-later
//! Kinds of values, and the bytes that mark them.

/// What a value is, from the byte after its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `,` — any bytes, not necessarily text.
    Bytes,
    /// `#` — a decimal integer.
    Int,
    /// `^` — a decimal fraction.
    Float,
    /// `!` — `true` or `false`.
    Bool,
    /// `~` — nothing.
    Null,
    /// `]` — values one after the other.
    List,
    /// `}` — keys and values one after the other.
    Map,
}

impl Kind {
    /// The byte that marks this kind on the wire.
    pub const fn type_byte(self) -> u8 {
        match self {
            Kind::Bytes => b',',
            Kind::Int => b'#',
            Kind::Float => b'^',
            Kind::Bool => b'!',
            Kind::Null => b'~',
            Kind::List => b']',
            Kind::Map => b'}',
        }
    }

    #[inline]
    pub(crate) const fn from_type_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            b',' => Kind::Bytes,
            b'#' => Kind::Int,
            b'^' => Kind::Float,
            b'!' => Kind::Bool,
            b'~' => Kind::Null,
            b']' => Kind::List,
            b'}' => Kind::Map,
            _ => return None,
        })
    }
}
