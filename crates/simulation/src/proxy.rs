// SPDX-License-Identifier: AGPL-3.0-or-later
//! A proxy: its engine, driven as its worker does it.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy::context::{Config, Links, Note};
use proxy::engine::Engine;
use proxy::websocket::recovering::Recovering;
use routes::Table;
use tnetstring::Writer;
use zhttp::Packet;
use zhttp::inquiry::Change;

use crate::frontend::RECOVER_WAIT;
use crate::net::{Lane, Net, Part};

/// See the module.
pub struct Proxy {
    engine: Engine,
    recovering: Recovering,
    /// Frontends that have not told yet what they have kept.
    unheard: usize,
    /// It has told a handler which WebSockets there are before it had heard all frontends.
    pub is_hasty: bool,
    /// Handlers that have gone, by the links of calls, of what they say about WebSockets, and of what they are told about them.
    handlers_left: [u32; 3],
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

    fn to_handler(&mut self, to: &[u8], _by_router: bool, packet: &Packet<'_>) -> bool {
        let bytes = packet.encode(None, &mut self.writer);
        self.net.part(to).is_some_and(|part| self.net.send(Part::Proxy, part, Lane::Stream, bytes).is_some())
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.net.send(Part::Proxy, Part::Outbound, Lane::First, packet.encode(None, &mut self.writer)).is_some()
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

    fn control(&mut self, packet: &[u8]) -> bool {
        self.net.send(Part::Proxy, Part::Handler, Lane::Control, packet).is_some()
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
    /// A proxy that asks so many frontends for the WebSockets of its predecessor. `router_resp`: the outbound process answers by ROUTER.
    pub fn new(name: &str, frontends: usize, router_resp: bool, now: Instant) -> Self {
        let routes: &[u8] = b"* backend:80\n*,proto=ws backend:80,over_http\n*,path_beg=/direct,proto=ws backend:80\n";
        let (routes, problems) = Table::parse(routes, "routes", &());
        assert!(problems.is_empty(), "{problems:?}");
        let config = Config {
            max_open_requests: 1_000,
            recover_wait: RECOVER_WAIT,
            router_resp,
            session_queue_bytes: 1_000_000,
            session_queue_time: Duration::from_secs(5),
            max_message_size: 1_000_000,
            events_timeout: Duration::from_secs(60),
            ..Config::default()
        };
        let mut engine = Engine::new(name, config, Arc::new(routes), now, 1_000_000);
        let mut names = DefaultHasher::new();
        names.write(name.as_bytes());
        engine.name_by(names);
        if frontends > 0 {
            engine.expect_strangers(now + RECOVER_WAIT);
        }
        Proxy {
            engine,
            recovering: Recovering::new(frontends, now),
            unheard: frontends,
            is_hasty: false,
            handlers_left: [0; 3],
        }
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
            (Part::Handler, Lane::Told) => self.engine.control_packet(message, now, sockets),
            (Part::Handler, _) => self.engine.accept_reply(message, now, sockets),
            _ => self.engine.origin_packet(message, now, sockets),
        }
    }

    /// A frontend tells what it has kept of a predecessor.
    pub fn on_kept(&mut self, from: &[u8], message: &[u8], now: Instant, net: &mut Net) {
        let Some(frontend) = self.engine.peer(from) else { return };
        if self.engine.on_kept(frontend, message, now, &mut Sockets { net, writer: Writer::new(1024) }) {
            self.recovering.on_done(frontend);
            self.unheard = self.unheard.saturating_sub(1);
        }
        self.greet_handler(now, net);
    }

    /// A process is there. A frontend is seen by ROUTER, or can be asked, as its subscription says.
    pub fn on_joined(&mut self, from: Part, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if from == Part::Outbound {
            self.engine.outbound_joined(name, now, &mut Sockets { net, writer: Writer::new(1024) });
        } else if from == Part::Handler {
            self.recovering.on_handler_joined(now);
        } else {
            self.note_frontend(name, if lane == Lane::Stream { Change::Linked } else { Change::Able }, net);
        }
        self.greet_handler(now, net);
    }

    fn note_frontend(&mut self, name: &[u8], change: Change, net: &mut Net) {
        if let Some(frontend) = self.engine.peer(name)
            && self.recovering.on_change(frontend, change)
            && let Some(part) = net.part(name)
        {
            net.tell(Part::Proxy, part, Recovering::question());
        }
    }

    /// Tells a handler that has come which WebSockets there are.
    fn greet_handler(&mut self, now: Instant, net: &mut Net) {
        let [calls, said, told] = self.handlers_left;
        if self.recovering.tells(said.min(told) >= calls, now) {
            self.is_hasty |= self.unheard > 0;
            self.engine.handler_joined(now, &mut Sockets { net, writer: Writer::new(1024) });
        }
    }

    /// A link to a process has ended.
    pub fn on_left(&mut self, from: Part, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if let Part::Frontend(_) = from {
            self.note_frontend(name, if lane == Lane::Stream { Change::Lost } else { Change::NotAble }, net);
        }
        let sockets = &mut Sockets { net, writer: Writer::new(1024) };
        match (from, lane) {
            (Part::Handler, Lane::Inspect) => self.engine.inspect_lost(now, sockets),
            (Part::Handler, Lane::Accept) => {
                self.handlers_left[0] += 1;
                self.recovering.on_handler_left();
                self.engine.accept_lost(now, sockets);
            }
            (Part::Handler, Lane::Told) => self.handlers_left[1] += 1,
            (Part::Handler, Lane::Control) => {
                self.handlers_left[2] += 1;
                if self.engine.tells_all_again(self.handlers_left[2] > self.handlers_left[0]) {
                    sockets.net.take_unsent(Part::Proxy, Part::Handler, Lane::Control);
                }
            }
            // What was sent to it may be lost.
            (Part::Outbound, Lane::First) => self.engine.outbound_left(b"", now, sockets),
            (Part::Outbound, _) => self.engine.outbound_left(name, now, sockets),
            _ => self.engine.client_instance_left(name, now, sockets),
        }
        self.greet_handler(now, net);
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.engine.next_due().into_iter().chain(self.recovering.next_due()).min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net) {
        self.greet_handler(now, net);
        self.engine.on_timer(now, &mut Sockets { net, writer: Writer::new(1024) });
    }
}
