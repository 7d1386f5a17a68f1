// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite in one process: parts, links, clients, publishers and one clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{Ask, Client};
use crate::frontend::{Connection, Frontend};
use crate::handler::Handler;
use crate::net::{Lane, Message, Net, Part};
use crate::proxy::Proxy;
use crate::random::Random;

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const FRONTENDS: u8 = 2;
const CLIENTS: usize = 8;
/// How long a link may take nothing before it is cut.
const STUCK: Duration = Duration::from_millis(500);
/// How long a publisher waits for a frontend that does not keep up, as in the handler's worker.
const STALLED: Duration = Duration::from_millis(200);

/// What may happen beside the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing. Every request must be answered, and every stream get everything.
    Fair,
    /// Processes stop for some time and go on.
    Halting,
    /// Processes die and are replaced.
    Deadly,
    /// Both.
    Stormy,
    /// Only handlers die, beside frontends that keep for their successors what they need.
    Heirs,
}

/// What has happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that clients have begun.
    pub asked: usize,
    /// Responses that ended as they should.
    pub answered: usize,
    /// Connections that ended before that, visibly.
    pub cut: usize,
    /// Items published.
    pub published: u64,
    /// Requests held at the end.
    pub held: usize,
    /// Links of the handler that were cut because their frontend took nothing.
    pub links_cut: usize,
    /// Processes that were replaced.
    pub deaths: usize,
    /// Held requests that a handler's successor went on with.
    pub taken_up: u64,
    /// Clients that handlers have closed because they were slow, or something waited for them with a predecessor.
    pub closed: u64,
    /// A checksum of all that went over the links, in order.
    pub trace: u64,
}

impl Report {
    /// Adds what has happened in another run.
    pub fn add(&mut self, other: &Report) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.cut += other.cut;
        self.published += other.published;
        self.held += other.held;
        self.links_cut += other.links_cut;
        self.deaths += other.deaths;
        self.taken_up += other.taken_up;
        self.closed += other.closed;
    }
}

/// Items that are repeated until they are acknowledged.
struct Order {
    items: Vec<String>,
    /// The handler that is there has got it, at this time.
    given: Option<Instant>,
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
    proxy: Proxy,
    handler: Handler,
    backend: Backend,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    births: u32,
    resumes: BTreeMap<Part, Instant>,
    stopped_at: BTreeMap<Part, Instant>,
    published: BTreeMap<&'static str, u64>,
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
        net.join(Part::Backend, b"outbound_0");
        let strict = weather == Weather::Fair;
        let frontends = (0..FRONTENDS).map(|index| {
            let name = format!("frontend_{index}_0");
            net.join(Part::Frontend(index), name.as_bytes());
            let able = index == 0 || weather == Weather::Heirs;
            (index, Frontend::new(Part::Frontend(index), name.as_bytes(), able, strict, now))
        });
        let frontends = frontends.collect();
        World {
            random: Random::new(seed),
            weather,
            now,
            origin: now,
            traces: std::env::var_os("SIMULATION_TRACE").is_some(),
            net,
            frontends,
            proxy: Proxy::new("proxy_0", now),
            handler: Handler::new(b"handler_0", 0, b"", strict, now),
            backend: Backend::new(b"outbound_0"),
            clients: BTreeMap::new(),
            next_client: 0,
            births: 0,
            resumes: BTreeMap::new(),
            stopped_at: BTreeMap::new(),
            published: BTreeMap::new(),
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
                let missing = client.missing(&self.published);
                assert!(missing.is_empty(), "client {id} has not got everything: {missing:?}");
            }
        }
        self.report.held = self.handler.held();
        self.count_handler();
        let clients: Vec<u32> = self.clients.keys().copied().collect();
        clients.into_iter().for_each(|client| self.hang_up(client));
        self.settle(Duration::from_secs(130));
        for (index, frontend) in &self.frontends {
            assert_eq!(frontend.sessions(), 0, "frontend {index} has sessions without clients");
        }
        assert_eq!(
            (self.proxy.len(), self.backend.len()),
            (0, 0),
            "the proxy or the backend has requests without clients"
        );
        assert_eq!(self.handler.held(), 0, "the handler holds requests without clients");
        self.report.published = self.items;
        if self.weather == Weather::Heirs {
            let Report { cut, closed, .. } = self.report;
            assert!(cut as u64 <= closed, "{cut} clients were cut off, but handlers know of {closed} only");
        }
        self.report
    }

    /// All goes on that had stopped, every client reads, and nothing new happens.
    fn calm(&mut self) {
        let stopped: Vec<Part> = self.net.stopped.iter().copied().collect();
        stopped.into_iter().for_each(|part| self.resume(part));
        for client in self.clients.values_mut() {
            client.lazy = false;
        }
        self.settle(Duration::from_secs(20));
    }

    /// Delivers everything, and lets time pass.
    fn settle(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1_000_000 {
            self.attend_to_publisher();
            let ready = self.ready();
            if !ready.is_empty() {
                let key = ready[self.random.below(ready.len())];
                self.deliver(key);
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
                    let key = ready[self.random.below(ready.len())];
                    self.deliver(key);
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
        let later = self.now + Duration::from_millis(self.random.below(most) as u64);
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
            let key = ready[self.random.below(ready.len())];
            self.deliver(key);
        }
    }

    fn next_due(&mut self) -> Option<Instant> {
        let mut due: Vec<Instant> = self.resumes.values().copied().collect();
        due.extend(self.order.as_ref().and_then(|order| order.given).map(|given| given + STALLED));
        let parts = [
            (Part::Proxy, self.proxy.next_due()),
            (Part::Handler, self.handler.next_due()),
            (Part::Backend, self.backend.next_due()),
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
        if self.runs(Part::Proxy) {
            self.proxy.on_timer(now, &mut self.net);
        }
        if self.runs(Part::Handler) {
            self.net.end_turn();
            self.handler.on_timer(now, &mut self.net);
        }
        if self.runs(Part::Backend) {
            self.backend.on_timer(now, &mut self.net);
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
        if to == Part::Handler {
            net.end_turn();
        }
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
                    Message::Left(name) => frontend.on_left(&name, now),
                    Message::Joined(_) | Message::Room(_) => {}
                }
            }
            (Part::Proxy, Message::Packet(bytes)) => self.proxy.on_message(from, lane, &bytes, now, net),
            (Part::Proxy, Message::Left(name)) => self.proxy.on_left(from, &name, now, net),
            (Part::Handler, Message::Packet(bytes)) if from == Part::Proxy && lane == Lane::Stream => {
                self.handler.on_response(&bytes, now, net);
            }
            (Part::Handler, Message::Packet(bytes)) if from == Part::Proxy => {
                self.handler.on_call(lane, &bytes, now, net)
            }
            (Part::Handler, Message::Left(name)) if from == Part::Proxy => self.handler.on_proxy_left(&name, now, net),
            (Part::Handler, Message::Packet(bytes)) => self.handler.on_packet(&bytes, now, net),
            (Part::Handler, Message::Recovery(name, bytes)) => self.handler.on_kept(&name, &bytes, now, net),
            (Part::Handler, Message::Joined(name)) => {
                let able = |index| self.frontends.get(&index).is_some_and(Frontend::is_able);
                if lane == Lane::Stream || matches!(from, Part::Frontend(index) if able(index)) {
                    self.handler.on_joined(from, &name, lane, net);
                }
            }
            (Part::Handler, Message::Left(name)) => self.handler.on_gone(from, &name, lane, now, net),
            (Part::Handler, Message::Room(name)) => self.handler.on_room(&name, now, net),
            (Part::Backend, Message::Packet(bytes)) => self.backend.on_packet(lane, &bytes, now, net),
            (Part::Backend, Message::Left(_)) => self.backend.on_left(),
            (_, Message::Room(_) | Message::Joined(_) | Message::Recovery(..)) => {}
        }
    }

    fn publish(&mut self) {
        if self.order.is_some() {
            // The publisher waits for its answer.
            return;
        }
        let mut items = Vec::new();
        for _ in 0..=self.random.below(4) {
            let channel = CHANNELS[self.random.below(CHANNELS.len())];
            let number = self.published.entry(channel).or_default();
            *number += 1;
            self.items += 1;
            let length = if self.random.once_in(15) { 2_500 } else { self.random.below(60) };
            let content = format!("{},{channel},{number},{};", self.items, "x".repeat(length));
            items.push(format!(
                r#"J{{"channel":"{channel}","id":"{}","formats":{{"http-stream":{{"content":"{content}"}},"http-response":{{"body":"{content}"}}}}}}"#,
                self.items
            ));
        }
        if self.random.once_in(3) {
            // The backend has it first, and may be asked before it is published.
            self.backend.stored += 1;
            let (id, prev) = (self.backend.stored, self.backend.stored - 1);
            let response = format!(r#"{{"http-response":{{"body":"{id},{id};"}}}}"#);
            items.push(format!(r#"J{{"channel":"r","id":"{id}","prev-id":"{prev}","formats":{response}}}"#));
        }
        self.order = Some(Order { items, given: None });
        self.attend_to_publisher();
    }

    /// Gives the handler what is to be published, and the publisher its answer: when it has left the handler, or a frontend does not
    /// keep up.
    fn attend_to_publisher(&mut self) {
        let Some(order) = &mut self.order else { return };
        if self.net.stopped.contains(&Part::Handler) || self.handler.is_recovering() {
            return;
        }
        let given = *order.given.get_or_insert_with(|| {
            self.net.end_turn();
            self.handler.publish(&order.items, self.now, &mut self.net);
            self.now
        });
        if self.handler.acknowledges(self.now >= given + STALLED, &self.net) {
            self.net.end_turn();
            self.order = None;
        }
    }

    /// Links that have something for a process that takes it.
    fn ready(&self) -> Vec<(Part, Part, Lane)> {
        let mut ready = self.net.ready();
        if self.handler.is_recovering() {
            ready.retain(|key| *key != (Part::Proxy, Part::Handler, Lane::Accept));
        }
        ready
    }

    fn client_acts(&mut self) {
        if self.clients.len() < CLIENTS {
            let index = self.random.below(usize::from(FRONTENDS)) as u8;
            let id = self.next_client;
            self.next_client += 1;
            if let Some(frontend) =
                self.frontends.get_mut(&index).filter(|_| !self.net.stopped.contains(&Part::Frontend(index)))
            {
                frontend.accept(id, self.now);
                self.clients.insert(id, Client::new(index));
            }
        }
        let ids: Vec<u32> = self.clients.keys().copied().collect();
        let Some(&id) = ids.get(self.random.below(ids.len())) else { return };
        match self.random.below(40) {
            0 => return self.hang_up(id),
            1 => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.lazy = !client.lazy;
                }
            }
            _ => {}
        }
        let most = 1 + self.random.below(600);
        if self.clients.get(&id).is_some_and(|client| !client.lazy) {
            self.serve(id, most);
        }
        self.ask(id);
    }

    /// Begins a request if the client has none.
    fn ask(&mut self, id: u32) {
        let ask = match self.random.below(13) {
            10.. => Ask::Reliable,
            0..2 => Ask::Plain(self.random.below(6_000)),
            2 => Ask::Upload(self.random.below(5_000)),
            3 => Ask::Both(3_000 + self.random.below(5_000)),
            4..6 => Ask::Poll(CHANNELS[self.random.below(CHANNELS.len())]),
            _ => {
                let first = self.random.below(CHANNELS.len());
                let count = 1 + self.random.below(2);
                Ask::Stream((0..count).map(|i| CHANNELS[(first + i) % CHANNELS.len()]).collect())
            }
        };
        let (now, net) = (self.now, &mut self.net);
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.is_free()) else { return };
        if net.stopped.contains(&Part::Frontend(client.frontend)) {
            return;
        }
        let Some(frontend) = self.frontends.get_mut(&client.frontend) else { return };
        let head = client.ask(ask);
        self.report.asked += 1;
        frontend.push(id, &head, now, net);
    }

    /// A client reads and sends as far as it can; says whether anything moved.
    fn serve(&mut self, id: u32, most: usize) -> bool {
        let (now, net) = (self.now, &mut self.net);
        let Some(client) = self.clients.get_mut(&id) else { return false };
        if net.stopped.contains(&Part::Frontend(client.frontend)) {
            return false;
        }
        let Some(frontend) = self.frontends.get_mut(&client.frontend) else { return false };
        let mut moved = false;
        if client.unsent > 0 {
            let count = client.unsent.min(most);
            client.unsent -= count;
            frontend.push(id, &vec![b'u'; count], now, net);
            moved = true;
        }
        let (bytes, connection) = frontend.pull(id, most, now, net);
        moved |= !bytes.is_empty();
        let waiting = client.ask.is_some();
        client.on_bytes(&bytes, &self.published);
        self.report.answered += usize::from(waiting && client.ask.is_none());
        if connection != Connection::Open {
            let cut = client.ask.is_some();
            self.report.cut += usize::from(cut);
            let slow = client.lazy;
            let fair = self.weather == Weather::Fair && cut && !matches!(client.ask, Some(Ask::Stream(_)));
            assert!(!fair, "in fair weather {:?} was cut off (slow: {slow})", client.ask);
            self.clients.remove(&id);
            moved = true;
        }
        moved
    }

    fn hang_up(&mut self, id: u32) {
        if let Some(client) = self.clients.remove(&id)
            && let Some(frontend) = self.frontends.get_mut(&client.frontend)
        {
            frontend.hang_up(id, self.now, &mut self.net);
        }
    }

    fn fault(&mut self) {
        if !self.random.once_in(8) {
            return;
        }
        let halts = match self.weather {
            Weather::Fair => return,
            Weather::Halting => true,
            Weather::Deadly => false,
            Weather::Heirs => return self.replace(Part::Handler),
            Weather::Stormy => self.random.once_in(2),
        };
        match halts {
            true => {
                let part = self.any_part();
                if self.net.stopped.insert(part) {
                    let time = Duration::from_millis(self.random.below(15_000) as u64);
                    self.stopped_at.insert(part, self.now);
                    self.resumes.insert(part, self.now + time);
                }
            }
            false => {
                let part = self.any_part();
                self.replace(part);
            }
        }
    }

    fn any_part(&mut self) -> Part {
        match self.random.below(5) {
            0 => Part::Proxy,
            1 => Part::Handler,
            2 => Part::Backend,
            _ => Part::Frontend(self.random.below(usize::from(FRONTENDS)) as u8),
        }
    }

    fn runs(&self, part: Part) -> bool {
        !self.net.stopped.contains(&part)
    }

    fn resume(&mut self, part: Part) {
        self.net.stopped.remove(&part);
        self.resumes.remove(&part);
        self.stopped_at.remove(&part);
    }

    /// Notes what this handler has done.
    fn count_handler(&mut self) {
        self.report.closed += self.handler.closed();
        self.report.taken_up += self.handler.taken_up();
    }

    /// A process dies, and another takes its place.
    fn replace(&mut self, part: Part) {
        self.births += 1;
        self.report.deaths += 1;
        self.resume(part);
        let (now, number) = (self.now, self.births);
        if part == Part::Handler {
            match self.random.below(3) {
                0 => self.net.lose_turn(|_| true),
                1 => self.net.lose_turn(|lane| lane == Lane::Accept),
                _ => self.net.lose_turn(|_| false),
            }
        }
        self.net.leave(part);
        let name = match part {
            Part::Frontend(index) => {
                let name = format!("frontend_{index}_{number}");
                let able = self.frontends.get(&index).is_some_and(Frontend::is_able);
                self.frontends.insert(index, Frontend::new(part, name.as_bytes(), able, false, now));
                self.clients.retain(|_, client| client.frontend != index);
                name
            }
            Part::Proxy => {
                let name = format!("proxy_{number}");
                self.proxy = Proxy::new(&name, now);
                name
            }
            Part::Handler => {
                let name = format!("handler_{number}");
                self.count_handler();
                let file = self.handler.file();
                self.handler = Handler::new(name.as_bytes(), self.frontends.len(), &file, false, now);
                self.handler.on_all_named(now, &mut self.net);
                self.order.iter_mut().for_each(|order| order.given = None);
                name
            }
            Part::Backend => {
                let name = format!("outbound_{number}");
                let stored = self.backend.stored;
                self.backend = Backend::new(name.as_bytes());
                self.backend.stored = stored;
                name
            }
        };
        self.net.join(part, name.as_bytes());
    }
}
