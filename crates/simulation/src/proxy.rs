// SPDX-License-Identifier: AGPL-3.0-or-later
//! A proxy: its engine, driven as its worker does it.

use std::sync::Arc;
use std::time::Instant;

use proxy::context::{Config, Links, Note};
use proxy::engine::Engine;
use routes::Table;
use tnetstring::Writer;
use zhttp::Packet;

use crate::net::{Lane, Net, Part};

/// See the module.
pub struct Proxy {
    engine: Engine,
}

struct Sockets<'a> {
    net: &'a mut Net,
    writer: Writer,
}

impl Links for Sockets<'_> {
    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        let Some(part) = self.net.part(to) else { return false };
        let lane = if by_router { Lane::Stream } else { Lane::Published };
        self.net.send(Part::Proxy, part, lane, packet.encode(None, &mut self.writer)).is_some()
    }

    fn to_handler(&mut self, _to: &[u8], _by_router: bool, packet: &Packet<'_>) -> bool {
        let bytes = packet.encode(None, &mut self.writer);
        self.net.send(Part::Proxy, Part::Handler, Lane::Stream, bytes).is_some()
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.net.send(Part::Proxy, Part::Backend, Lane::First, packet.encode(None, &mut self.writer)).is_some()
    }

    fn open_zmq(&mut self, _spec: &str, _packet: &Packet<'_>) -> bool {
        false
    }

    fn ask_zmq(&mut self, _spec: &str, _packet: &Packet<'_>) -> bool {
        false
    }

    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool {
        let bytes = packet.encode(None, &mut self.writer);
        self.net.part(to).is_some_and(|part| self.net.send(Part::Proxy, part, Lane::Stream, bytes).is_some())
    }

    fn inspect(&mut self, call: &[u8]) -> bool {
        self.net.send(Part::Proxy, Part::Handler, Lane::Inspect, call).is_some()
    }

    fn accept(&mut self, call: &[u8]) -> bool {
        self.net.send(Part::Proxy, Part::Handler, Lane::Accept, call).is_some()
    }

    /// There are no WebSockets in a simulation yet.
    fn control(&mut self, _packet: &[u8]) -> bool {
        false
    }

    fn log(&mut self, note: &Note<'_>) {
        if let Note::Warning { text, .. } = note
            && std::env::var_os("SIMULATION_LOG").is_some()
        {
            eprintln!("proxy: {text}");
        }
    }
}

impl Proxy {
    /// A proxy with nothing to do.
    pub fn new(name: &str, now: Instant) -> Self {
        let (routes, problems) = Table::parse(b"* backend:80\n", "routes", &());
        assert!(problems.is_empty(), "{problems:?}");
        let config = Config { max_open_requests: 1_000, ..Config::default() };
        Proxy { engine: Engine::new(name, config, Arc::new(routes), now, 1_000_000) }
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.engine.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.engine.is_empty()
    }

    /// A packet has come.
    pub fn on_message(&mut self, from: Part, lane: Lane, message: &[u8], now: Instant, net: &mut Net) {
        let sockets = &mut Sockets { net, writer: Writer::new(1024) };
        match (from, lane) {
            (Part::Frontend(_), Lane::First) => self.engine.request(message, now, sockets),
            (Part::Frontend(_), _) => self.engine.client_packet(message, now, sockets),
            (Part::Handler, Lane::Inspect) => self.engine.inspect_reply(message, now, sockets),
            (Part::Handler, Lane::First) => self.engine.internal_request(message, now, sockets),
            (Part::Handler, Lane::Stream) => self.engine.client_packet(message, now, sockets),
            (Part::Handler, Lane::Retry) => self.engine.retry(message, now, sockets),
            (Part::Handler, _) => self.engine.accept_reply(message, now, sockets),
            _ => self.engine.origin_packet(message, now, sockets),
        }
    }

    /// A process is gone.
    pub fn on_left(&mut self, from: Part, name: &[u8], now: Instant, net: &mut Net) {
        let sockets = &mut Sockets { net, writer: Writer::new(1024) };
        match from {
            Part::Frontend(_) => self.engine.client_instance_left(name, now, sockets),
            Part::Handler => {
                self.engine.inspect_lost(now, sockets);
                self.engine.accept_lost(now, sockets);
                self.engine.client_instance_left(name, now, sockets);
            }
            _ => self.engine.outbound_left(name, now, sockets),
        }
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.engine.next_due()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net) {
        self.engine.on_timer(now, &mut Sockets { net, writer: Writer::new(1024) });
    }
}
