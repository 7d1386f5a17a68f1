// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets that Pushpin 1.36 sent while it passed its own conformance tests, byte for byte (`recorded/`, a packet a line, with
//! backslash, line feed and carriage return escaped). Each is read into our struct and written again; nothing may be missing,
//! added or changed.

use rpc::accept::{Accept, Accepted, Offer};
use rpc::call::{self, Call, Method, Reply};
use rpc::command::{ConnCheck, Refresh};
use rpc::inspect::{Inspect, Inspected};
use rpc::retry::Retry;
use rpc::{stats, ws_control};
use serde::Deserialize;
use tnetstring::Value;

/// The packets of a file, at least `least` of them.
fn recorded(file: &str, least: usize) -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/").to_owned() + file;
    let packets: Vec<Vec<u8>> = std::fs::read(path).unwrap().split(|&byte| byte == b'\n').map(unescaped).collect();
    let packets: Vec<_> = packets.into_iter().filter(|packet| !packet.is_empty()).collect();
    assert!(packets.len() >= least, "{file}: {}", packets.len());
    packets
}

fn unescaped(line: &[u8]) -> Vec<u8> {
    let mut bytes = line.iter();
    std::iter::from_fn(|| {
        Some(match bytes.next()? {
            b'\\' => match bytes.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                byte => *byte,
            },
            byte => *byte,
        })
    })
    .collect()
}

/// What is in a map, whatever the order of its keys: the originals keep them in hash tables.
fn content(bytes: &[u8]) -> Value {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Map(mut entries) => {
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Map(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
            }
            Value::List(values) => Value::List(values.into_iter().map(sorted).collect()),
            value => value,
        }
    }
    let (_, rest) = tnetstring::split(bytes).unwrap();
    assert_eq!(rest, b"", "nothing may follow a packet");
    sorted(tnetstring::from_slice(bytes).unwrap())
}

#[track_caller]
fn same(packet: &[u8], again: &[u8]) {
    assert_eq!(content(again), content(packet), "{}", packet.escape_ascii());
}

/// Reads the arguments of each call in a file and writes the call again.
macro_rules! calls {
    ($file:literal, $least:literal, $args:ident) => {
        for packet in recorded($file, $least) {
            let call = Call::decode(&packet).unwrap();
            let args: $args = call.args().unwrap();
            assert_eq!(call.method, <$args as Method>::NAME.as_bytes());
            same(&packet, &call::encode(call.from, call.id, &args).unwrap());
        }
    };
}

#[test]
fn calls_to_the_handler_are_read_and_written() {
    calls!("call_inspect", 3, Inspect);
    calls!("call_accept", 3, Accept);
    for packet in recorded("call_accept", 3) {
        let call = Call::decode(&packet).unwrap();
        let (accept, offer): (Accept, Offer) = (call.args().unwrap(), call.args().unwrap());
        assert_eq!((offer.requests, offer.response), (accept.requests, accept.response));
    }
}

#[test]
fn commands_are_read_and_written() {
    calls!("call_conncheck", 3, ConnCheck);
    calls!("call_refresh", 3, Refresh);
}

#[test]
fn answers_are_read_and_written() {
    fn again<'a, T: Deserialize<'a> + serde::Serialize>(packet: &'a [u8], reply: &Reply<'a>) {
        let value: T = tnetstring::from_item(reply.result.unwrap()).unwrap();
        same(packet, &call::success(Some(reply.id), &value).unwrap());
    }
    let (mut inspected, mut accepted, mut others) = (0, 0, 0);
    for packet in recorded("reply", 5) {
        let reply = Reply::decode(&packet).unwrap();
        let text = packet.escape_ascii().to_string();
        match &reply.result {
            Err(failure) => {
                let condition = std::str::from_utf8(failure.condition).unwrap();
                same(&packet, &call::failure(Some(reply.id), condition, None));
                others += 1;
            }
            Ok(_) if text.contains("no-proxy") => {
                again::<Inspected>(&packet, &reply);
                inspected += 1;
            }
            Ok(_) if text.contains("accepted") => {
                again::<Accepted>(&packet, &reply);
                accepted += 1;
            }
            Ok(_) => {
                again::<Value>(&packet, &reply);
                others += 1;
            }
        }
    }
    assert!(inspected >= 2 && accepted >= 1 && others >= 2);
}

#[test]
fn requests_that_are_given_back_are_read_and_written() {
    for packet in recorded("retry", 2) {
        same(&packet, &Retry::decode(&packet).unwrap().encode().unwrap());
    }
}

#[test]
fn items_for_websockets_are_read_and_written() {
    for packet in recorded("ws_control", 8) {
        same(&packet, &ws_control::Packet::decode(&packet).unwrap().encode().unwrap());
    }
}

#[test]
fn statistics_are_read_and_written() {
    for file in ["stats_activity", "stats_conn", "stats_counts", "stats_sub"] {
        for packet in recorded(file, 2) {
            let again = stats::Packet::decode(&packet).unwrap().encode().unwrap();
            let map = |bytes: &[u8]| bytes[bytes.iter().position(|&byte| byte == b'T').unwrap() + 1..].to_vec();
            let name = |bytes: &[u8]| bytes[..bytes.len() - map(bytes).len()].to_vec();
            assert_eq!(name(&again), name(&packet));
            same(&map(&packet), &map(&again));
        }
    }
}
