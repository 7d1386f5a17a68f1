// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can be wrong with a tnetstring.

use crate::kind::Kind;

/// Why a value could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends before the value does.
    #[error("input ends inside a value")]
    Truncated,
    /// The length is missing, not made of digits, or longer than [`item::MAX_LENGTH_DIGITS`](crate::item::MAX_LENGTH_DIGITS).
    #[error("a value must start with its length: one to nine digits and a colon")]
    BadLength,
    /// The byte after the payload is none of the known types.
    #[error("unknown type byte 0x{0:02x} after a payload")]
    UnknownType(u8),
    /// The value is of another kind than the reader asked for.
    #[error("expected {expected}, found {found:?}")]
    WrongKind {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        found: Kind,
    },
    /// The payload of an integer is not a decimal number of 64 bits.
    #[error("the payload of an integer is not a decimal number of 64 bits")]
    BadInt,
    /// The payload of a float is not a finite decimal number.
    #[error("the payload of a float is not a finite decimal number")]
    BadFloat,
    /// The payload of a boolean is neither `true` nor `false`.
    #[error("the payload of a boolean is neither true nor false")]
    BadBool,
    /// A map has a key without a value.
    #[error("a map ends after a key")]
    MissingValue,
    /// A key of a map is not a byte string.
    #[error("a key of a map must be a byte string, found {0:?}")]
    BadKey(Kind),
    /// Text was asked for and the bytes are not UTF-8.
    #[error("a byte string that should be text is not UTF-8")]
    NotText,
    /// More than [`MAX_DEPTH`](crate::MAX_DEPTH) lists or maps inside each other.
    #[error("lists and maps are nested more than {} deep", crate::MAX_DEPTH)]
    TooDeep,
    /// The type that is read or written objects.
    #[error("{0}")]
    Custom(String),
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Custom(message.to_string())
    }
}

impl serde::ser::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::Custom(message.to_string())
    }
}
