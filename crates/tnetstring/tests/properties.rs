//! What must hold for any input.

use proptest::collection::vec;
use proptest::prelude::*;
use tnetstring::{Error, Item, Kind, Value, Writer, from_slice, split, to_vec};

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
