// SPDX-License-Identifier: AGPL-3.0-or-later
//! What must hold for any input.

use proptest::collection::vec;
use proptest::prelude::*;
use tnetstring::{Checked, Error, Item, Kind, Value, Writer, from_slice, split, to_vec};

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::Float),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::List),
            vec((vec(any::<u8>(), 0..12), inner), 0..8).prop_map(Value::Map),
        ]
    })
}

/// Bytes that look enough like a packet to get past the first check.
fn nearly_a_packet() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[0-9]{1,11}:".prop_map(String::into_bytes),
        "[,#^!~\\]}]".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..6),
        Just(b"4:true!".to_vec()),
        Just(b"3:key,".to_vec()),
    ];
    vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// The tree of a checked value. It has no errors and no limit of its own; the check stands for both.
fn tree(value: Checked<'_>) -> Value {
    let item = value.item();
    match value.kind() {
        Kind::List => Value::List(value.items().unwrap().map(tree).collect()),
        Kind::Map => Value::Map(value.entries().unwrap().map(|(key, value)| (key.to_vec(), tree(value))).collect()),
        Kind::Bytes => Value::Bytes(item.payload.to_vec()),
        Kind::Int => Value::Int(item.as_int().unwrap()),
        Kind::Float => Value::Float(item.as_float().unwrap()),
        Kind::Bool => Value::Bool(item.as_bool().unwrap()),
        Kind::Null => Value::Null,
    }
}

/// Reads everything that can be reached, and counts it.
fn walk(item: Item<'_>, depth: usize) -> usize {
    let _ = (item.as_bytes(), item.as_str(), item.as_int(), item.as_int_or_digits(), item.as_float(), item.as_bool());
    if depth == 0 {
        return 1;
    }
    match item.kind {
        Kind::List => 1 + item.items().unwrap().flatten().map(|item| walk(item, depth - 1)).sum::<usize>(),
        Kind::Map => 1 + item.entries().unwrap().flatten().map(|(_, item)| walk(item, depth - 1)).sum::<usize>(),
        _ => 1,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_value()) {
        let mut writer = Writer::new(0);
        writer.tree(&value);
        let packet = writer.finish();
        prop_assert_eq!(from_slice::<Value>(&packet).unwrap(), value);
    }

    #[test]
    fn serde_and_the_writer_agree(value in any_value()) {
        let mut writer = Writer::new(16);
        writer.tree(&value);
        prop_assert_eq!(to_vec(&value).unwrap(), writer.as_slice());
    }

    #[test]
    fn any_bytes_are_read_without_panic_and_in_bounds(input in prop_oneof![vec(any::<u8>(), 0..200), nearly_a_packet()]) {
        if let Ok((item, rest)) = split(&input) {
            prop_assert!(item.payload.len() + rest.len() < input.len());
            prop_assert!(walk(item, 200) <= input.len());
        }
        let _ = from_slice::<Value>(&input);
    }

    #[test]
    fn a_value_is_checked_if_and_only_if_serde_can_read_it(
        input in prop_oneof![any_value().prop_map(|value| to_vec(&value).unwrap()), nearly_a_packet()],
        at in any::<prop::sample::Index>(),
        byte in prop::option::of(any::<u8>()),
    ) {
        let mut input = input;
        if let (Some(byte), false) = (byte, input.is_empty()) {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let checked = split(&input).and_then(|(item, _)| Checked::new(item));
        match (checked, from_slice::<Value>(&input)) {
            (Ok(checked), read) => prop_assert_eq!(Ok(tree(checked)), read),
            (Err(error), read) => prop_assert_eq!(Err(error), read),
        }
    }

    #[test]
    fn a_broken_packet_is_read_without_panic(value in any_value(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut packet = to_vec(&value).unwrap();
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = from_slice::<Value>(&packet);
        packet.truncate(at);
        prop_assert!(matches!(split(&packet), Err(Error::Truncated | Error::BadLength)));
    }

    #[test]
    fn any_bytes_survive_as_a_byte_string(bytes in vec(any::<u8>(), 0..500)) {
        let mut writer = Writer::new(0);
        writer.bytes(&bytes);
        prop_assert_eq!(split(writer.as_slice()).unwrap().0.as_bytes().unwrap(), bytes);
    }
}

/// Serde's readers and writers stop at the same depth, however the nesting comes about.
#[test]
fn nothing_that_is_too_deep_is_read_or_written() {
    #[derive(serde::Deserialize, serde::Serialize)]
    struct Link {
        next: Option<Box<Link>>,
    }
    #[derive(serde::Deserialize)]
    enum Shell {
        #[allow(dead_code)]
        Of(Box<Shell>),
        Core,
    }
    let wrap = |name: &str, levels: usize, core: &[u8]| {
        (0..levels).fold(core.to_vec(), |inner, _| {
            let entry = [format!("{}:{name},", name.len()).as_bytes(), &inner].concat();
            [format!("{}:", entry.len()).as_bytes(), &entry, b"}"].concat()
        })
    };
    assert!(from_slice::<Link>(&wrap("next", 20, b"0:~")).is_ok());
    assert_eq!(from_slice::<Link>(&wrap("next", 5000, b"0:~")).err(), Some(Error::TooDeep));
    assert!(from_slice::<Shell>(&wrap("Of", 20, b"4:Core,")).is_ok());
    assert_eq!(from_slice::<Shell>(&wrap("Of", 5000, b"4:Core,")).err(), Some(Error::TooDeep));
    assert_eq!(from_slice::<Value>(&wrap("k", 5000, b"0:~")), Err(Error::TooDeep));
    let chain = (0..1000).fold(Link { next: None }, |next, _| Link { next: Some(Box::new(next)) });
    assert_eq!(to_vec(&chain), Err(Error::TooDeep));
}
