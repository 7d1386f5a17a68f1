// SPDX-License-Identifier: AGPL-3.0-or-later
//! The engine with literal packets and bytes, and a clock that is turned by hand.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outbound::connect::pool::PoolLimits;
use outbound::connect::resolve::{Asker, Lookup};
use outbound::connect::target::Endpoint;
use outbound::context::{Actions, Context, Note, Sent};
use outbound::engine::{Engine, Limits, WINDOW};
use outbound::http1::exchange::Timeouts;
use tnetstring::Writer;
use wire::http1;
use zhttp::{Ids, Kind, Packet};

const SECOND: Duration = Duration::from_secs(1);

/// What the engine does, in words; and what comes of the backend.
#[derive(Default)]
struct World {
    done: Vec<String>,
    incoming: Vec<u8>,
    /// The requester takes one packet more, and then none.
    is_full: bool,
}

impl Actions for World {
    fn send(&mut self, to: &[u8], _: bool, packet: &Packet<'_>) -> Sent {
        let (to, body) = (String::from_utf8_lossy(to), String::from_utf8_lossy(packet.body));
        let what = packet.code.map_or(packet.kind.name().to_string(), |code| code.to_string());
        self.done.push(format!("{to}: {what} {body}"));
        if self.is_full { Sent::Full } else { Sent::Taken }
    }

    fn look_up(&mut self, _: &str, _: Asker, _: Instant) -> Lookup {
        Lookup::Known(["192.0.2.1".parse().unwrap()].into())
    }

    fn give_up(&mut self, _: &str, _: Asker) {}

    fn connect(&mut self, number: usize, address: SocketAddr, _: &Endpoint) -> io::Result<()> {
        self.done.push(format!("{number} to {address}"));
        Ok(())
    }

    fn outcome(&mut self, _: usize) -> Option<io::Result<()>> {
        Some(Ok(()))
    }

    fn shake_hands(&mut self, _: usize) -> io::Result<bool> {
        Ok(true)
    }

    fn read(&mut self, _: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.incoming.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.incoming[..count]);
        self.incoming.drain(..count);
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    fn write(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_string();
        self.done.push(format!("{number} < {line}"));
        Ok(bytes.len())
    }

    fn flush(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn is_quiet(&mut self, _: usize) -> bool {
        self.incoming.is_empty()
    }

    fn close(&mut self, number: usize, at_once: bool) {
        self.done.push(format!("{number} {}", if at_once { "broken off" } else { "closed" }));
    }

    fn log(&mut self, _: &Note<'_>) {}
}

struct Desk {
    engine: Engine,
    world: World,
    now: Instant,
}

impl Desk {
    fn new() -> Self {
        let limits = Limits {
            exchanges: 10,
            window: WINDOW,
            connect_attempts: 2,
            head: http1::Limits::default(),
            timeouts: Timeouts { connect: 10 * SECOND, response: 20 * SECOND, idle: 30 * SECOND },
            pool: PoolLimits { connections: 10, per_endpoint: 10, patience: 5 * SECOND },
            recover_wait: Duration::ZERO,
            recover_memory: 0,
        };
        let now = Instant::now();
        Desk { engine: Engine::new("outbound", limits, now), world: World::default(), now }
    }

    fn cx<T>(&mut self, event: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> Vec<String> {
        event(&mut self.engine, &mut Context::new(self.now, &mut self.world));
        std::mem::take(&mut self.world.done)
    }

    fn get(&mut self, id: &str) -> Vec<String> {
        let packet = Packet {
            from: b"proxy",
            ids: Ids::One(id.as_bytes(), Some(0)),
            method: Some(b"GET"),
            uri: Some(b"http://h/x"),
            credits: Some(1000),
            stream: true,
            ..Packet::default()
        };
        let mut writer = Writer::new(1024);
        let message = packet.encode(None, &mut writer).to_vec();
        self.cx(|engine, cx| engine.request(&message, cx))
    }

    fn come(&mut self, bytes: &str) -> Vec<String> {
        self.world.incoming.extend_from_slice(bytes.as_bytes());
        self.cx(|engine, cx| engine.on_ready(0, true, false, false, cx))
    }
}

#[test]
fn a_connection_is_made_used_again_and_closed_when_nobody_needs_it_any_more() {
    let mut desk = Desk::new();
    assert_eq!(desk.get("1"), ["0 to 192.0.2.1:80"]);
    assert_eq!(desk.cx(|engine, cx| engine.on_ready(0, false, true, false, cx)), ["0 < GET /x HTTP/1.1"]);
    assert_eq!(desk.come("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), ["proxy: 200 ok"]);
    assert_eq!((desk.engine.len(), desk.engine.connections()), (0, (1, 1)));
    assert_eq!(desk.get("2"), ["0 < GET /x HTTP/1.1"]);
    assert_eq!(desk.come("HTTP/1.1 204 No Content\r\n\r\n"), ["proxy: 204 "]);
    desk.now += 6 * SECOND;
    assert_eq!(desk.cx(|engine, cx| engine.on_timer(cx)), ["0 closed"]);
    assert_eq!(desk.engine.connections(), (0, 0));
}

#[test]
fn nothing_is_read_for_a_requester_without_room_until_it_has_some() {
    let mut desk = Desk::new();
    desk.get("1");
    desk.cx(|engine, cx| engine.on_ready(0, false, true, false, cx));
    desk.world.is_full = true;
    assert_eq!(desk.come("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), ["proxy: 200 ab"]);
    assert!(desk.come("cd").is_empty());
    assert_eq!(desk.world.incoming, b"cd");
    desk.world.is_full = false;
    let room = desk.cx(|engine, cx| engine.requester_has_room(b"proxy", false, cx));
    assert_eq!(room, ["proxy: data cd"]);
}

#[test]
fn a_requester_that_leaves_has_its_connection_closed_and_one_that_cancels_half_a_request_has_it_broken_off() {
    let mut desk = Desk::new();
    desk.get("1");
    desk.cx(|engine, cx| engine.on_ready(0, false, true, false, cx));
    assert_eq!(desk.cx(|engine, cx| engine.requester_left(b"proxy", true, cx)), [""; 0], "it is another way");
    assert_eq!(desk.cx(|engine, cx| engine.requester_left(b"proxy", false, cx)), ["0 closed"]);
    let more = Packet {
        from: b"proxy",
        ids: Ids::One(b"2", Some(0)),
        method: Some(b"POST"),
        uri: Some(b"http://h/x"),
        credits: Some(1000),
        stream: true,
        more: true,
        ..Packet::default()
    };
    let message = more.encode(None, &mut Writer::new(1024)).to_vec();
    desk.cx(|engine, cx| engine.request(&message, cx));
    desk.cx(|engine, cx| engine.on_ready(0, false, true, false, cx));
    let cancel = Packet { from: b"proxy", ids: Ids::One(b"2", Some(1)), kind: Kind::Cancel, ..Packet::default() };
    let message = cancel.encode(None, &mut Writer::new(1024)).to_vec();
    assert_eq!(desk.cx(|engine, cx| engine.packet(&message, cx)), ["0 broken off"]);
}
