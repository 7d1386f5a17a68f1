// SPDX-License-Identifier: AGPL-3.0-or-later
//! One view on data that comes as JSON or as tnetstring: publish items and `application/grip-instruct`.
//!
//! The two differ in how they write bytes and absence, and agree in everything else. Error texts are part of the
//! interface, since publishers see them.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value as Json;
use tnetstring::{Checked, Kind};

use crate::head::{Unsendable, excerpt};

/// Names and values of headers, in order and as they are written.
pub(crate) type HeaderList = Vec<(Vec<u8>, Vec<u8>)>;

/// What is wrong with the shape of some data. The text says where and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Something that must be an object is none.
    #[error("{0} is not an object")]
    NotObject(Cow<'static, str>),
    /// A member is missing.
    #[error("{0} does not contain {1}")]
    Missing(Cow<'static, str>, &'static str),
    /// A member has the wrong type.
    #[error("{0} contains '{1}' with wrong type")]
    WrongType(Cow<'static, str>, String),
    /// A member's value is out of range.
    #[error("{0} contains '{1}' with invalid value")]
    InvalidValue(Cow<'static, str>, &'static str),
    /// The head of a response can not be sent.
    #[error("{0} cannot be sent: {1}")]
    Unsendable(Cow<'static, str>, Unsendable),
    /// Anything that one sentence says.
    #[error("{0}")]
    Other(Cow<'static, str>),
    /// An action that does not exist. Publishers have always got an empty text for this.
    #[error("")]
    UnknownAction,
}

impl Malformed {
    /// An error that is one sentence.
    pub(crate) fn other(text: impl Into<Cow<'static, str>>) -> Self {
        Malformed::Other(text.into())
    }
}

/// A value of either encoding.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// A JSON value.
    Json(&'a Json),
    /// A tnetstring value.
    Tnet(Checked<'a>),
}

impl<'a> Node<'a> {
    /// Whether binary content is written as base64 in members of its own.
    pub fn is_json(self) -> bool {
        matches!(self, Node::Json(_))
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        match self {
            Node::Json(value) => value.is_object(),
            Node::Tnet(value) => value.kind() == Kind::Map,
        }
    }

    /// A member of an object; the last one of that name. A tnetstring null is absent, a JSON null is not.
    pub fn get(self, key: &str) -> Option<Node<'a>> {
        match self {
            Node::Json(value) => value.get(key).map(Node::Json),
            Node::Tnet(value) => value.get(key.as_bytes()).filter(|v| v.kind() != Kind::Null).map(Node::Tnet),
        }
    }

    /// A string's bytes.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Node::Json(value) => value.as_str().map(str::as_bytes),
            Node::Tnet(value) => value.item().as_bytes().ok(),
        }
    }

    /// A string as text. Bytes that are not UTF-8 are replaced.
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.bytes().map(String::from_utf8_lossy)
    }

    /// Anything that can be taken for a whole number: numbers, booleans, and strings, of which those that are not
    /// numbers count as 0. Fractions are rounded, halves up.
    pub fn number(self) -> Option<i64> {
        let of_text = |text: &[u8]| crate::header::integer(text).unwrap_or(0);
        match self {
            Node::Json(Json::Number(n)) => Some(n.as_i64().unwrap_or_else(|| rounded(n.as_f64().unwrap_or(0.0)))),
            Node::Json(Json::Bool(b)) => Some(i64::from(*b)),
            Node::Json(Json::String(s)) => Some(of_text(s.as_bytes())),
            Node::Json(_) => None,
            Node::Tnet(value) => match value.kind() {
                Kind::Int => value.item().as_int().ok(),
                Kind::Float => value.item().as_float().ok().map(rounded),
                Kind::Bool => value.item().as_bool().ok().map(i64::from),
                Kind::Bytes => Some(of_text(value.item().payload)),
                _ => None,
            },
        }
    }

    /// A boolean.
    pub fn boolean(self) -> Option<bool> {
        match self {
            Node::Json(value) => value.as_bool(),
            Node::Tnet(value) => value.item().as_bool().ok(),
        }
    }

    /// The elements of a list.
    pub fn list(self) -> Option<Vec<Node<'a>>> {
        match self {
            Node::Json(value) => Some(value.as_array()?.iter().map(Node::Json).collect()),
            Node::Tnet(value) => Some(value.items()?.map(Node::Tnet).collect()),
        }
    }

    /// The members of an object.
    pub fn entries(self) -> Option<Vec<(Cow<'a, str>, Node<'a>)>> {
        match self {
            Node::Json(value) => {
                Some(value.as_object()?.iter().map(|(k, v)| (Cow::Borrowed(k.as_str()), Node::Json(v))).collect())
            }
            Node::Tnet(value) => {
                Some(value.entries()?.map(|(k, v)| (String::from_utf8_lossy(k), Node::Tnet(v))).collect())
            }
        }
    }

    /// The value as a JSON tree, its byte strings as text.
    pub fn to_json(self) -> Json {
        let item = match self {
            Node::Json(value) => return value.clone(),
            Node::Tnet(value) => value.item(),
        };
        match item.kind {
            Kind::Bytes => String::from_utf8_lossy(item.payload).into(),
            Kind::Int => item.as_int().unwrap_or(0).into(),
            Kind::Float => item.as_float().unwrap_or(0.0).into(),
            Kind::Bool => item.as_bool().unwrap_or(false).into(),
            Kind::Null => Json::Null,
            Kind::List => self.list().unwrap_or_default().into_iter().map(Node::to_json).collect(),
            Kind::Map => {
                let entries = self.entries().unwrap_or_default();
                entries.into_iter().map(|(k, v)| (k.into_owned(), v.to_json())).collect()
            }
        }
    }

    /// A member that must be a string if it is there.
    pub(crate) fn string_member(
        self,
        key: &'static str,
        object: &'static str,
    ) -> Result<Option<Cow<'a, str>>, Malformed> {
        match self.get(key) {
            None => Ok(None),
            Some(node) => Ok(Some(node.text().ok_or_else(|| Malformed::WrongType(object.into(), key.into()))?)),
        }
    }

    /// A member that must be a number within `range` if it is there.
    pub(crate) fn number_member(
        self,
        key: &'static str,
        object: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Malformed> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let number = node.number().ok_or_else(|| Malformed::WrongType(object.into(), key.into()))?;
        match range.contains(&number) {
            true => Ok(Some(number)),
            false => Err(Malformed::InvalidValue(object.into(), key)),
        }
    }

    /// A member with content in base64, wherever it is read. Characters outside its alphabet are skipped.
    pub(crate) fn base64_member(self, key: &'static str, object: &'static str) -> Result<Option<Vec<u8>>, Malformed> {
        match self.get(key) {
            None => Ok(None),
            Some(node) => {
                let encoded = node.bytes().ok_or_else(|| Malformed::WrongType(object.into(), key.into()))?;
                Ok(Some(decode_base64(encoded)))
            }
        }
    }

    /// The members of an object that must all be strings, such as `meta`; none if it is absent. `object` is what holds it.
    pub(crate) fn strings_member(
        self,
        key: &'static str,
        object: &'static str,
    ) -> Result<Vec<(String, String)>, Malformed> {
        let Some(node) = self.get(key) else { return Ok(Vec::new()) };
        let entries = node.entries().ok_or_else(|| Malformed::WrongType(object.into(), key.into()))?;
        let mut strings = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            match value.text() {
                Some(text) => strings.push((name.into_owned(), text.into_owned())),
                None => return Err(Malformed::WrongType(format!("'{key}'").into(), excerpt(name.as_bytes()))),
            }
        }
        Ok(strings)
    }

    /// The member `headers`: a list of pairs, or an object.
    pub(crate) fn headers_member(self, object: &'static str) -> Result<HeaderList, Malformed> {
        let Some(node) = self.get("headers") else { return Ok(Vec::new()) };
        if let Some(list) = node.list() {
            return list.into_iter().map(header_pair).collect();
        }
        let entries = node.entries().ok_or_else(|| Malformed::WrongType(object.into(), "headers".into()))?;
        let pair = |(name, value): (Cow<'_, str>, Node<'_>)| match value.bytes() {
            Some(value) => Ok((name.as_bytes().to_vec(), value.to_vec())),
            None => Err(Malformed::WrongType("headers".into(), excerpt(name.as_bytes()))),
        };
        entries.into_iter().map(pair).collect()
    }
}

fn header_pair(node: Node<'_>) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let list = node.list().ok_or_else(|| Malformed::other("headers contains element with wrong type"))?;
    let [name, value] = list[..] else {
        return Err(Malformed::other("headers contains list with wrong number of elements"));
    };
    let name = name.bytes().ok_or_else(|| Malformed::other("header contains name element with wrong type"))?;
    let value = value.bytes().ok_or_else(|| Malformed::other("header contains value element with wrong type"))?;
    Ok((name.to_vec(), value.to_vec()))
}

/// The whole number next to this one, the upper of two.
fn rounded(number: f64) -> i64 {
    (number + 0.5).floor() as i64
}

/// Decodes base64 as Pushpin does: characters that are not of the standard alphabet are skipped, `-` and `_` too; padding may be
/// missing.
pub fn decode_base64(encoded: &[u8]) -> Vec<u8> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut digits: Vec<u8> = encoded.iter().copied().filter(is_digit).collect();
    if digits.len() % 4 == 1 {
        // Six bits make no byte.
        digits.pop();
    }
    ENGINE.decode(digits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tnet(packet: &[u8]) -> Node<'_> {
        Node::Tnet(Checked::new(tnetstring::split(packet).unwrap().0).unwrap())
    }

    #[test]
    fn base64_is_read_leniently() {
        assert_eq!(decode_base64(b"aGVsbG8="), b"hello");
        assert_eq!(decode_base64(b"aGV sbG8"), b"hello");
        assert_eq!(decode_base64(b"aGVsbG8*!"), b"hello");
        assert_eq!(decode_base64(b"/+8="), [0xff, 0xef]);
        assert_eq!(decode_base64(b"aGk-_"), b"hi");
        assert_eq!(decode_base64(b"YQ==YQ=="), b"a\x06\x10");
        assert_eq!(decode_base64(b"a"), b"");
    }

    #[test]
    fn numbers_are_found_in_much() {
        for (json, number) in [
            ("3", Some(3)),
            ("3.7", Some(4)),
            ("3.5", Some(4)),
            ("3.4", Some(3)),
            ("-0.4", Some(0)),
            ("-1.5", Some(-1)),
            ("1e300", Some(i64::MAX)),
            ("true", Some(1)),
            ("\"12\"", Some(12)),
            ("\"x\"", Some(0)),
            ("null", None),
            ("[]", None),
        ] {
            let value: Json = serde_json::from_str(json).unwrap();
            assert_eq!(Node::Json(&value).number(), number, "{json}");
        }
        assert_eq!(tnet(b"2:12,").number(), Some(12));
        assert_eq!(tnet(b"3:1.9^").number(), Some(2));
        assert_eq!(tnet(b"4:true!").number(), Some(1));
        assert_eq!(tnet(b"0:~").number(), None);
    }

    #[test]
    fn a_null_is_absent_in_tnetstring_and_present_in_json() {
        let json: Json = serde_json::from_str(r#"{"a":null}"#).unwrap();
        assert!(Node::Json(&json).get("a").is_some());
        assert!(tnet(b"7:1:a,0:~}").get("a").is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_base64_never_panics(text in prop::collection::vec(any::<u8>(), 0..100)) {
            decode_base64(&text);
        }
    }
}
