// SPDX-License-Identifier: AGPL-3.0-or-later
//! How often the allocator is asked, a request and a delivery: a check of the data path's cost that does not depend on
//! the machine. Whoever makes a number smaller lowers the limit; whoever must raise one says why.

use std::time::Instant;

use counting::allocations;
use frontend::client::output::Output;
use frontend::context::{Config, Context};
use frontend::exchange::Exchanges;
use frontend::http1::{Http1, SharedBody};
use frontend::uplink::Uplink;
use tnetstring::Writer;
use zhttp::{Headers, Id, Ids, Packet, PeerId, Peers};

/// One GET request without a body, its response with a body, both on the wire, on a connection that was used before.
/// Measured: 8.
const REQUEST: u64 = 8;
/// One data packet of a stream for 128 connections, read from the wire and written to all of them. Measured: 2, for
/// the chunk that all share.
const PACKET_FOR_128: u64 = 2;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Servers that cost nothing: packets are encoded as for a socket.
struct Servers {
    writer: Writer,
    opened: u64,
}

impl Uplink for Servers {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        self.opened += 1;
        packet.encode(None, &mut self.writer)
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        packet.encode(None, &mut self.writer);
    }

    fn grant(&mut self, _: PeerId, _: u32, _: Id, _: u32) {}
}

/// A frontend without sockets.
struct Frontend {
    clients: Vec<(Http1, Output)>,
    exchanges: Exchanges,
    config: Config,
    servers: Servers,
    server: PeerId,
    now: Instant,
    /// Where clients' bytes go.
    written: Vec<u8>,
}

const GET: &[u8] = b"GET /path HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const HEADERS: &[(&[u8], &[u8])] = &[(b"Content-Type", b"text/plain"), (b"Server", b"test")];

impl Frontend {
    fn new(clients: u32) -> Self {
        Frontend {
            clients: (0..clients).map(|slot| (Http1::new(slot, None), Output::default())).collect(),
            exchanges: Exchanges::for_clients(clients as usize),
            config: Config { window: 1_000_000, recover_wait: std::time::Duration::from_secs(10), ..Config::default() },
            servers: Servers { writer: Writer::new(16_384), opened: 0 },
            server: Peers::default().intern(b"proxy").unwrap(),
            now: Instant::now(),
            written: Vec::with_capacity(1_000_000),
        }
    }

    fn event(&mut self, client: usize, event: impl FnOnce(&mut Http1, &mut Context<'_>)) {
        let Frontend { clients, exchanges, config, servers, now, .. } = self;
        let (http, output) = &mut clients[client];
        event(http, &mut Context { config, now: *now, output, exchanges, up: servers });
    }

    fn request(&mut self, client: usize) {
        self.event(client, |http, cx| assert!(http.on_input(GET, cx).is_none()));
    }

    /// A packet for exchanges, as bytes.
    fn packet(&mut self, bytes: &[u8]) {
        let packet = Packet::decode(bytes).unwrap();
        let body = SharedBody::new(packet.body);
        let server = Some(self.server);
        for id in packet.ids.iter() {
            let (id, seq) = id.unwrap();
            let client = self.exchanges.find(id).unwrap().client().unwrap();
            self.event(client as usize, |http, cx| {
                http.on_packet(&packet, &body, server, seq, cx).unwrap();
            });
        }
        self.written.clear();
        for client in 0..self.clients.len() {
            let output = &mut self.clients[client].1;
            if !output.is_empty() {
                let written = output.write_to(&mut self.written).unwrap();
                self.event(client, |http, cx| {
                    http.on_written(written, cx);
                });
            }
        }
    }
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    packet.encode(None, &mut Writer::new(1024)).to_vec()
}

fn within(limit: u64, measured: u64) {
    assert!(measured <= limit, "{measured} allocations, {limit} are allowed");
}

#[test]
fn a_request_and_its_response() {
    let mut frontend = Frontend::new(1);
    for serial in 0..3 {
        let id = Id::indexed(0, serial);
        let packet = Packet {
            ids: Ids::One(id.as_bytes(), Some(0)),
            code: Some(200),
            reason: Some(b"OK"),
            headers: Headers::Pairs(HEADERS),
            body: b"hello",
            ..Packet::default()
        };
        let bytes = encoded(&packet);
        let measured = allocations(|| {
            frontend.request(0);
            frontend.packet(&bytes);
        });
        assert!(frontend.written.ends_with(b"\r\n\r\nhello"));
        if serial > 0 {
            within(REQUEST, measured);
        }
    }
    assert_eq!(frontend.servers.opened, 3);
}

#[test]
fn a_packet_for_128_streams() {
    let mut frontend = Frontend::new(128);
    (0..128).for_each(|index| frontend.request(index));
    for seq in 0..4 {
        let ids: Vec<Id> = (0..128).map(|i| Id::indexed(i, u64::from(i))).collect();
        let ids: Vec<(&[u8], u32)> = ids.iter().map(|id| (id.as_bytes(), seq)).collect();
        let mut packet = Packet { ids: Ids::Many(&ids), body: b"hello", more: true, ..Packet::default() };
        if seq == 0 {
            packet = Packet { code: Some(200), reason: Some(b"OK"), headers: Headers::Pairs(HEADERS), ..packet };
        }
        let bytes = encoded(&packet);
        let measured = allocations(|| frontend.packet(&bytes));
        if seq > 0 {
            assert_eq!(frontend.written, b"5\r\nhello\r\n".repeat(128));
            within(PACKET_FOR_128, measured);
        }
    }
}

/// What a held connection takes in the two tables, 56 bytes of it for successors of its servers; it has nothing on the heap.
#[test]
fn the_tables_entries_of_a_held_connection() {
    let client = size_of::<frontend::client::Client>();
    let exchange = size_of::<frontend::exchange::Exchange>();
    // In a build with debug assertions mio's sockets know their selector, and then the choice between two kinds of them takes a
    // word of its own.
    let limit = if cfg!(debug_assertions) { 456 } else { 448 };
    assert!(client + exchange <= limit, "{client} + {exchange} bytes");
}
