//! Writing with serde, for packets off the data path.
//!
//! serde hands out fields first to last and the [`Writer`] wants them last to first, so a tree is built and then written.
//! Hot packets are written by hand with the `Writer` instead.
//!
//! `None` is null; leave a field out with `skip_serializing_if`. Text and byte strings are the same on the wire.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use crate::{Error, Kind, MAX_DEPTH, Value, Writer};

/// Writes `value` as one tnetstring. Fails on numbers beyond 64 bits with sign, on floats that are not finite, on keys
/// that are not text or bytes, and beyond [`MAX_DEPTH`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(256);
    writer.tree(&to_value(value)?);
    Ok(writer.finish())
}

/// Builds the tree of `value`; see [`to_vec`] for what can fail.
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    value.serialize(TreeBuilder { depth: MAX_DEPTH })
}

#[derive(Clone, Copy)]
struct TreeBuilder {
    /// How many more levels may be entered.
    depth: usize,
}

impl TreeBuilder {
    fn inner(self) -> Result<TreeBuilder, Error> {
        Ok(TreeBuilder { depth: self.depth.checked_sub(1).ok_or(Error::TooDeep)? })
    }

    fn list(self, length: Option<usize>, variant: Option<&'static str>) -> Result<ListBuilder, Error> {
        let inner = if variant.is_some() { self.inner()?.inner()? } else { self.inner()? };
        // The length is only a hint and not to be trusted with memory.
        Ok(ListBuilder { values: Vec::with_capacity(length.unwrap_or(0).min(1024)), inner, variant })
    }

    fn map(self, variant: Option<&'static str>) -> Result<MapBuilder, Error> {
        let inner = if variant.is_some() { self.inner()?.inner()? } else { self.inner()? };
        Ok(MapBuilder { entries: Vec::new(), key: None, inner, variant })
    }
}

impl Serializer for TreeBuilder {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = ListBuilder;
    type SerializeTuple = ListBuilder;
    type SerializeTupleStruct = ListBuilder;
    type SerializeTupleVariant = ListBuilder;
    type SerializeMap = MapBuilder;
    type SerializeStruct = MapBuilder;
    type SerializeStructVariant = MapBuilder;

    fn serialize_bool(self, value: bool) -> Result<Value, Error> {
        Ok(Value::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Result<Value, Error> {
        Ok(Value::Int(value))
    }

    fn serialize_u8(self, value: u8) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Result<Value, Error> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Result<Value, Error> {
        i64::try_from(value).map(Value::Int).map_err(|_| Error::BadInt)
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Error> {
        if value.is_finite() { Ok(Value::Float(value)) } else { Err(Error::BadFloat) }
    }

    fn serialize_char(self, value: char) -> Result<Value, Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Value, Error> {
        Ok(Value::Bytes(value.as_bytes().to_vec()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Error> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        Ok(in_variant(Some(variant), value.serialize(self.inner()?)?))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<ListBuilder, Error> {
        self.list(length, None)
    }

    fn serialize_tuple(self, length: usize) -> Result<ListBuilder, Error> {
        self.list(Some(length), None)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<ListBuilder, Error> {
        self.list(Some(length), None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<ListBuilder, Error> {
        self.list(Some(length), Some(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<MapBuilder, Error> {
        self.map(None)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<MapBuilder, Error> {
        self.map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<MapBuilder, Error> {
        self.map(Some(variant))
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}

fn in_variant(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::Map(vec![(name.as_bytes().to_vec(), value)]),
        None => value,
    }
}

struct ListBuilder {
    values: Vec<Value>,
    inner: TreeBuilder,
    variant: Option<&'static str>,
}

impl ListBuilder {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.values.push(value.serialize(self.inner)?);
        Ok(())
    }

    fn finish(self) -> Result<Value, Error> {
        Ok(in_variant(self.variant, Value::List(self.values)))
    }
}

struct MapBuilder {
    entries: Vec<(Vec<u8>, Value)>,
    key: Option<Vec<u8>>,
    inner: TreeBuilder,
    variant: Option<&'static str>,
}

impl MapBuilder {
    fn push<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        self.entries.push((key.as_bytes().to_vec(), value.serialize(self.inner)?));
        Ok(())
    }

    fn finish(self) -> Result<Value, Error> {
        Ok(in_variant(self.variant, Value::Map(self.entries)))
    }
}

macro_rules! list_builder {
    ($($trait:ident $method:ident)*) => {
        $(impl $trait for ListBuilder {
            type Ok = Value;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.push(value)
            }

            fn end(self) -> Result<Value, Error> {
                self.finish()
            }
        })*
    };
}

list_builder! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

macro_rules! struct_builder {
    ($($trait:ident)*) => {
        $(impl $trait for MapBuilder {
            type Ok = Value;
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
                self.push(key, value)
            }

            fn end(self) -> Result<Value, Error> {
                self.finish()
            }
        })*
    };
}

struct_builder! { SerializeStruct SerializeStructVariant }

impl SerializeMap for MapBuilder {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = Some(match key.serialize(self.inner)? {
            Value::Bytes(key) => key,
            Value::Int(_) => return Err(Error::BadKey(Kind::Int)),
            Value::Float(_) => return Err(Error::BadKey(Kind::Float)),
            Value::Bool(_) => return Err(Error::BadKey(Kind::Bool)),
            Value::Null => return Err(Error::BadKey(Kind::Null)),
            Value::List(_) => return Err(Error::BadKey(Kind::List)),
            Value::Map(_) => return Err(Error::BadKey(Kind::Map)),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let key = self.key.take().ok_or(Error::MissingValue)?;
        self.entries.push((key, value.serialize(self.inner)?));
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
