// SPDX-License-Identifier: AGPL-3.0-or-later
//! Fields that are byte strings.
//!
//! serde takes `Vec<u8>` and `&[u8]` for lists of numbers when it writes. A field marked
//! `#[serde(with = "tnetstring::bytes")]` is a byte string both ways; it may be a `Vec<u8>`, a `Cow<[u8]>` or a `&[u8]`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the field as a byte string.
pub fn serialize<T: AsRef<[u8]>, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(value.as_ref())
}

/// Reads a byte string into the field, borrowed if the field can borrow.
pub fn deserialize<'de, T: From<&'de [u8]>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Borrow<T>(PhantomData<T>);

    impl<'de, T: From<&'de [u8]>> Visitor<'de> for Borrow<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a byte string")
        }

        fn visit_borrowed_bytes<E: Error>(self, value: &'de [u8]) -> Result<T, E> {
            Ok(T::from(value))
        }

        fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<T, E> {
            Ok(T::from(value.as_bytes()))
        }
    }

    deserializer.deserialize_bytes(Borrow(PhantomData))
}

/// Writes its content as a byte string.
pub(crate) struct AsBytes<'a>(pub &'a [u8]);

impl Serialize for AsBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Reads a byte string from any format that has them.
pub(crate) struct Owned(pub Vec<u8>);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Copy;

        impl Visitor<'_> for Copy {
            type Value = Owned;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Owned, E> {
                Ok(Owned(value.to_vec()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Owned, E> {
                Ok(Owned(value.as_bytes().to_vec()))
            }
        }

        deserializer.deserialize_bytes(Copy)
    }
}
