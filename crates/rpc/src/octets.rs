// SPDX-License-Identifier: AGPL-3.0-or-later
//! Byte strings that need not be text.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte string, borrowed from its message if it was read.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Octets<'a>(pub Cow<'a, [u8]>);

impl Octets<'_> {
    /// The same with the bytes copied, for what outlives its message.
    pub fn into_owned(self) -> Octets<'static> {
        Octets(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> Octets<'a> {
    /// The bytes where they stand in the message; nothing if they were copied.
    pub fn in_message(&self) -> &'a [u8] {
        match self.0 {
            Cow::Borrowed(bytes) => bytes,
            Cow::Owned(_) => b"",
        }
    }
}

impl Deref for Octets<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<'a> From<&'a [u8]> for Octets<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Octets(Cow::Borrowed(bytes))
    }
}

impl<'a> From<&'a str> for Octets<'a> {
    fn from(text: &'a str) -> Self {
        Octets(Cow::Borrowed(text.as_bytes()))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Octets<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Octets(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Octets<'static> {
    fn from(bytes: Vec<u8>) -> Self {
        Octets(Cow::Owned(bytes))
    }
}

impl fmt::Debug for Octets<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

impl Serialize for Octets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Octets<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;

        impl<'de> Visitor<'de> for Borrow {
            type Value = Octets<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a byte string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(bytes.into())
            }
        }

        deserializer.deserialize_bytes(Borrow)
    }
}
