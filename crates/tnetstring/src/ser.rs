// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writing with serde, for packets off the data path.
//!
//! serde hands out fields first to last, and a length stands before what it measures. So the contents of a list or map
//! are written first, and moved by the few bytes of their length when that is known: each byte once for each list or map
//! around it, which for the few levels of our messages costs less than building the parts apart.
//! Hot packets are written by hand with the [`Writer`](crate::Writer) instead.
//!
//! `None` is null; leave a field out with `skip_serializing_if`. Text and byte strings are the same on the wire.

use std::io::Write;

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use crate::{Error, Kind, MAX_DEPTH};

/// Writes `value` as one tnetstring. Fails on numbers beyond 64 bits with sign, on floats that are not finite, on keys
/// that are not text or bytes, and beyond [`MAX_DEPTH`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(256);
    append(value, &mut bytes)?;
    Ok(bytes)
}

/// As [`to_vec`], behind what `bytes` has already. After a failure `bytes` is as before.
pub fn append<T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let before = bytes.len();
    let result = value.serialize(&mut Output { bytes, depth: MAX_DEPTH });
    if result.is_err() {
        bytes.truncate(before);
    }
    result
}

struct Output<'b> {
    bytes: &'b mut Vec<u8>,
    /// How many more levels may be entered.
    depth: usize,
}

impl<'b> Output<'b> {
    fn scalar(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        self.bytes.reserve(payload.len() + 22);
        self.length(payload.len());
        self.bytes.extend_from_slice(payload);
        self.bytes.push(kind.type_byte());
        Ok(())
    }

    /// A length and its colon. Nearly all have one or two digits, and there are seventy of them in a hand-over: formatting
    /// each in a buffer of its own was a twentieth of what a hold cost the proxy.
    fn length(&mut self, length: usize) {
        match length {
            0..10 => self.bytes.push(b'0' + length as u8),
            10..100 => self.bytes.extend_from_slice(&[b'0' + (length / 10) as u8, b'0' + (length % 10) as u8]),
            _ => self.bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes()),
        }
        self.bytes.push(b':');
    }

    fn integer(&mut self, value: i64) -> Result<(), Error> {
        self.scalar(Kind::Int, itoa::Buffer::new().format(value).as_bytes())
    }

    /// A float in the shortest form that reads as the same number.
    fn float(&mut self, value: f64) -> Result<(), Error> {
        let mut text = [0; 32];
        let mut rest = &mut text[..];
        // The longest has 25 bytes.
        write!(rest, "{value:?}").map_err(|_| Error::BadFloat)?;
        let length = 32 - rest.len();
        self.scalar(Kind::Float, &text[..length])
    }

    fn begin<'o>(&'o mut self, kind: Kind) -> Result<Container<'o, 'b>, Error> {
        self.depth = self.depth.checked_sub(1).ok_or(Error::TooDeep)?;
        Ok(Container { start: self.bytes.len(), variant: None, kind, output: self })
    }

    /// A list or map that is the only entry of a map, whose key is the name of a variant.
    fn begin_in_variant<'o>(&'o mut self, name: &str, kind: Kind) -> Result<Container<'o, 'b>, Error> {
        let around = self.begin_variant(name)?;
        Ok(Container { variant: Some(around), ..self.begin(kind)? })
    }

    fn begin_variant(&mut self, name: &str) -> Result<usize, Error> {
        let start = self.begin(Kind::Map)?.start;
        self.scalar(Kind::Bytes, name.as_bytes())?;
        Ok(start)
    }

    /// Puts the length before what was written since `start`, and the type behind it.
    fn finish(&mut self, start: usize, kind: Kind) {
        let end = self.bytes.len();
        self.length(end - start);
        let prefix = self.bytes.len() - end;
        self.bytes[start..].rotate_right(prefix);
        self.bytes.push(kind.type_byte());
        self.depth += 1;
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty)*) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.integer(i64::try_from(value).map_err(|_| Error::BadInt)?)
        })*
    };
}

impl<'o, 'b> Serializer for &'o mut Output<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Container<'o, 'b>;
    type SerializeTuple = Container<'o, 'b>;
    type SerializeTupleStruct = Container<'o, 'b>;
    type SerializeTupleVariant = Container<'o, 'b>;
    type SerializeMap = Container<'o, 'b>;
    type SerializeStruct = Container<'o, 'b>;
    type SerializeStructVariant = Container<'o, 'b>;

    numbers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.scalar(Kind::Bool, if value { b"true" } else { b"false" })
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        if value.is_finite() { self.float(value) } else { Err(Error::BadFloat) }
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.scalar(Kind::Bytes, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.scalar(Kind::Bytes, value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.scalar(Kind::Null, b"")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let start = self.begin_variant(variant)?;
        value.serialize(&mut *self)?;
        self.finish(start, Kind::Map);
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Container<'o, 'b>, Error> {
        self.begin(Kind::List)
    }

    fn serialize_tuple(self, _: usize) -> Result<Container<'o, 'b>, Error> {
        self.begin(Kind::List)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Container<'o, 'b>, Error> {
        self.begin(Kind::List)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'o, 'b>, Error> {
        self.begin_in_variant(variant, Kind::List)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Container<'o, 'b>, Error> {
        self.begin(Kind::Map)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Container<'o, 'b>, Error> {
        self.begin(Kind::Map)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'o, 'b>, Error> {
        self.begin_in_variant(variant, Kind::Map)
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}

/// A list or map that is being written.
struct Container<'o, 'b> {
    output: &'o mut Output<'b>,
    /// Where its contents begin.
    start: usize,
    /// Where the contents of the map around it begin, if it is the content of a variant.
    variant: Option<usize>,
    kind: Kind,
}

impl Container<'_, '_> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.output)
    }

    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        self.output.scalar(Kind::Bytes, key.as_bytes())?;
        self.push(value)
    }

    fn finish(self) -> Result<(), Error> {
        self.output.finish(self.start, self.kind);
        if let Some(around) = self.variant {
            self.output.finish(around, Kind::Map);
        }
        Ok(())
    }
}

macro_rules! list {
    ($($trait:ident $method:ident)*) => {
        $(impl $trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.push(value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

list! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! named_fields {
    ($($trait:ident)*) => {
        $(impl $trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
                self.entry(key, value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        })*
    };
}

named_fields! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Container<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.push(key)?;
        match self.output.bytes.last().copied().and_then(Kind::from_type_byte) {
            Some(Kind::Bytes) => Ok(()),
            other => Err(Error::BadKey(other.unwrap_or(Kind::Null))),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.push(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Answer {
        no_proxy: bool,
        #[serde(with = "crate::bytes")]
        body: Vec<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        ids: Vec<&'static str>,
    }

    #[test]
    fn a_struct_is_a_map_in_the_order_of_its_fields() {
        let answer = Answer { no_proxy: false, body: vec![0xff], code: None, ids: vec!["a", "b"] };
        assert_eq!(to_vec(&answer).unwrap(), b"47:8:no-proxy,5:false!4:body,1:\xff,3:ids,8:1:a,1:b,]}");
    }

    #[test]
    fn every_kind_of_variant_is_a_name_or_a_map_of_one() {
        #[derive(Serialize)]
        enum Shape {
            Point,
            Circle(i64),
            Line(i64, i64),
            Box { side: f64 },
        }
        for (shape, expected) in [
            (Shape::Point, &b"5:Point,"[..]),
            (Shape::Circle(-3), b"14:6:Circle,2:-3#}"),
            (Shape::Line(1, 20), b"19:4:Line,9:1:1#2:20#]}"),
            (Shape::Box { side: 1.5 }, b"23:3:Box,13:4:side,3:1.5^}}"),
        ] {
            assert_eq!(to_vec(&shape).as_deref(), Ok(expected));
            assert_eq!(crate::split(expected).map(|(_, rest)| rest.len()), Ok(0));
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let mut bytes = b"before".to_vec();
        assert!(append(&("abc", f64::NAN), &mut bytes).is_err());
        assert_eq!(append(&("a", f64::MIN_POSITIVE), &mut bytes), Ok(()));
        assert_eq!(bytes, b"before31:1:a,23:2.2250738585072014e-308^]");
    }

    #[test]
    fn what_has_no_form_on_the_wire_is_refused() {
        assert_eq!(to_vec(&u64::MAX), Err(Error::BadInt));
        assert_eq!(to_vec(&f64::INFINITY), Err(Error::BadFloat));
        assert_eq!(to_vec(&std::collections::BTreeMap::from([(1, 2)])), Err(Error::BadKey(Kind::Int)));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| (0..depth).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert!(to_vec(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(to_vec(&nested(MAX_DEPTH + 1)), Err(Error::TooDeep));
    }
}
