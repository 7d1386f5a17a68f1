// SPDX-License-Identifier: AGPL-3.0-or-later
//! What idle clients take in the handler: a check that does not depend on the machine. Whoever makes a number smaller lowers
//! the limit; whoever must raise one says why.

mod crowd;

use crowd::Crowd;
use rpc::ws_control::{Client, Item, Kind, Lane, Packet};
use std::time::Duration;

/// Bytes of a WebSocket that is pushed to.
const PUSHED: i64 = 496;
/// Of one that is reached by the proxy.
const BY_PROXY: i64 = 264;
/// The same with an address and a channel that no other client has.
const PUSHED_ALONE: i64 = 768;
/// Of a stream.
const STREAM: i64 = 312;
/// The same with a channel that no other client has.
const STREAM_ALONE: i64 = 456;
/// So many at a time.
const CLIENTS: usize = 2000;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn within(limit: i64, work: impl FnOnce(&mut Crowd)) {
    let mut crowd = Crowd::new();
    let kept = counting::bytes_kept(|| {
        work(&mut crowd);
        for _ in 0..30 {
            crowd.now += Duration::from_secs(1);
            crowd.on_timer();
        }
    });
    let each = kept / CLIENTS as i64;
    println!("{each} bytes for each");
    assert!(each <= limit, "{each} bytes for each, {limit} are allowed");
}

/// WebSockets of one route, as the proxy tells of them, and of one channel or a channel for each.
fn websockets(pushed: bool, alone: bool, crowd: &mut Crowd) {
    for number in 0..CLIENTS {
        let room = if alone { format!("lobby-{number:05}") } else { "lobby-room".to_string() };
        let uri = format!("wss://chat.example.com/rooms/{room}?v=3");
        let message = format!("{{\"type\":\"subscribe\",\"channel\":\"{room}\"}}");
        let cid = format!("{number:08x}-0000-4000-8000-000000000000");
        let id = format!("{number:x}-{number:x}").into_bytes();
        let client = Client { sender: b"frontend_1_0123abcd".into(), id: id.into(), router_resp: true };
        let here = Item {
            uri: Some(uri.as_bytes().into()),
            route: Some(b"0".into()),
            ttl: Some(60),
            client: pushed.then_some(client),
            lane: pushed.then_some(Lane { credits: 8192 }),
            ..Item::new(Kind::Here, cid.as_bytes())
        };
        let grip = Item {
            message: Some(message.as_bytes().into()),
            after: Some(1),
            req_id: Some(b"0".into()),
            ..Item::new(Kind::Grip, cid.as_bytes())
        };
        crowd.control(&Packet { items: vec![here, grip], ..Packet::default() });
    }
    assert_eq!(crowd.engine.websockets(), CLIENTS);
}

#[test]
fn a_websocket_that_is_pushed_to() {
    within(PUSHED, |crowd| websockets(true, false, crowd));
}

#[test]
fn a_websocket_that_has_its_address_and_channel_alone() {
    within(PUSHED_ALONE, |crowd| websockets(true, true, crowd));
}

#[test]
fn a_websocket_that_is_reached_by_the_proxy() {
    within(BY_PROXY, |crowd| websockets(false, false, crowd));
}

#[test]
fn a_stream() {
    within(STREAM, |crowd| {
        for _ in 0..CLIENTS {
            crowd.hold("stream", "news");
        }
    });
}

#[test]
fn a_stream_that_has_its_channel_alone() {
    within(STREAM_ALONE, |crowd| {
        for number in 0..CLIENTS {
            crowd.hold("stream", &format!("news-{number:05}"));
        }
    });
}
