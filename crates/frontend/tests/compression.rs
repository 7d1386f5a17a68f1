// SPDX-License-Identifier: AGPL-3.0-or-later
//! Compressed messages on WebSockets, with the test in the place of the client and of the server behind it.

use std::time::Instant;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use frontend::client::output::Output;
use frontend::client::pacing::Stage;
use frontend::context::{Config, Context};
use frontend::exchange::Exchanges;
use frontend::http1::{Http1, SharedBody};
use frontend::uplink::Uplink;
use proptest::prelude::*;
use wire::websocket::{Event, Header, Opcode, Reader, Role, mask};
use zhttp::{Id, Kind, Packet, PeerId, Peers};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const ANSWER: &str =
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";
const WINDOW: u32 = 100_000;

/// What the server has got.
#[derive(Default)]
struct Server {
    kinds: Vec<Kind>,
    message: Vec<u8>,
    largest: usize,
    ended: usize,
    granted: u32,
}

impl Uplink for Server {
    fn open(&mut self, _: &Packet<'_>) -> &[u8] {
        &[]
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        self.kinds.push(packet.kind);
        if packet.kind == Kind::Data {
            self.message.extend_from_slice(packet.body);
            self.largest = self.largest.max(packet.body.len());
            self.ended += usize::from(!packet.more);
        }
    }

    fn grant(&mut self, _: PeerId, credits: u32, _: Id, _: u32) {
        self.granted += credits;
    }
}

struct Bench {
    http: Http1,
    output: Output,
    exchanges: Exchanges,
    config: Config,
    server: Server,
    peer: PeerId,
    seq: u32,
}

/// Bytes without any order, so that compressed they are more than they were.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(byte).take(len).collect()
}

fn config(compression: bool) -> Config {
    // A WebSocket gets seven less.
    Config { window: WINDOW + 7, compression, recover_wait: std::time::Duration::from_secs(10), ..Config::default() }
}

impl Bench {
    fn new(compression: bool, offer: &str) -> Self {
        Self::with(config(compression), offer)
    }

    fn with(config: Config, offer: &str) -> Self {
        let mut bench = Bench {
            http: Http1::new(0, None),
            output: Output::default(),
            exchanges: Exchanges::for_clients(1),
            config,
            server: Server::default(),
            peer: Peers::default().intern(b"proxy").unwrap(),
            seq: 0,
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        bench.client(request.as_bytes());
        bench
    }

    /// A WebSocket with compression, and so many credits.
    fn open(credits: u32) -> Self {
        let mut bench = Bench::new(true, OFFER);
        bench.accept();
        bench.output();
        bench.credits(credits);
        bench
    }

    fn event<T>(&mut self, event: impl FnOnce(&mut Http1, &mut Context<'_>) -> T) -> T {
        let Bench { http, output, exchanges, config, server, .. } = self;
        event(http, &mut Context { config, now: Instant::now(), output, exchanges, up: server })
    }

    /// Gives the status with which the client is refused.
    fn client(&mut self, bytes: &[u8]) -> Option<u16> {
        self.event(|http, cx| http.on_input(bytes, cx)).map(|refusal| refusal.code)
    }

    fn send(&mut self, packet: Packet<'_>) {
        let body = SharedBody::new(packet.body);
        let (from, seq) = (Some(self.peer), Some(self.seq));
        self.seq += 1;
        self.event(|http, cx| http.on_packet(&packet, &body, from, seq, cx)).unwrap();
    }

    /// Whether the client has a deadline for what it sends next.
    fn is_awaited(&self) -> bool {
        matches!(self.http.stage(0, &self.exchanges, 0), Stage::Body { awaited: true, .. })
    }

    fn accept(&mut self) {
        self.send(Packet { code: Some(101), reason: Some(b"Switching Protocols"), ..Packet::default() });
    }

    fn credits(&mut self, credits: u32) {
        self.send(Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
    }

    fn text(&mut self, body: &[u8], more: bool) {
        self.send(Packet { content_type: Some(b"text"), body, more, ..Packet::default() });
    }

    /// Writes all that waits for the client.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = self.output.write_to(&mut bytes).unwrap();
        self.event(|http, cx| {
            http.on_written(written, cx);
        });
        bytes
    }
}

/// As clients compress a message.
fn compressed(content: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 1000);
    Compress::new(Compression::best(), false).compress_vec(content, &mut out, flush).unwrap();
    if matches!(flush, FlushCompress::Finish) {
        out.push(0);
    } else {
        out.truncate(out.len() - 4);
    }
    out
}

/// A masked frame.
fn frame(opcode: Opcode, fin: bool, compressed: bool, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut out = Header { opcode, fin, compressed, key: Some(key) }.encode(payload.len()).to_vec();
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key, 0);
    out
}

fn message(opcode: Opcode, content: &[u8]) -> Vec<u8> {
    frame(opcode, true, true, &compressed(content, FlushCompress::Sync))
}

/// What a client understands of frames that are one message.
fn read(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut reader = Reader::new(Role::Client, u64::MAX, true);
    let (mut at, mut content, mut ended) = (0, Vec::new(), false);
    while at < bytes.len() {
        let (used, event) = reader.read(&mut bytes[at..]).unwrap();
        at += used;
        if let Some(Event::Data { compressed, payload, end, .. }) = event {
            assert!(compressed && !ended);
            content.extend_from_slice(payload);
            ended = end;
        }
    }
    assert!(ended);
    content.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut out = Vec::with_capacity(1_000_000);
    let mut state = Decompress::new(false);
    state.decompress_vec(&content, &mut out, FlushDecompress::Sync).unwrap();
    assert_eq!(state.total_in(), content.len() as u64, "all of it is one stream");
    out
}

#[test]
fn compression_is_agreed_on_if_it_is_allowed_and_offered() {
    for (allowed, offer, agreed) in [(true, OFFER, true), (false, OFFER, false), (true, "x-other", false)] {
        let mut bench = Bench::new(allowed, offer);
        bench.accept();
        let head = String::from_utf8(bench.output()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(head.contains(ANSWER), agreed, "{head}");
        assert_eq!(head.contains("Sec-WebSocket-Extensions"), agreed, "{head}");
    }
}

#[test]
fn a_list_of_extensions_that_can_not_be_read_is_refused() {
    assert!(Bench::new(true, ";;").output().starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn messages_for_the_client_are_compressed_each_alone() {
    let mut bench = Bench::open(0);
    let content = b"hello hello hello hello hello hello hello".repeat(10);
    bench.text(&content, false);
    let first = bench.output();
    assert!(first.len() < content.len() / 4);
    bench.text(&content, false);
    assert_eq!(bench.output(), first);
    assert_eq!(read(first), content);
    bench.text(b"", false);
    assert_eq!(read(bench.output()), b"");
}

#[test]
fn a_message_in_pieces_is_one_stream_whether_or_not_its_end_is_empty() {
    for last in [&b"the end"[..], b""] {
        let mut bench = Bench::open(0);
        bench.text(b"one one one ", true);
        bench.text(b"two two two ", true);
        bench.send(Packet { kind: Kind::Ping, body: b"p", ..Packet::default() });
        bench.text(last, false);
        assert_eq!(read(bench.output()), [b"one one one two two two ", last].concat());
    }
}

#[test]
fn control_frames_are_not_compressed() {
    let mut bench = Bench::open(0);
    bench.send(Packet { kind: Kind::Ping, body: b"ping", ..Packet::default() });
    assert_eq!(bench.output(), b"\x89\x04ping");
}

#[test]
fn credits_go_back_for_the_content_and_not_for_what_is_left_of_it() {
    let mut bench = Bench::open(0);
    bench.text(&[b'x'; WINDOW as usize], false);
    bench.output();
    assert_eq!(bench.server.granted, WINDOW);
}

#[test]
fn a_client_may_send_messages_with_and_without_compression() {
    let mut bench = Bench::open(1000);
    bench.client(&message(Opcode::Text, b"packed "));
    bench.client(&frame(Opcode::Text, true, false, b"plain "));
    bench.client(&frame(Opcode::Text, true, true, &compressed(b"ended", FlushCompress::Finish)));
    bench.client(&message(Opcode::Binary, b""));
    assert_eq!((&bench.server.message[..], bench.server.ended), (&b"packed plain ended"[..], 4));
}

#[test]
fn a_message_of_exactly_the_credits_ends() {
    let mut bench = Bench::open(1000);
    bench.client(&message(Opcode::Binary, &[7; 1000]));
    assert_eq!((bench.server.message.len(), bench.server.ended), (1000, 1));
}

#[test]
fn few_bytes_that_become_many_are_sent_on_within_the_credits() {
    let mut bench = Bench::open(1000);
    let size = 5_000_000;
    let bomb = message(Opcode::Binary, &vec![0; size]);
    assert!(bomb.len() < 10_000);
    let mut granted = 1000;
    for chunk in bomb.chunks(500) {
        assert_eq!(bench.client(chunk), None);
    }
    while bench.server.ended == 0 {
        assert_eq!(bench.server.message.len(), granted);
        bench.credits(50_000);
        granted += 50_000;
        assert!(granted < size + 60_000);
    }
    assert_eq!(bench.server.message.len(), size);
    assert!(bench.server.largest <= 16_384);
    bench.client(&frame(Opcode::Binary, true, false, b"next"));
    assert!(bench.server.message.ends_with(b"next"));
}

#[test]
fn only_a_client_within_a_compressed_message_is_waited_for() {
    let payload = compressed(&[7; 5000], FlushCompress::Sync);
    let (first, rest) = payload.split_at(payload.len() - 3);
    let begin = frame(Opcode::Binary, false, true, first);
    let end = frame(Opcode::Continuation, true, false, rest);
    let mut bench = Bench::open(1000);
    assert!(!bench.is_awaited(), "between messages");
    bench.client(&frame(Opcode::Binary, false, false, b"plain"));
    assert!(!bench.is_awaited(), "nothing is kept for a message that is not compressed");
    bench.client(&frame(Opcode::Continuation, true, false, b""));
    bench.client(&begin);
    assert!(!bench.is_awaited(), "the server takes no more");
    bench.credits(10_000);
    assert!(bench.is_awaited());
    bench.client(&end);
    assert!(!bench.is_awaited());
    assert_eq!((bench.server.message.len(), bench.server.ended), (5005, 2));
}

#[test]
fn compressed_data_without_content_ends_the_connection() {
    let blocks = [0, 0, 0, 0xff, 0xff].repeat(200);
    let within = [frame(Opcode::Binary, false, true, &blocks), frame(Opcode::Continuation, false, false, &blocks)];
    let whole = [frame(Opcode::Binary, true, true, &blocks), frame(Opcode::Binary, true, true, &blocks)];
    for [first, next] in [within, whole] {
        let mut bench = Bench::open(1000);
        assert_eq!(bench.client(&first), None);
        let refused = (1..200).find_map(|number| bench.client(&next).map(|code| (number, code)));
        assert!(matches!(refused, Some((60..70, 1008))), "{refused:?}");
        assert_eq!(bench.server.kinds.last(), Some(&Kind::Cancel));
        assert_eq!(bench.output(), b"\x88\x02\x03\xf0");
    }
}

#[test]
fn a_client_may_send_empty_messages_for_ever_and_what_can_not_be_compressed() {
    let mut bench = Bench::open(300_000);
    let empty = message(Opcode::Binary, b"");
    for _ in 0..70_000 {
        assert_eq!(bench.client(&empty), None);
    }
    let noise = message(Opcode::Binary, &noise(1000));
    for _ in 0..200 {
        assert_eq!(bench.client(&noise), None);
    }
    assert_eq!((bench.server.ended, bench.server.message.len()), (70_200, 200_000));
}

#[test]
fn what_is_not_compressed_content_or_not_text_ends_the_connection() {
    let corrupt = frame(Opcode::Binary, true, true, &[0xff; 20]);
    let no_text = message(Opcode::Text, b"abc\xff");
    let half = message(Opcode::Text, "é".as_bytes().split_at(1).0);
    for bytes in [corrupt, no_text, half] {
        let mut bench = Bench::open(1000);
        assert_eq!(bench.client(&bytes), Some(1007));
        assert_eq!(bench.server.kinds.last(), Some(&Kind::Cancel));
        assert_eq!(bench.output(), b"\x88\x02\x03\xef");
    }
}

#[test]
fn a_message_may_have_so_many_bytes_after_it_is_inflated_and_no_more() {
    let content = vec![7; 100_000];
    let payload = compressed(&content, FlushCompress::Sync);
    let (first, rest) = payload.split_at(payload.len() / 2);
    let whole = frame(Opcode::Binary, true, true, &payload);
    let fragments =
        [frame(Opcode::Binary, false, true, first), frame(Opcode::Continuation, true, false, rest)].concat();
    for (bytes, max) in [(&whole, 100_000), (&whole, 99_999), (&fragments, 100_000), (&fragments, 99_999)] {
        let mut bench = Bench::with(Config { max_message: max, ..config(true) }, OFFER);
        bench.accept();
        bench.output();
        bench.credits(200_000);
        let refused = bench.client(bytes);
        if max == 100_000 {
            assert_eq!((refused, bench.server.message.len(), bench.server.ended), (None, 100_000, 1));
            // Each message counts alone.
            assert_eq!((bench.client(bytes), bench.server.ended), (None, 2));
        } else {
            assert_eq!(refused, Some(1009));
            assert_eq!((bench.server.kinds.last(), bench.server.ended), (Some(&Kind::Cancel), 0));
            assert!(bench.server.message.len() < 100_000);
            assert_eq!(bench.output(), b"\x88\x02\x03\xf1");
        }
    }
}

#[test]
fn a_message_that_can_not_be_made_smaller_may_have_as_many_bytes_as_others() {
    let content = noise(1000);
    let bytes = message(Opcode::Binary, &content);
    assert!(bytes.len() > content.len() + 8);
    for (max, refused) in [(1000, None), (999, Some(1009))] {
        let mut bench = Bench::with(Config { max_message: max, ..config(true) }, OFFER);
        bench.accept();
        bench.credits(2000);
        assert_eq!(bench.client(&bytes), refused);
    }
}

#[test]
fn a_message_of_empty_blocks_that_says_nothing_is_too_large_in_the_end() {
    let mut bench = Bench::with(Config { max_message: 1000, ..config(true) }, OFFER);
    bench.accept();
    bench.credits(2000);
    let empty = [0, 0, 0, 0xff, 0xff].repeat(100);
    assert_eq!(bench.client(&frame(Opcode::Binary, false, true, &empty)), None);
    assert_eq!(bench.client(&frame(Opcode::Continuation, false, false, &empty)), None);
    assert_eq!(bench.client(&frame(Opcode::Continuation, false, false, &empty)), Some(1009));
}

#[test]
fn a_compressed_frame_without_agreement_ends_the_connection() {
    let mut bench = Bench::new(false, OFFER);
    bench.accept();
    bench.credits(100);
    assert_eq!(bench.client(&message(Opcode::Text, b"x")), Some(1002));
}

proptest! {
    #[test]
    fn however_it_is_cut_and_granted_the_same_arrives(
        content in prop::collection::vec(0..4u8, 0..5000),
        frames in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        step in 1..2000u32,
    ) {
        let payload = compressed(&content, FlushCompress::Sync);
        let mut ends: Vec<_> = frames.iter().map(|at| at.index(payload.len())).collect();
        ends.push(payload.len());
        ends.sort_unstable();
        let (mut bytes, mut from) = (Vec::new(), 0);
        for (i, &to) in ends.iter().enumerate() {
            let opcode = if i == 0 { Opcode::Binary } else { Opcode::Continuation };
            bytes.extend(frame(opcode, i + 1 == ends.len(), i == 0, &payload[from..to]));
            from = to;
        }
        let mut cuts: Vec<_> = cuts.iter().map(|at| at.index(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut bench = Bench::open(step);
        let mut from = 0;
        for to in cuts {
            prop_assert_eq!(bench.client(&bytes[from..to]), None);
            from = to;
        }
        let mut granted = step as usize;
        while bench.server.ended == 0 {
            prop_assert!(granted < content.len() + payload.len() + 2 * step as usize + 10);
            prop_assert!(bench.server.message.len() <= granted);
            bench.credits(step);
            granted += step as usize;
        }
        prop_assert_eq!(&bench.server.message, &content);
        prop_assert_eq!(bench.server.ended, 1);
    }

    #[test]
    fn arbitrary_compressed_content_does_no_harm(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bench = Bench::open(1_000_000);
        bench.client(&frame(Opcode::Binary, true, true, &payload));
        prop_assert!(bench.server.largest <= 16_384);
    }
}
