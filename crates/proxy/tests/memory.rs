// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an idle WebSocket takes in the proxy: a check that does not depend on the machine. Whoever makes the number smaller
//! lowers the limit; whoever must raise it says why.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy::context::{Config, Links, Note};
use proxy::engine::Engine;
use rpc::ws_control::{self, Item, Kind as ItemKind};
use tnetstring::Writer;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

/// Bytes of a WebSocket over HTTP whose handler pushes to the frontend.
const PUSHED: i64 = 664;
/// The same with what is kept for a successor of the handler.
const KEPT: i64 = 920;
/// So many at a time.
const CLIENTS: usize = 2000;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Keeps what the test answers.
#[derive(Default)]
struct Sent {
    opened: Vec<Vec<u8>>,
    /// Names of WebSockets and numbers of what is to be answered.
    asked: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Links for Sent {
    fn to_client(&mut self, _: &[u8], _: bool, _: &Packet<'_>) -> bool {
        true
    }

    fn to_handler(&mut self, _: &[u8], _: bool, _: &Packet<'_>) -> bool {
        true
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.opened.push(packet.ids.single().unwrap().0.to_vec());
        true
    }

    fn open_zmq(&mut self, _: &str, _: &Packet<'_>) -> bool {
        false
    }

    fn ask_zmq(&mut self, _: &str, _: &Packet<'_>) -> bool {
        false
    }

    fn to_origin(&mut self, _: &[u8], _: &Packet<'_>) -> bool {
        true
    }

    fn inspect(&mut self, _: &[u8]) -> bool {
        true
    }

    fn accept(&mut self, _: &[u8]) -> bool {
        true
    }

    fn control(&mut self, packet: &[u8]) -> bool {
        let items = ws_control::Packet::decode(packet).unwrap().items;
        let asked = items.iter().filter_map(|item| Some((item.cid.to_vec(), item.req_id.as_ref()?.to_vec())));
        self.asked.extend(asked);
        true
    }

    fn log(&mut self, _: &Note<'_>) {}
}

fn engine(recover_wait: Duration, now: Instant) -> Engine {
    let (routes, _) = routes::Table::parse(b"* h:1,over_http", "routes", &());
    let config = Config {
        max_open_requests: CLIENTS * 2,
        session_queue_bytes: 1_000_000,
        session_queue_time: Duration::from_secs(5),
        max_message_size: 1_000_000,
        events_timeout: Duration::from_secs(60),
        recover_wait,
        ..Config::default()
    };
    Engine::new("proxy_1", config, Arc::new(routes), now, 1_000_000)
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.encode(None, &mut Writer::new(64)).to_vec()
}

/// A WebSocket as a browser asks for it, of a user with a cookie. Its backend subscribes it to a channel.
fn open(number: usize, engine: &mut Engine, links: &mut Sent, now: Instant) {
    let key = format!("dGhlIHNhbXBsZSBu{number:06}==");
    let cookie = format!("session={number:032x}");
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
    let headers = [
        ("Host", "chat.example.com"),
        ("Connection", "Upgrade"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache"),
        ("User-Agent", agent),
        ("Upgrade", "websocket"),
        ("Origin", "https://chat.example.com"),
        ("Sec-WebSocket-Version", "13"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9"),
        ("Cookie", &cookie),
        ("Sec-WebSocket-Key", &key),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    let headers = headers.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let id = format!("{number:x}-{number:x}");
    let address = format!("10.0.{}.{}", number / 256, number % 256);
    let request = Packet {
        from: b"frontend_1_0123abcd",
        ids: Ids::One(id.as_bytes(), Some(0)),
        ext: Ext { lanes: true, adopt: true, ..Ext::MULTI },
        stream: true,
        router_resp: true,
        credits: Some(8192),
        method: Some(b"GET"),
        uri: Some(b"wss://chat.example.com/rooms/lobby?v=3"),
        headers: Headers::Pairs(&headers),
        peer_address: Some(address.as_bytes()),
        ..Packet::default()
    };
    engine.request(&bytes(&request), now, links);
    let id = links.opened.pop().unwrap();
    let from = |seq, packet| bytes(&Packet { from: b"out", ids: Ids::One(&id, Some(seq)), ..packet });
    let taken = Packet { kind: Kind::Credit, credits: Some(8192), ..Packet::default() };
    engine.origin_packet(&from(0, taken), now, links);
    let headers: [(&[u8], &[u8]); 2] = [
        (b"Content-Type", b"application/websocket-events"),
        (b"Sec-WebSocket-Extensions", b"grip; message-prefix=\"\""),
    ];
    let answer = Packet {
        code: Some(200),
        reason: Some(b"OK"),
        headers: Headers::Pairs(&headers),
        body: b"OPEN\r\nTEXT 2D\r\nc:{\"type\":\"subscribe\",\"channel\":\"lobby-room\"}\r\nTEXT 5\r\nhello\r\n",
        ..Packet::default()
    };
    engine.origin_packet(&from(1, answer), now, links);
    let credit = Packet { from: b"frontend_1_0123abcd", kind: Kind::Credit, credits: Some(5), ..Packet::default() };
    let ids = format!("{number:x}-{number:x}");
    engine.client_packet(&bytes(&Packet { ids: Ids::One(ids.as_bytes(), Some(1)), ..credit }), now, links);
    assert!(!links.asked.is_empty());
    for (cid, number) in std::mem::take(&mut links.asked) {
        let item = Item { req_id: Some(number.into()), ..Item::new(ItemKind::Ack, &*cid) };
        let packet = ws_control::Packet { items: vec![item], ..Default::default() };
        engine.control_packet(&packet.encode().unwrap(), now, links);
    }
}

fn measure(recover_wait: Duration, limit: i64) {
    let start = Instant::now();
    let mut engine = engine(recover_wait, start);
    let mut links = Sent::default();
    let kept = counting::bytes_kept(|| {
        for number in 0..CLIENTS {
            open(number, &mut engine, &mut links, start + Duration::from_millis(number as u64));
        }
        // Until nothing waits but what idle WebSockets have to do.
        for second in 0..30 {
            engine.on_timer(start + Duration::from_secs(second), &mut links);
        }
        links = Sent::default();
    });
    assert_eq!(engine.len(), CLIENTS);
    let each = kept / CLIENTS as i64;
    println!("{each} bytes for a WebSocket");
    assert!(each <= limit, "{each} bytes for a WebSocket, {limit} are allowed");
}

#[test]
fn a_websocket_over_http_that_the_handler_pushes_to() {
    measure(Duration::ZERO, PUSHED);
}

#[test]
fn a_websocket_over_http_that_a_successor_of_the_handler_is_to_be_told_of() {
    measure(Duration::from_secs(10), KEPT);
}
