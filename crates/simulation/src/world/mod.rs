// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite in one process: parts, links, clients, publishers and one clock.

mod clients;
mod faults;
mod publisher;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{Ask, Client, Deaths};
use crate::facts::Facts;
use crate::frontend::Frontend;
use crate::handler::{Handler, Subscribed};
use crate::net::{Lane, Message, Net, Part};
use crate::outbound::Outbound;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::report::Report;
use crate::weather::Weather;
use crate::wires::Wires;

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const FRONTENDS: u8 = 2;
const CLIENTS: usize = 8;
/// How long a link may take nothing before it is cut.
const STUCK: Duration = Duration::from_millis(500);

/// Items that are repeated until they are acknowledged.
struct Order {
    items: Vec<String>,
    /// The handler that is there has got it.
    is_given: bool,
}

/// See the module.
pub struct World {
    random: Random,
    weather: Weather,
    now: Instant,
    origin: Instant,
    /// People want to see each packet.
    traces: bool,
    net: Net,
    frontends: BTreeMap<u8, Frontend>,
    /// None between the death of one and the start of the next.
    proxy: Option<Proxy>,
    /// When there is another proxy.
    proxy_due: Option<Instant>,
    /// Servers that have died.
    deaths: Deaths,
    handler: Handler,
    outbound: Outbound,
    wires: Wires,
    backend: Backend,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    /// Names of WebSockets whose clients have gone.
    gone: Vec<(String, String)>,
    /// A handler that has died had begun to publish before the proxy had named its WebSockets, or a proxy that has died had named some
    /// before the frontends had named all to it.
    may_be_restarted: bool,
    births: u32,
    /// Who dies next, and when.
    death_due: Option<(Part, Instant)>,
    resumes: BTreeMap<Part, Instant>,
    stopped_at: BTreeMap<Part, Instant>,
    facts: Facts,
    items: u64,
    /// What the publisher has no answer for.
    order: Option<Order>,
    report: Report,
}

impl World {
    /// A suite that has just been started; everything that happens follows from `seed`.
    pub fn new(seed: u64, weather: Weather) -> Self {
        let now = Instant::now();
        let mut net = Net::default();
        net.join(Part::Proxy, b"proxy_0");
        net.join(Part::Handler, b"handler_0");
        net.join(Part::Outbound, b"outbound_0");
        let strict = weather == Weather::Fair;
        let frontends = (0..FRONTENDS).map(|index| {
            let name = format!("frontend_{index}_0");
            net.join(Part::Frontend(index), name.as_bytes());
            let able = weather.is_able(index);
            (index, Frontend::new(Part::Frontend(index), name.as_bytes(), able, strict, now))
        });
        let frontends = frontends.collect();
        // Where some are not, servers would wait for them.
        let asked = if (0..FRONTENDS).all(|index| weather.is_able(index)) { usize::from(FRONTENDS) } else { 0 };
        World {
            random: Random::new(seed),
            weather,
            now,
            origin: now,
            traces: std::env::var_os("SIMULATION_TRACE").is_some(),
            net,
            frontends,
            proxy: Some(Proxy::new("proxy_0", asked, weather.by_router(), now)),
            proxy_due: None,
            deaths: Deaths::default(),
            handler: Handler::new(b"handler_0", asked, b"", strict, now),
            outbound: Outbound::new("outbound_0", now),
            wires: Wires::default(),
            backend: Backend::new(weather.is_rough()),
            clients: BTreeMap::new(),
            next_client: 0,
            gone: Vec::new(),
            may_be_restarted: false,
            births: 0,
            death_due: None,
            resumes: BTreeMap::new(),
            stopped_at: BTreeMap::new(),
            facts: Facts::default(),
            items: 0,
            order: None,
            report: Report::default(),
        }
    }

    /// Lets so much happen, then ends it in order and looks whether something is left over.
    pub fn run(mut self, steps: usize) -> Report {
        for _ in 0..steps {
            self.step();
        }
        self.calm();
        for (id, client) in &self.clients {
            assert!(
                !matches!(client.ask, Some(Ask::Plain(_) | Ask::Upload(_) | Ask::Both(_))),
                "client {id} waits for {:?}",
                client.ask
            );
            if self.weather == Weather::Fair && client.ask == Some(Ask::Reliable) {
                let stored = self.backend.stored;
                assert_eq!(client.reliable, stored, "client {id} waits for what it has missed of the channel r");
            }
            if client.begun && client.ask.is_some() {
                let missing = client.missing(&self.facts);
                assert!(missing.is_empty(), "client {id} has not got everything: {missing:?}");
            }
            if let Some(socket) = &client.socket {
                let heard = match socket.is_direct {
                    true => self.backend.directs.heard(&socket.name).unwrap_or(0),
                    false => self.backend.conversations.heard(&socket.name),
                };
                assert_eq!(heard, socket.sent, "the backend has not heard everything of client {id}");
            }
        }
        self.report.held = self.handler.held();
        self.count_handler();
        self.count_outbound();
        self.report.hurt = self.backend.hurt();
        let clients: Vec<u32> = self.clients.keys().copied().collect();
        clients.into_iter().for_each(|client| self.hang_up(client));
        self.settle(Duration::from_secs(130));
        for (index, frontend) in &self.frontends {
            assert_eq!(frontend.sessions(), 0, "frontend {index} has sessions without clients");
        }
        assert_eq!(
            (self.proxy.as_ref().map_or(0, Proxy::len), self.outbound.len()),
            (0, 0),
            "the proxy or the outbound process has requests without clients"
        );
        assert_eq!((self.outbound.connections(), self.wires.ids()), (0, Vec::new()), "connections are left");
        assert_eq!(self.handler.held(), 0, "the handler holds requests without clients");
        assert_eq!(self.handler.websockets(), 0, "the handler knows WebSockets without clients");
        if !matches!(self.weather, Weather::Halting | Weather::Deadly | Weather::Stormy | Weather::Backends) {
            for (name, known_as) in &self.gone {
                // One that no handler has heard of was perhaps being closed when its proxy died.
                let is_known = self.facts.subscriptions(known_as).next().is_some();
                let is_told = self.backend.conversations.is_over(name) || self.backend.directs.is_over(name);
                assert!(is_told || !is_known, "the backend has not heard of the end of {name}");
            }
        }
        self.report.published = self.items;
        let Report { cut, held_cut, closed, .. } = self.report;
        let unseen = match self.weather {
            Weather::Heirs => cut,
            Weather::Proxies | Weather::Successors | Weather::Backends => held_cut,
            _ => 0,
        };
        assert!(unseen as u64 <= closed, "{unseen} clients were cut off, but handlers know of {closed} only");
        self.report
    }

    /// All goes on that had stopped, every client reads, and nothing new happens.
    fn calm(&mut self) {
        let stopped: Vec<Part> = self.net.stopped.iter().copied().collect();
        stopped.into_iter().for_each(|part| self.resume(part));
        for client in self.clients.values_mut() {
            client.lazy = false;
        }
        self.backend.calm();
        self.settle(Duration::from_secs(20));
    }

    /// Delivers everything, and lets time pass.
    fn settle(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000_000 {
            self.attend_to_publisher();
            let ready = self.ready();
            if !ready.is_empty() {
                let next = ready[self.random.below(ready.len())];
                self.go_on_with(next);
                continue;
            }
            let ids: Vec<u32> = self.clients.keys().copied().collect();
            if ids.into_iter().fold(false, |moved, id| self.serve(id, usize::MAX) | moved) || !self.ready().is_empty() {
                continue;
            }
            let Some(due) = self.next_due().filter(|&due| due <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(due);
            self.on_timer();
        }
        panic!("it does not come to rest");
    }

    fn step(&mut self) {
        self.attend_to_publisher();
        match self.random.below(100) {
            0..60 => {
                let ready = self.ready();
                if !ready.is_empty() {
                    let next = ready[self.random.below(ready.len())];
                    self.go_on_with(next);
                }
            }
            60..80 => self.client_acts(),
            80..88 => self.publish(),
            88..98 => self.pass_time(),
            _ => self.fault(),
        }
    }

    fn pass_time(&mut self) {
        let long = self.random.once_in(20);
        if long {
            // Packets take no seconds, unless their receiver has stopped.
            self.deliver_all();
        }
        let most = if long { 5_000 } else { 20 };
        let mut later = self.now + Duration::from_millis(self.random.below(most) as u64);
        if long && self.runs(Part::Outbound) {
            // Nor does a process that runs sleep for seconds while the second address of a backend is to be tried.
            later = self.outbound.next_due().map_or(later, |due| due.clamp(self.now, later));
        }
        let next = self.next_due().map_or(later, |due| due.clamp(self.now, later));
        self.now = if self.random.once_in(2) { next } else { later };
        self.on_timer();
    }

    fn deliver_all(&mut self) {
        loop {
            let ready = self.ready();
            if ready.is_empty() {
                return;
            }
            let next = ready[self.random.below(ready.len())];
            self.go_on_with(next);
        }
    }

    fn next_due(&mut self) -> Option<Instant> {
        let mut due: Vec<Instant> = self.resumes.values().copied().collect();
        due.extend(self.proxy_due);
        due.extend(self.death_due.map(|(_, due)| due));
        due.extend(self.order.as_ref().and_then(|_| self.handler.patience_due()).filter(|due| *due > self.now));
        let parts = [
            (Part::Proxy, self.proxy.as_ref().and_then(Proxy::next_due)),
            (Part::Handler, self.handler.next_due()),
            (Part::Outbound, self.outbound.next_due()),
        ];
        due.extend(parts.into_iter().filter(|(part, _)| self.runs(*part)).filter_map(|(_, due)| due));
        for (index, frontend) in &mut self.frontends {
            if !self.net.stopped.contains(&Part::Frontend(*index)) {
                due.extend(frontend.next_due());
            }
        }
        due.into_iter().min()
    }

    fn on_timer(&mut self) {
        let now = self.now;
        let resumed: Vec<Part> = self.resumes.iter().filter(|(_, due)| **due <= now).map(|(part, _)| *part).collect();
        resumed.into_iter().for_each(|part| self.resume(part));
        let stuck: Vec<Part> =
            self.stopped_at.iter().filter(|(_, since)| **since + STUCK <= now).map(|(part, _)| *part).collect();
        for part in stuck {
            if self.net.is_full(Part::Handler, part) {
                self.handler.cut(part, now, &mut self.net);
                self.report.links_cut += 1;
            }
        }
        self.die_as_due();
        if self.proxy_due.is_some_and(|due| due <= now) {
            self.start_proxy();
        }
        if let Some(proxy) = self.proxy.as_mut().filter(|_| !self.net.stopped.contains(&Part::Proxy)) {
            self.net.end_turn(Part::Proxy);
            proxy.on_timer(now, &mut self.net);
        }
        if self.runs(Part::Handler) {
            self.net.end_turn(Part::Handler);
            self.handler.on_timer(now, &mut self.net);
        }
        if self.runs(Part::Outbound) {
            self.outbound.on_timer(now, &mut self.net, &mut self.wires);
        }
        for (index, frontend) in &mut self.frontends {
            if !self.net.stopped.contains(&Part::Frontend(*index)) {
                frontend.on_timer(now, &mut self.net);
            }
        }
    }

    fn deliver(&mut self, key: (Part, Part, Lane)) {
        let (from, to, lane) = key;
        if self.traces {
            let bytes = self.net.peek(key);
            eprintln!("{:?} {from:?} -> {to:?} {lane:?} {bytes}", self.now.duration_since(self.origin));
        }
        let (now, net) = (self.now, &mut self.net);
        let weather = self.weather;
        let able = |part| matches!(part, Part::Frontend(index) if weather.is_able(index));
        net.end_turn(to);
        let Some(message) = net.take(key) else { return };
        if let Message::Packet(bytes) = &message {
            for &byte in bytes {
                self.report.trace = (self.report.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        match (to, message) {
            (Part::Frontend(index), message) => {
                let Some(frontend) = self.frontends.get_mut(&index) else { return };
                match message {
                    Message::Recovery(name, bytes) => frontend.on_question(&name, &bytes, now, net),
                    Message::Packet(bytes) => frontend.on_packet(lane, &bytes, now, net),
                    Message::Left(name) => frontend.on_left(&name, lane, now, net),
                    Message::Joined(_) => frontend.on_proxy(now, net),
                    Message::Room(_) => {}
                }
            }
            (Part::Proxy, message) => {
                let Some(proxy) = &mut self.proxy else { return };
                match message {
                    Message::Packet(bytes) => proxy.on_message(from, lane, &bytes, now, net),
                    Message::Recovery(name, bytes) => proxy.on_kept(&name, &bytes, now, net),
                    Message::Left(name) => proxy.on_left(from, &name, lane, now, net),
                    Message::Joined(name) if from == Part::Handler || lane == Lane::Stream || able(from) => {
                        proxy.on_joined(from, &name, lane, now, net);
                    }
                    Message::Joined(_) | Message::Room(_) => {}
                }
            }
            (Part::Handler, Message::Packet(bytes)) if lane == Lane::Control => {
                for Subscribed { name, cid, channel } in self.handler.on_control(&bytes, now, net) {
                    self.facts.subscribe(name, cid, channel);
                }
            }
            (Part::Handler, Message::Packet(bytes)) if from == Part::Proxy && lane == Lane::Stream => {
                self.handler.on_response(&bytes, now, net);
            }
            (Part::Handler, Message::Packet(bytes)) if from == Part::Proxy => {
                self.handler.on_call(lane, &bytes, now, net)
            }
            (Part::Handler, Message::Left(name)) if from == Part::Proxy => {
                self.handler.on_proxy_left(&name, lane, now, net);
            }
            (Part::Handler, Message::Packet(bytes)) => self.handler.on_packet(&bytes, now, net),
            (Part::Handler, Message::Recovery(name, bytes)) => self.handler.on_kept(&name, &bytes, now, net),
            (Part::Handler, Message::Joined(name)) => {
                if lane == Lane::Stream || able(from) {
                    self.handler.on_joined(from, &name, lane, net);
                }
            }
            (Part::Handler, Message::Left(name)) => self.handler.on_gone(from, &name, lane, now, net),
            (Part::Handler, Message::Room(name)) => self.handler.on_room(&name, now, net),
            (Part::Outbound, message) => {
                let (outbound, wires) = (&mut self.outbound, &mut self.wires);
                match message {
                    Message::Packet(bytes) => outbound.on_packet(lane, &bytes, now, net, wires),
                    Message::Left(name) => outbound.on_left(&name, lane, now, net, wires),
                    Message::Room(name) => outbound.on_room(&name, lane, now, net, wires),
                    Message::Joined(_) | Message::Recovery(..) => {}
                }
            }
        }
    }

    /// What can go on.
    fn ready(&self) -> Vec<Next> {
        let is_waiting = |key: &(Part, Part, Lane)| *key == (Part::Proxy, Part::Handler, Lane::Accept);
        let links = self.net.ready().into_iter().filter(|key| !self.handler.is_recovering() || !is_waiting(key));
        let mut ready: Vec<Next> = links.map(Next::Link).collect();
        ready.extend(self.backend.ready(&self.wires).into_iter().map(Next::Backend));
        if self.runs(Part::Outbound) {
            ready.extend(self.wires.news().into_iter().map(Next::News));
            ready.extend((!self.wires.askers.is_empty()).then_some(Next::Addresses));
            ready.extend(self.outbound.has_unread().then_some(Next::Unread));
        }
        ready
    }

    fn go_on_with(&mut self, next: Next) {
        if self.traces && !matches!(next, Next::Link(_)) {
            eprintln!("{:?} {next:?}", self.now.duration_since(self.origin));
        }
        let (now, net, wires) = (self.now, &mut self.net, &mut self.wires);
        match next {
            Next::Link(key) => self.deliver(key),
            Next::Backend(id) => self.backend.act(id, wires, &mut self.random),
            Next::News(number) => self.outbound.on_news(number, now, net, wires),
            Next::Addresses => self.outbound.on_addresses(now, net, wires),
            Next::Unread => self.outbound.go_on(now, net, wires),
        }
    }
}

/// Something that can go on.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// A link has something for a process that takes it.
    Link((Part, Part, Lane)),
    /// The backend has something to do on this connection.
    Backend(u32),
    /// Something is news about a connection of the outbound process.
    News(usize),
    /// The outbound process has asked for addresses.
    Addresses,
    /// It has not read all that it could.
    Unread,
}
