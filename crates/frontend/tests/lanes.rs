// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets with two servers: one that has the session, one that pushes. The test is in the place of both, and of the
//! client.

use std::time::{Duration, Instant};

use frontend::client::output::Output;
use frontend::context::{Config, Context};
use frontend::exchange::{Exchanges, Over};
use frontend::http1::connection::Fault;
use frontend::http1::{Http1, SharedBody};
use frontend::uplink::Uplink;
use wire::websocket::mask;
use zhttp::{Ext, Id, Kind, Packet, PeerId, Peers};

const WINDOW: u32 = 1000;
const PROXY: usize = 0;
const HANDLER: usize = 1;

/// What the servers get.
#[derive(Default)]
struct Servers {
    sent: Vec<(PeerId, Kind, Option<u16>)>,
    granted: Vec<(PeerId, u32)>,
    /// Whether the first packet lets a second server in.
    offered: bool,
}

impl Uplink for Servers {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        self.offered = packet.ext.lanes;
        &[]
    }

    fn send(&mut self, to: PeerId, packet: &Packet<'_>) {
        self.sent.push((to, packet.kind, packet.code));
    }

    fn grant(&mut self, to: PeerId, credits: u32, _: Id, _: u32) {
        self.granted.push((to, credits));
    }
}

struct Bench {
    http: Http1,
    output: Output,
    exchanges: Exchanges,
    config: Config,
    servers: Servers,
    peers: [PeerId; 2],
    seqs: [u32; 2],
    now: Instant,
}

impl Bench {
    /// A handshake has been passed on.
    fn new() -> Self {
        Bench::offering("", false)
    }

    /// The same, of a client with these headers.
    fn offering(headers: &str, compression: bool) -> Self {
        let config = Config {
            // A WebSocket gets seven less.
            window: WINDOW + 7,
            compression,
            recover_wait: std::time::Duration::from_secs(10),
            ..Config::default()
        };
        let mut peers = Peers::default();
        let mut bench = Bench {
            http: Http1::new(0, None),
            output: Output::default(),
            exchanges: Exchanges::for_clients(1),
            config,
            servers: Servers::default(),
            peers: [peers.intern(b"proxy").unwrap(), peers.intern(b"handler").unwrap()],
            seqs: [0, 0],
            now: Instant::now(),
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        bench.client(request.as_bytes());
        bench
    }

    /// The backend has accepted, and the handler has said that it pushes.
    fn open() -> Self {
        let mut bench = Bench::new();
        bench.accept();
        bench.push(Packet { kind: Kind::KeepAlive, ..Packet::default() }, 1);
        bench.output();
        bench
    }

    fn event<T>(&mut self, event: impl FnOnce(&mut Http1, &mut Context<'_>) -> T) -> T {
        let Bench { http, output, exchanges, config, servers, now, .. } = self;
        event(http, &mut Context { config, now: *now, output, exchanges, up: servers })
    }

    fn client(&mut self, bytes: &[u8]) {
        assert_eq!(self.event(|http, cx| http.on_input(bytes, cx)), None);
    }

    fn receive(&mut self, server: usize, packet: &Packet<'_>) -> Result<(), Fault> {
        let body = SharedBody::new(packet.body);
        let (from, seq) = (Some(self.peers[server]), Some(self.seqs[server]));
        self.seqs[server] += 1;
        self.event(|http, cx| http.on_packet(packet, &body, from, seq, cx)).map(|_| ())
    }

    fn accept(&mut self) {
        let reason: Option<&[u8]> = Some(b"Switching Protocols");
        self.receive(PROXY, &Packet { code: Some(101), reason, ..Packet::default() }).unwrap();
    }

    fn text(&mut self, body: &[u8], more: bool) {
        self.receive(PROXY, &Packet { content_type: Some(b"text"), body, more, ..Packet::default() }).unwrap();
    }

    fn push(&mut self, packet: Packet<'_>, after: u32) {
        self.receive(HANDLER, &Packet { ext: Ext { lane: 1, after, ..Ext::MULTI }, ..packet }).unwrap();
    }

    fn push_frames(&mut self, body: &[u8], more: bool) {
        self.push(Packet { body, more, ..Packet::default() }, 0);
    }

    /// Writes all that waits for the client.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = self.output.write_to(&mut bytes).unwrap();
        self.event(|http, cx| http.on_written(written, cx));
        bytes
    }
}

/// A close of the client.
fn close_frame(code: u16) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut status = code.to_be_bytes();
    mask(&mut status, key, 0);
    [&[0x88, 0x82][..], &key, &status].concat()
}

#[test]
fn who_gets_compressed_messages_is_not_pushed_into() {
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (headers, compression, offered) in [("", true, true), (deflate, false, true), (deflate, true, false)] {
        assert_eq!(Bench::offering(headers, compression).servers.offered, offered);
    }
}

#[test]
fn pushed_frames_reach_the_client_as_they_are_between_messages_of_the_backend() {
    let mut bench = Bench::open();
    bench.push_frames(b"\x81\x01x", false);
    assert_eq!(bench.output(), b"\x81\x01x");
    bench.text(b"a", true);
    bench.push_frames(b"\x81\x01y", false);
    bench.receive(PROXY, &Packet { kind: Kind::Ping, body: b"p", ..Packet::default() }).unwrap();
    assert_eq!(bench.output(), b"\x01\x01a\x89\x01p");
    bench.text(b"b", false);
    assert_eq!(bench.output(), b"\x80\x01b\x81\x01y");
}

#[test]
fn a_push_that_is_faster_than_the_answer_to_the_handshake_waits_for_it() {
    let mut bench = Bench::new();
    bench.push(Packet { kind: Kind::KeepAlive, ..Packet::default() }, 2);
    bench.push_frames(b"\x81\x01x", false);
    assert_eq!(bench.output(), b"");
    bench.accept();
    assert!(bench.output().ends_with(b"\r\n\r\n"));
    // The backend sent it before it subscribed.
    bench.text(b"snapshot", false);
    assert_eq!(bench.output(), b"\x81\x08snapshot\x81\x01x");
}

#[test]
fn each_server_gets_its_credits_back_when_its_bytes_have_left() {
    let mut bench = Bench::open();
    let [proxy, handler] = bench.peers;
    bench.push_frames(&[0; 600], true);
    bench.text(&[b'a'; 600], false);
    bench.output();
    assert_eq!(bench.servers.granted, [(handler, 600)]);
    // What waits for the end of the pushed message has not left.
    bench.push_frames(&[0; 400], false);
    bench.output();
    assert_eq!(bench.servers.granted, [(handler, 600), (proxy, 600)]);
    bench.push_frames(&[0; 600], false);
    let body = [0; 1];
    let over = Packet { body: &body, ext: Ext { lane: 1, ..Ext::MULTI }, ..Packet::default() };
    // 400 bytes are owed still.
    let fault = bench.receive(HANDLER, &over).unwrap_err();
    assert!(matches!(fault, Fault::Session(_)), "{fault}");
    assert!(bench.exchanges.is_empty());
}

#[test]
fn a_pushed_close_comes_behind_the_messages_before_it_and_is_the_last() {
    let mut bench = Bench::open();
    let proxy = bench.peers[PROXY];
    bench.text(b"a", true);
    bench.push_frames(b"\x81\x01x", false);
    bench.push(Packet { kind: Kind::Close, code: Some(4001), ..Packet::default() }, 0);
    assert_eq!(bench.output(), b"\x01\x01a");
    bench.text(b"b", false);
    bench.text(b"too late", false);
    assert_eq!(bench.output(), b"\x80\x01b\x81\x01x\x88\x02\x0f\xa1");
    bench.client(&close_frame(4001));
    assert_eq!(bench.servers.sent, [(proxy, Kind::Close, Some(4001))]);
    assert!(bench.exchanges.is_empty());
}

#[test]
fn a_pushed_close_does_not_wait_for_a_message_that_the_proxy_will_not_end() {
    let mut bench = Bench::open();
    bench.text(b"a", true);
    bench.push(Packet { kind: Kind::Close, code: Some(4001), ..Packet::default() }, 0);
    assert_eq!(bench.output(), b"\x01\x01a\x88\x02\x0f\xa1");
}

#[test]
fn a_websocket_survives_the_end_of_its_pushes_but_not_within_a_message() {
    for within in [false, true] {
        let mut bench = Bench::open();
        let proxy = bench.peers[PROXY];
        bench.push_frames(b"\x01\x01x", within);
        bench.output();
        bench.push(Packet { kind: Kind::Cancel, ..Packet::default() }, 0);
        if within {
            assert_eq!(bench.output(), b"\x88\x11\x03\xf4service restart");
            assert_eq!(bench.servers.sent[0], (proxy, Kind::Cancel, None));
            assert!(bench.exchanges.is_empty());
        } else {
            bench.text(b"a", false);
            assert_eq!(bench.output(), b"\x81\x01a");
            // Who comes next begins anew.
            bench.seqs[HANDLER] = 0;
            bench.push_frames(b"\x81\x01y", false);
            assert_eq!(bench.output(), b"\x81\x01y");
        }
    }
}

#[test]
fn both_servers_are_kept_alive_and_one_that_is_silent_ends_the_session() {
    let mut bench = Bench::open();
    let (start, slot) = (bench.now, bench.http.exchange().unwrap());
    let mut kept = Vec::new();
    let exchange = bench.exchanges.get_mut(slot).unwrap();
    let due = exchange.on_timer(start + Duration::from_secs(46), |to, _| kept.push(to.to)).unwrap();
    assert!(due <= start + Duration::from_secs(60));
    kept.sort_by_key(|peer| peer.index());
    assert_eq!(kept, bench.peers);
    // Only the proxy speaks.
    bench.now = start + Duration::from_secs(50);
    bench.text(b"a", false);
    let exchange = bench.exchanges.get_mut(slot).unwrap();
    assert_eq!(exchange.on_timer(start + Duration::from_secs(61), |_, _| {}), Err(Over::Unpushed));
}

#[test]
fn what_can_not_be_a_push_ends_the_session() {
    let ping = Packet { kind: Kind::Ping, body: b"p", ..Packet::default() };
    for (lane, kind) in [(1, Kind::Ping), (1, Kind::HandoffStart), (2, Kind::Data)] {
        let mut bench = Bench::open();
        let packet = Packet { kind, ext: Ext { lane, ..Ext::MULTI }, ..ping };
        assert!(bench.receive(HANDLER, &packet).is_err(), "{kind:?} on lane {lane}");
        assert!(bench.exchanges.is_empty());
    }
}
