//! How often the allocator is asked, a request and a delivery: a check of the data path's cost that does not depend on
//! the machine. Whoever makes a number smaller lowers the limit; whoever must raise one says why.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

use frontend::connection::{Config, Connection, Uplink};
use frontend::shared_body::SharedBody;
use tnetstring::Writer;
use wire::http1::Limits;
use zhttp::{Headers, Id, Ids, Packet, PeerId, Peers, client};

/// One GET request without a body, its response with a body, both on the wire, on a connection that was used before.
/// Measured: 8.
const REQUEST: u64 = 8;
/// One data packet of a stream for 128 connections, read from the wire and written to all of them. Measured: 2, for
/// the chunk that all share.
const PACKET_FOR_128: u64 = 2;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what the current thread asks for.
struct Counting;

// SAFETY: every call goes to `System` unchanged; the counter has no destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Servers that cost nothing: packets are encoded as for a socket.
struct Servers {
    writer: Writer,
    opened: u64,
}

impl Uplink for Servers {
    fn open(&mut self, packet: &Packet<'_>) {
        packet.encode(None, &mut self.writer);
        self.opened += 1;
    }

    fn send(&mut self, _: PeerId, packet: &Packet<'_>) {
        packet.encode(None, &mut self.writer);
    }

    fn grant(&mut self, _: PeerId, _: u32, _: Id, _: u32) {}

    fn orphan(&mut self, _: Id, _: client::Session) {}
}

/// A frontend without sockets.
struct Frontend {
    connections: Vec<Connection>,
    config: Config,
    serials: u64,
    servers: Servers,
    server: PeerId,
    now: Instant,
    /// Where clients' bytes go.
    clients: Vec<u8>,
}

const GET: &[u8] = b"GET /path HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const HEADERS: &[(&[u8], &[u8])] = &[(b"Content-Type", b"text/plain"), (b"Server", b"test")];

impl Frontend {
    fn new(connections: u32) -> Self {
        Frontend {
            connections: (0..connections).map(|index| Connection::new(index, None)).collect(),
            config: Config { head: Limits::default(), window: 1_000_000 },
            serials: 0,
            servers: Servers { writer: Writer::new(16_384), opened: 0 },
            server: Peers::default().intern(b"proxy").unwrap(),
            now: Instant::now(),
            clients: Vec::with_capacity(1_000_000),
        }
    }

    fn request(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.on_input(GET, &self.config, &mut self.serials, self.now, &mut self.servers);
    }

    /// A packet for the connections with these indexes and numbers, as bytes.
    fn packet(&mut self, bytes: &[u8]) {
        let packet = Packet::decode(bytes).unwrap();
        let body = SharedBody::new(packet.body);
        let Frontend { connections, config, serials, servers, server, now, clients } = self;
        for id in packet.ids.iter() {
            let (id, seq) = id.unwrap();
            let (index, serial) = Id::parse_indexed(id).unwrap();
            let connection = &mut connections[index as usize];
            assert!(connection.serves(serial));
            connection.on_packet(&packet, &body, Some(*server), seq, config, serials, *now, servers).unwrap();
        }
        clients.clear();
        for connection in connections {
            if !connection.output.is_empty() {
                let written = connection.output.write_to(clients).unwrap();
                connection.on_written(written, servers);
            }
        }
    }
}

fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    packet.encode(None, &mut Writer::new(1024)).to_vec()
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
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
        assert!(frontend.clients.ends_with(b"\r\n\r\nhello"));
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
            assert_eq!(frontend.clients, b"5\r\nhello\r\n".repeat(128));
            within(PACKET_FOR_128, measured);
        }
    }
}
