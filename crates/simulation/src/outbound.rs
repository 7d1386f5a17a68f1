// SPDX-License-Identifier: AGPL-3.0-or-later
//! The outbound process: its engine, driven as its worker does it.

use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outbound::connect::pool::PoolLimits;
use outbound::connect::resolve::{Asker, Lookup};
use outbound::connect::target::Endpoint;
use outbound::context::{Actions, Context, Note, Sent};
use outbound::engine::{Counters, Engine, Limits};
use outbound::http1::exchange::Timeouts;
use tnetstring::Writer;
use wire::http1;
use zhttp::Packet;

use crate::frontend::RECOVER_WAIT;
use crate::net::{Lane, Net, Part};
use crate::wires::{Wires, addresses};

/// Exchanges at a time.
const EXCHANGES: usize = 200;
/// Connections that wait for their next request.
const IDLE: usize = 6;

/// See the module.
pub struct Outbound {
    engine: Engine,
}

struct Outputs<'a> {
    net: &'a mut Net,
    wires: &'a mut Wires,
    writer: Writer,
}

impl Actions for Outputs<'_> {
    fn send(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> Sent {
        let Some(part) = self.net.part(to) else { return Sent::Lost };
        let lane = if by_router { Lane::Stream } else { Lane::Published };
        match self.net.send(Part::Outbound, part, lane, packet.encode(None, &mut self.writer)) {
            Some(true) => Sent::Taken,
            Some(false) => Sent::Full,
            None => Sent::Lost,
        }
    }

    fn look_up(&mut self, host: &str, asker: Asker, _: Instant) -> Lookup {
        assert_eq!(host, "backend", "the routes name one backend");
        if self.wires.look_up(asker) { Lookup::Known(addresses().into()) } else { Lookup::Asked }
    }

    fn give_up(&mut self, _: &str, asker: Asker) {
        self.wires.askers.remove(&asker);
    }

    fn connect(&mut self, number: usize, address: SocketAddr, _: &Endpoint) -> io::Result<()> {
        self.wires.connect(number, address);
        Ok(())
    }

    fn outcome(&mut self, number: usize) -> Option<io::Result<()>> {
        self.wires.outcome(number)
    }

    fn shake_hands(&mut self, _: usize) -> io::Result<bool> {
        Ok(true)
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.wires.receive(number, buffer)
    }

    fn write(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        self.wires.send(number, bytes)
    }

    fn flush(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn is_quiet(&mut self, number: usize) -> bool {
        self.wires.is_quiet(number)
    }

    fn close(&mut self, number: usize, at_once: bool) {
        self.wires.close(number, at_once);
    }

    fn log(&mut self, note: &Note<'_>) {
        if let Note::Warning { text, .. } = note
            && std::env::var_os("SIMULATION_LOG").is_some()
        {
            eprintln!("outbound: {text}");
        }
    }
}

impl Outbound {
    /// A process with nothing to do.
    pub fn new(name: &str, now: Instant) -> Self {
        let limits = Limits {
            exchanges: EXCHANGES,
            window: 1_000,
            connect_attempts: 2,
            head: http1::Limits::default(),
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                response: Duration::from_secs(20),
                idle: Duration::from_secs(40),
            },
            pool: PoolLimits { connections: IDLE, per_endpoint: IDLE, patience: Duration::from_secs(30) },
            recover_wait: RECOVER_WAIT,
            recover_memory: 1_000_000,
        };
        let mut engine = Engine::new(name, limits, now);
        let mut keys = DefaultHasher::new();
        keys.write(name.as_bytes());
        engine.key_by(keys);
        Outbound { engine }
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.engine.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.engine.is_empty()
    }

    /// Connections to the backend.
    pub fn connections(&self) -> usize {
        self.engine.connections().0
    }

    /// What has happened.
    pub fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// Whether it has not read all that it could.
    pub fn has_unread(&self) -> bool {
        self.engine.has_unread()
    }

    fn with(&mut self, now: Instant, net: &mut Net, wires: &mut Wires, event: impl FnOnce(&mut Engine, &mut Context)) {
        let outputs = &mut Outputs { net, wires, writer: Writer::new(1024) };
        event(&mut self.engine, &mut Context::new(now, outputs));
        let (connections, idle) = self.engine.connections();
        assert!(idle <= IDLE, "{idle} connections wait for their next request");
        // Each exchange tries two addresses at most.
        assert!(connections <= idle + 2 * self.engine.len(), "{connections} connections, {idle} of them idle");
        assert!(self.engine.len() <= EXCHANGES, "{} exchanges", self.engine.len());
    }

    /// A packet of a proxy.
    pub fn on_packet(&mut self, lane: Lane, message: &[u8], now: Instant, net: &mut Net, wires: &mut Wires) {
        self.with(now, net, wires, |engine, cx| match lane {
            Lane::First => engine.request(message, cx),
            _ => engine.packet(message, cx),
        });
    }

    /// A link to a proxy has ended.
    pub fn on_left(&mut self, name: &[u8], lane: Lane, now: Instant, net: &mut Net, wires: &mut Wires) {
        self.with(now, net, wires, |engine, cx| engine.requester_left(name, lane == Lane::Stream, cx));
    }

    /// A proxy takes packets again.
    pub fn on_room(&mut self, name: &[u8], lane: Lane, now: Instant, net: &mut Net, wires: &mut Wires) {
        self.with(now, net, wires, |engine, cx| engine.requester_has_room(name, lane == Lane::Stream, cx));
    }

    /// Something is news about a connection.
    pub fn on_news(&mut self, number: usize, now: Instant, net: &mut Net, wires: &mut Wires) {
        let edge = wires.take_news(number);
        self.with(now, net, wires, |engine, cx| engine.on_ready(number, edge.readable, edge.writable, edge.ended, cx));
    }

    /// The backend's addresses are known.
    pub fn on_addresses(&mut self, now: Instant, net: &mut Net, wires: &mut Wires) {
        let askers = std::mem::take(&mut wires.askers);
        self.with(now, net, wires, |engine, cx| engine.resolved(&addresses().into(), askers, cx));
    }

    /// Reads on.
    pub fn go_on(&mut self, now: Instant, net: &mut Net, wires: &mut Wires) {
        self.with(now, net, wires, |engine, cx| engine.go_on(cx));
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.engine.next_due()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net, wires: &mut Wires) {
        self.with(now, net, wires, |engine, cx| engine.on_timer(cx));
    }
}
