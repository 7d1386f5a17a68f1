// SPDX-License-Identifier: AGPL-3.0-or-later
//! Limits of WebSockets, against the backend that is built in, which sends messages back.

use flate2::{Compress, Compression, FlushCompress};
use pushpin_tests::client::Client;
use pushpin_tests::suite::Suite;
use pushpin_tests::until;
use wire::websocket::{Header, Opcode, mask};

const MAX: usize = 1000;

fn limited() -> Suite {
    let settings = format!("[runner]\nclient_max_message_size={MAX}\nallow_compression=true");
    let mut suite = Suite::prepare("* test", &settings);
    suite.launch();
    suite
}

fn open(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    client.send(request.as_bytes()).unwrap();
    let head = client.head().unwrap();
    assert_eq!(head.status, 101);
    assert!(head.header("Sec-WebSocket-Extensions").is_some());
    client
}

fn frame(opcode: Opcode, fin: bool, compressed: bool, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut frame = Header { opcode, fin, compressed, key: Some(key) }.encode(payload.len()).to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key, 0);
    frame
}

/// Some messages of this size: in one frame, in fragments, compressed, and compressed in fragments.
fn messages(size: usize) -> [Vec<u8>; 4] {
    let content = vec![b'x'; size];
    let mut compressed = Vec::with_capacity(size + 100);
    Compress::new(Compression::best(), false).compress_vec(&content, &mut compressed, FlushCompress::Sync).unwrap();
    compressed.truncate(compressed.len() - 4);
    let fragments = |content: &[u8], compressed| {
        let (first, rest) = content.split_at(content.len() / 2);
        [frame(Opcode::Text, false, compressed, first), frame(Opcode::Continuation, true, false, rest)].concat()
    };
    [
        frame(Opcode::Text, true, false, &content),
        fragments(&content, false),
        frame(Opcode::Text, true, true, &compressed),
        fragments(&compressed, true),
    ]
}

#[test]
fn a_message_that_is_too_large_closes_its_connection_with_1009_and_is_named_in_the_log() {
    let suite = limited();
    for (fits, exceeds) in messages(MAX).iter().zip(&messages(MAX + 1)) {
        let mut client = open(&suite);
        client.send(fits).unwrap();
        // It comes back, in as many frames as it likes.
        let first = client.some(1).unwrap();
        assert_eq!(first[0] & 0x4f, 0x41, "compressed text");
        client.send(exceeds).unwrap();
        let rest = client.rest().unwrap();
        assert!(rest.ends_with(b"\x88\x02\x03\xf1"), "{rest:02x?}");
    }
    until("it is logged", || suite.logs().contains("a message is larger than 1000 bytes (client_max_message_size)"));
}

#[test]
fn all_websockets_of_a_proxy_that_is_killed_are_closed_with_1012() {
    let suite = limited();
    let mut clients: Vec<Client> = std::iter::repeat_with(|| open(&suite)).take(50).collect();
    suite.kill("proxy");
    for client in &mut clients {
        let rest = client.rest().unwrap();
        assert!(rest.starts_with(b"\x88\x11\x03\xf4service restart"), "{rest:02x?}");
    }
    until("it is logged", || suite.logs().contains("50 sessions with it are ended"));
}
