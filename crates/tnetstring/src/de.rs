// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reading with serde, for packets off the data path.
//!
//! Byte strings are borrowed from the input, as bytes or, when the target wants text, as text that has been checked.
//! Integers may come as byte strings of digits, which some senders write. `Option` is `None` for null.

use serde::de::value::BorrowedBytesDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::{Entries, Error, Item, Items, Kind, MAX_DEPTH, split};

/// Reads the value at the front of `input`; what follows it is ignored.
pub fn from_slice<'de, T: Deserialize<'de>>(input: &'de [u8]) -> Result<T, Error> {
    let (item, _) = split(input)?;
    from_item(item)
}

/// Reads a value that has been split off already.
pub fn from_item<'de, T: Deserialize<'de>>(item: Item<'de>) -> Result<T, Error> {
    T::deserialize(ItemDeserializer { item, depth: MAX_DEPTH })
}

struct ItemDeserializer<'de> {
    item: Item<'de>,
    /// How many more levels may be entered.
    depth: usize,
}

impl<'de> ItemDeserializer<'de> {
    fn inner_depth(&self) -> Result<usize, Error> {
        self.depth.checked_sub(1).ok_or(Error::TooDeep)
    }
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_i64(self.item.as_int_or_digits()?)
        })*
    };
}

impl<'de> serde::Deserializer<'de> for ItemDeserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item.kind {
            Kind::Bytes => visitor.visit_borrowed_bytes(self.item.payload),
            Kind::Int => visitor.visit_i64(self.item.as_int()?),
            Kind::Float => visitor.visit_f64(self.item.as_float()?),
            Kind::Bool => visitor.visit_bool(self.item.as_bool()?),
            Kind::Null => visitor.visit_unit(),
            Kind::List => visitor.visit_seq(ListAccess { items: self.item.items()?, depth: self.inner_depth()? }),
            Kind::Map => visitor.visit_map(EntryAccess {
                entries: self.item.entries()?,
                value: None,
                depth: self.inner_depth()?,
            }),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_f64(self.item.as_float()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.item.as_str()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.item.as_bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.item.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        // A type that wraps itself must not recurse without end either.
        let depth = self.inner_depth()?;
        visitor.visit_newtype_struct(ItemDeserializer { depth, ..self })
    }

    /// Only a map: fields of a list would be told apart by their order alone.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.item.kind {
            Kind::Map => self.deserialize_any(visitor),
            found => Err(Error::WrongKind { expected: "a map", found }),
        }
    }

    /// A name, or a map of one name and its content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.item.kind {
            Kind::Bytes => visitor.visit_enum(self.item.as_str()?.into_deserializer()),
            Kind::Map => {
                let mut entries = self.item.entries()?;
                let (name, content) =
                    entries.next().ok_or(Error::WrongKind { expected: "a variant", found: Kind::Map })??;
                visitor.visit_enum(Variant {
                    name,
                    content: ItemDeserializer { item: content, depth: self.inner_depth()? },
                })
            }
            found => Err(Error::WrongKind { expected: "the name of a variant", found }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Not entered: whoever ignores it does not care what is wrong inside.
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct ListAccess<'de> {
    items: Items<'de>,
    depth: usize,
}

impl<'de> SeqAccess<'de> for ListAccess<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else { return Ok(None) };
        seed.deserialize(ItemDeserializer { item: item?, depth: self.depth }).map(Some)
    }
}

struct EntryAccess<'de> {
    entries: Entries<'de>,
    /// The value of the key that was handed out last.
    value: Option<Item<'de>>,
    depth: usize,
}

impl<'de> MapAccess<'de> for EntryAccess<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        let (key, value) = entry?;
        self.value = Some(value);
        let key = Item { kind: Kind::Bytes, payload: key };
        seed.deserialize(ItemDeserializer { item: key, depth: self.depth }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let item = self.value.take().ok_or(Error::MissingValue)?;
        seed.deserialize(ItemDeserializer { item, depth: self.depth })
    }
}

struct Variant<'de> {
    name: &'de [u8],
    content: ItemDeserializer<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = ItemDeserializer<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Error> {
        let name = seed.deserialize(BorrowedBytesDeserializer::<Error>::new(self.name))?;
        Ok((name, self.content))
    }
}

impl<'de> VariantAccess<'de> for ItemDeserializer<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        serde::Deserializer::deserialize_seq(self, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        serde::Deserializer::deserialize_map(self, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Request<'a> {
        #[serde(borrow)]
        id: &'a str,
        #[serde(with = "crate::bytes")]
        body: &'a [u8],
        seq: u32,
        #[serde(default)]
        peer_port: Option<u16>,
        #[serde(default)]
        more: bool,
        headers: Vec<(&'a [u8], &'a [u8])>,
    }

    const REQUEST: &[u8] = b"57:2:id,1:7,4:body,2:\xff\0,3:seq,2:12,7:headers,11:8:1:A,1:b,]]}";

    #[test]
    fn bytes_and_text_are_borrowed_from_the_packet() {
        let request: Request = from_slice(REQUEST).unwrap();
        assert_eq!(
            request,
            Request {
                id: "7",
                body: b"\xff\0",
                seq: 12,
                peer_port: None,
                more: false,
                headers: vec![(&b"A"[..], &b"b"[..])]
            }
        );
    }

    #[test]
    fn bytes_behind_the_first_value_are_ignored() {
        assert_eq!(from_slice::<u8>(b"1:1#garbage"), Ok(1));
    }

    #[test]
    fn unknown_keys_are_ignored_whatever_is_in_them() {
        #[derive(Deserialize)]
        struct Only {
            a: i64,
        }
        assert_eq!(from_slice::<Only>(b"21:1:z,6:brokenx1:a,1:5#}").map(|only| only.a), Err(Error::UnknownType(b'x')));
        assert_eq!(from_slice::<Only>(b"21:1:z,6:broken]1:a,1:5#}").map(|only| only.a), Ok(5));
    }

    #[test]
    fn a_struct_is_not_read_from_a_list() {
        #[derive(Debug, Deserialize)]
        struct Only {
            _a: i64,
        }
        let error = from_slice::<Only>(b"4:1:5#]").unwrap_err();
        assert_eq!(error, Error::WrongKind { expected: "a map", found: Kind::List });
    }

    #[test]
    fn text_must_be_text() {
        assert_eq!(from_slice::<String>(b"1:\xff,"), Err(Error::NotText));
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        assert!(from_slice::<u8>(b"3:256#").is_err());
        assert!(from_slice::<u32>(b"2:-1#").is_err());
    }

    #[test]
    fn an_enum_is_a_name_or_a_map_of_one() {
        #[derive(Debug, PartialEq, Deserialize)]
        enum Shape {
            Point,
            Circle(i64),
        }
        assert_eq!(from_slice::<Shape>(b"5:Point,"), Ok(Shape::Point));
        assert_eq!(from_slice::<Shape>(b"13:6:Circle,1:3#}"), Ok(Shape::Circle(3)));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| {
            let mut packet = Vec::new();
            for _ in 0..depth {
                packet = [format!("{}:", packet.len()).as_bytes(), &packet, b"]"].concat();
            }
            packet
        };
        assert!(from_slice::<crate::Value>(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(from_slice::<crate::Value>(&nested(MAX_DEPTH + 1)), Err(Error::TooDeep));
    }
}
