// SPDX-License-Identifier: AGPL-3.0-or-later
//! A WebSocket between a frontend and an outbound process that count what passes, and one proxy after the other that dies at any
//! moment: nothing is lost, repeated or torn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use routes::Table;
use rpc::ws_control::{self, Item, Kind as ItemKind, Mark};
use zhttp::budget::Budget;
use zhttp::recovery::{Counted, Held, Message, Unread};
use zhttp::retained::{Received, Retained};
use zhttp::session::{Protocol, client, server};
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet, Peers};

use super::bench::{bytes, config};
use crate::context::{Links, Note};
use crate::engine::Engine;

/// What is under way from a proxy.
#[derive(Default)]
struct Wire {
    to_front: VecDeque<Vec<u8>>,
    to_out: VecDeque<Vec<u8>>,
    /// What the backend has told the handler.
    instructions: Vec<Vec<u8>>,
    /// The number under which the handler has been told of the WebSocket.
    named: Option<Vec<u8>>,
    warnings: Vec<String>,
}

impl Links for Wire {
    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        assert_eq!((to, by_router), (&b"front"[..], true));
        self.to_front.push_back(bytes(packet));
        true
    }

    fn to_handler(&mut self, _: &[u8], _: bool, _: &Packet<'_>) -> bool {
        false
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        self.to_out.push_back(bytes(packet));
        true
    }

    fn open_zmq(&mut self, _: &str, _: &Packet<'_>) -> bool {
        false
    }

    fn ask_zmq(&mut self, _: &str, _: &Packet<'_>) -> bool {
        false
    }

    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool {
        assert_eq!(to, b"out");
        self.to_out.push_back(bytes(packet));
        true
    }

    fn inspect(&mut self, _: &[u8]) -> bool {
        false
    }

    fn accept(&mut self, _: &[u8]) -> bool {
        false
    }

    fn control(&mut self, packet: &[u8]) -> bool {
        let packet = ws_control::Packet::decode(packet).unwrap();
        let named = packet.items.iter().find(|item| item.kind == ItemKind::Here);
        self.named = named.and_then(|item| item.req_id.as_deref()).map(<[u8]>::to_vec).or(self.named.take());
        let of_backend = packet.items.iter().filter(|item| item.kind == ItemKind::Grip);
        self.instructions.extend(of_backend.filter_map(|item| Some(item.message.as_ref()?.to_vec())));
        true
    }

    fn log(&mut self, note: &Note<'_>) {
        if let Note::Warning { kind, text } = note {
            self.warnings.push(format!("{kind}: {text}"));
        }
    }
}

/// What has come at an end, however it was cut: each byte and each end, with its kind.
type Stream = Vec<(Kind, Option<u8>)>;

fn append(stream: &mut Stream, packet: &Packet<'_>) {
    stream.extend(packet.body.iter().map(|byte| (packet.kind, Some(*byte))));
    if packet.kind != Kind::Data || !packet.more {
        stream.push((packet.kind, None));
    }
}

/// The frontend.
struct Front {
    session: client::Session,
    sent: Retained,
    came: Received,
    is_within: bool,
    /// A message of the handler has begun, which only the proxy could end.
    is_torn: bool,
    is_orphan: bool,
    record: Vec<u8>,
    heard: Stream,
    said: Stream,
    out: VecDeque<Vec<u8>>,
}

/// The outbound process.
struct Out {
    session: Option<server::Session>,
    name: Vec<u8>,
    sent: Retained,
    came: Received,
    is_orphan: bool,
    heard: Stream,
    out: VecDeque<Vec<u8>>,
}

struct World {
    now: Instant,
    peers: Peers,
    engine: Engine,
    proxies: usize,
    wire: Wire,
    front: Front,
    out: Out,
    /// What is to come at the client, and at the handler.
    passed: Stream,
    told: Vec<Vec<u8>>,
}

fn text(body: &[u8], more: bool) -> Packet<'_> {
    Packet { content_type: Some(b"text"), more, body, ..Packet::default() }
}

/// The first packet of a WebSocket, of a frontend that says this of what it has had.
fn first(had: Option<u64>, window: u32) -> Vec<u8> {
    let headers: &[(&[u8], &[u8])] = &[(b"Host", b"h"), (b"Upgrade", b"websocket")];
    bytes(&Packet {
        from: b"front",
        ids: Ids::One(b"1", Some(0)),
        ext: Ext { adopt: true, had, ..Ext::MULTI },
        router_resp: true,
        credits: Some(window),
        method: Some(b"GET"),
        uri: Some(b"ws://h/chat"),
        headers: Headers::Pairs(headers),
        ..Packet::default()
    })
}

fn engine(name: &str, now: Instant) -> Engine {
    engine_with(name, Duration::from_secs(10), now)
}

fn engine_with(name: &str, recover_wait: Duration, now: Instant) -> Engine {
    let (routes, _) = Table::parse(b"* h:1", "routes", &());
    let mut engine = Engine::new(name, config(recover_wait), Arc::new(routes), now, 1_000_000);
    engine.outbound_joined(b"out", now, &mut Wire::default());
    engine
}

impl Front {
    fn send(&mut self, to: client::Outgoing, packet: Packet<'_>) {
        self.out.push_back(bytes(&Packet { from: b"front", ids: Ids::One(b"1", Some(to.seq)), ..packet }));
    }

    fn say(&mut self, packet: Packet<'_>) {
        let is_behind = !self.sent.is_sent() || self.is_orphan;
        if is_behind || (self.session.credits() as usize) < packet.body.len() {
            return;
        }
        let Some(to) = self.session.send_body(packet.body.len()) else { return };
        self.sent.add(0, &packet);
        append(&mut self.said, &packet);
        let had = self.came.tell();
        self.send(to, Packet { ext: Ext { had, ..Ext::default() }, ..packet });
    }

    fn take(&mut self, message: &[u8], peers: &mut Peers, now: Instant) {
        let packet = Packet::decode(message).unwrap();
        let (from, seq) = (peers.intern(packet.from), packet.ids.single().unwrap().1);
        let outcome = self.session.on_packet(&packet, from, seq, now).unwrap();
        if let Some(record) = packet.ext.keep {
            self.record = record.content.to_vec();
        }
        match packet.ext.had {
            Some(had) if std::mem::take(&mut self.is_orphan) => assert!(self.sent.rewind(had)),
            Some(had) => self.sent.forget_to(had),
            None => assert!(!self.is_orphan, "{packet:?}"),
        }
        if let Some(at) = packet.ext.at {
            self.came.reach(at);
        }
        match outcome {
            client::Outcome::Data | client::Outcome::Control if packet.code != Some(101) => {
                append(&mut self.heard, &packet);
                if packet.kind == Kind::Data {
                    (self.is_torn, self.is_within) = (packet.more && packet.ext.at.is_none(), packet.more);
                }
                let granted = match self.session.pass_on(packet.body.len(), now) {
                    client::Grant::Now(to, credits) => Some((to, credits)),
                    client::Grant::Nothing | client::Grant::Later => self.session.grant(),
                };
                if let Some((to, credits)) = granted {
                    self.send(to, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
                }
            }
            client::Outcome::Ended | client::Outcome::HandOff(_) => panic!("{packet:?}"),
            _ => {}
        }
        if self.came.is_due()
            && let Some(to) = self.session.send()
        {
            let ext = Ext { had: self.came.tell(), ..Ext::default() };
            self.send(to, Packet { kind: Kind::KeepAlive, ext, ..Packet::default() });
        }
        while let Some(packet) = self.sent.next(self.session.credits() as usize) {
            let message = {
                let to = self.session.send_body(packet.body.len()).unwrap();
                bytes(&Packet { from: b"front", ids: Ids::One(b"1", Some(to.seq)), ..packet })
            };
            self.out.push_back(message);
        }
    }

    fn held(&self) -> Held {
        let (from, to) = self.sent.span();
        Held {
            id: Id::new(b"1").unwrap(),
            standing: self.session.standing(),
            age: 0,
            since: 0,
            run: 0,
            lags: false,
            gone: false,
            unread: Some(Unread::default()),
            counted: Some(Counted { at: self.came.position(), is_within: self.is_within, from, to }),
            record: 0,
        }
    }
}

impl Out {
    fn send(&mut self, packet: Packet<'_>) {
        let Some(session) = &mut self.session else { return };
        let to = session.send_body(packet.body.len());
        let ids = Ids::One(session.id_bytes(), Some(to.seq));
        self.out.push_back(bytes(&Packet { from: b"out", ids, ..packet }));
    }

    fn say(&mut self, packet: Packet<'_>) -> bool {
        let credits = self.session.as_ref().map_or(0, |session| session.credits() as usize);
        let is_free = !self.is_orphan && self.sent.is_sent() && credits >= packet.body.len();
        if is_free {
            self.sent.add(0, &packet);
            let had = self.came.tell();
            self.send(Packet { ext: Ext { had, ..Ext::default() }, ..packet });
        }
        is_free
    }

    fn take(&mut self, message: &[u8], peers: &mut Peers, now: Instant) {
        let packet = Packet::decode(message).unwrap();
        let client = peers.intern(packet.from).unwrap();
        if let Some(name) = packet.ext.name {
            let mut session = server::Session::open(&packet, client, 250_007, now).unwrap();
            let credits = session.grant().or(Some(1000));
            let ext = Ext { had: Some(self.came.position()), ..Ext::default() };
            self.session = Some(session);
            if let Some(had) = packet.ext.had {
                assert_eq!(self.name, name);
                assert!(self.sent.rewind(had), "{had} of {:?}", self.sent.span());
                self.came = Received::at(self.came.position());
                self.is_orphan = false;
                self.send(Packet { kind: Kind::KeepAlive, ext, credits, ..Packet::default() });
            } else {
                self.name = name.to_vec();
                let headers: &[(&[u8], &[u8])] = &[(b"Sec-WebSocket-Extensions", b"grip")];
                let headers = Headers::Pairs(headers);
                self.send(Packet { code: Some(101), headers, ext, credits, ..Packet::default() });
            }
        } else {
            let (_, seq) = packet.ids.single().unwrap();
            let Some(session) = &mut self.session else { return };
            let outcome = session.on_packet(&packet, seq, now).unwrap();
            if let Some(had) = packet.ext.had {
                self.sent.forget_to(had);
            }
            if matches!(outcome, server::Outcome::Data | server::Outcome::Control) {
                append(&mut self.heard, &packet);
                self.came.take(&packet);
            }
            if self.came.is_due() {
                let ext = Ext { had: self.came.tell(), ..Ext::default() };
                self.send(Packet { kind: Kind::KeepAlive, ext, ..Packet::default() });
            }
        }
        loop {
            let credits = self.session.as_ref().map_or(0, |session| session.credits() as usize);
            let Some(session) = &mut self.session else { return };
            let Some(packet) = self.sent.next(credits) else { return };
            let to = session.send_body(packet.body.len());
            let ids = Ids::One(session.id_bytes(), Some(to.seq));
            self.out.push_back(bytes(&Packet { from: b"out", ids, ..packet }));
        }
    }
}

impl World {
    /// With a client that takes so many bytes at once.
    fn new(window: u32) -> Self {
        let (now, budget) = (Instant::now(), Budget::new(usize::MAX));
        let front = Front {
            session: client::Session::start(Protocol::WebSocket, window, now),
            sent: Retained::new(budget.share()),
            came: Received::default(),
            is_within: false,
            is_torn: false,
            is_orphan: false,
            record: Vec::new(),
            heard: Stream::new(),
            said: Stream::new(),
            out: VecDeque::new(),
        };
        let out = Out {
            session: None,
            name: Vec::new(),
            sent: Retained::new(budget.share()),
            came: Received::default(),
            is_orphan: false,
            heard: Stream::new(),
            out: VecDeque::new(),
        };
        let (engine, wire, peers) = (engine("proxy_0", now), Wire::default(), Peers::default());
        let (passed, told) = (Stream::new(), Vec::new());
        let mut world = World { now, peers, engine, proxies: 1, wire, front, out, passed, told };
        world.engine.request(&first(Some(0), window), now, &mut world.wire);
        world.settle();
        assert!(!world.front.record.is_empty());
        world
    }

    fn move_one(&mut self, way: u8) -> bool {
        let (now, peers) = (self.now, &mut self.peers);
        match way {
            0 => self.front.out.pop_front().map(|message| self.engine.client_packet(&message, now, &mut self.wire)),
            1 => self.out.out.pop_front().map(|message| self.engine.origin_packet(&message, now, &mut self.wire)),
            2 => self.wire.to_front.pop_front().map(|message| self.front.take(&message, peers, now)),
            _ => self.wire.to_out.pop_front().map(|message| self.out.take(&message, peers, now)),
        }
        .is_some()
    }

    fn settle(&mut self) {
        while (0..4).any(|way| self.move_one(way)) {}
    }

    /// The backend says something.
    fn backend_says(&mut self, what: u8, size: usize, number: usize) {
        let body = format!("{number:0size$}");
        let (packets, message): (Vec<String>, _) = match what {
            0 | 1 => (vec![format!("m:{body}")], Some(body)),
            2 => (vec![format!("m:{body}"), "ab".into(), "cd".into()], Some(format!("{body}abcd"))),
            3 => (vec![format!("x{body}"), "ab".into()], None),
            _ => (vec![format!(r#"c:{{"type":"subscribe","channel":"{number}"}}"#)], None),
        };
        let (said, count) = (self.out.session.is_some(), packets.len());
        let fits =
            said && packets.iter().enumerate().all(|(at, body)| self.out.say(text(body.as_bytes(), at + 1 < count)));
        if fits {
            message.iter().for_each(|message| append(&mut self.passed, &text(message.as_bytes(), false)));
            if what > 3 {
                self.told.push(packets[0].as_bytes()[2..].to_vec());
            }
        }
    }

    /// The handler sends a message, which is lost if the proxy dies first.
    fn handler_says(&mut self) {
        let cid = self.out.name.clone();
        let item =
            Item { message: Some(b"<news>"[..].into()), ..crate::websocket::control::item(ItemKind::Send, &cid) };
        let packet = ws_control::Packet { items: vec![item], ..Default::default() }.encode().unwrap();
        self.engine.control_packet(&packet, self.now, &mut self.wire);
    }

    /// The proxy dies, of whose last packets so many have been sent, and the next one comes. `false`: the client is in the middle of a
    /// message that is lost, so it is closed.
    fn die(&mut self, to_front: usize, to_out: usize) -> bool {
        (0..to_front).for_each(|_| _ = self.move_one(2));
        (0..to_out).for_each(|_| _ = self.move_one(3));
        if self.front.is_torn {
            return false;
        }
        let Wire { instructions, warnings, .. } = std::mem::take(&mut self.wire);
        self.wire = Wire { instructions, warnings, ..Wire::default() };
        self.front.out.clear();
        self.out.out.clear();
        self.front.session.orphan();
        self.front.session.forget_credits();
        (self.front.is_orphan, self.out.is_orphan) = (true, true);
        self.engine = engine(&format!("proxy_{}", self.proxies), self.now);
        self.proxies += 1;
        let front = self.engine.peer(b"front").unwrap();
        let held = Message::Held { records: vec![&self.front.record], sessions: vec![self.front.held()] }.encode();
        self.engine.on_kept(front, &held, self.now, &mut self.wire);
        true
    }
}

fn without_news(stream: &Stream) -> Stream {
    let news: Stream = b"<news>".iter().map(|byte| (Kind::Data, Some(*byte))).chain([(Kind::Data, None)]).collect();
    let (mut rest, mut out) = (&stream[..], Stream::new());
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(&news[..]) {
            Some(behind) => rest = behind,
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

#[test]
fn nothing_is_named_or_kept_where_one_of_the_ends_does_not_count() {
    let now = Instant::now();
    for (had, wait, named) in [(None, 10, false), (Some(0), 0, false), (Some(0), 10, true)] {
        let (mut engine, mut wire) = (engine_with("proxy_0", Duration::from_secs(wait), now), Wire::default());
        engine.request(&first(had, 1000), now, &mut wire);
        let opened = wire.to_out.pop_front().unwrap();
        let opened = Packet::decode(&opened).unwrap();
        assert_eq!((opened.ext.name.is_some(), opened.ext.had), (named, None));
        // An outbound process that does not know of it, such as Zurl.
        let ids = Ids::One(opened.ids.single().unwrap().0, Some(0));
        let answer = Packet { from: b"out", ids, code: Some(101), credits: Some(1000), ..Packet::default() };
        engine.origin_packet(&bytes(&answer), now, &mut wire);
        let accepted = wire.to_front.pop_front().unwrap();
        assert_eq!(Packet::decode(&accepted).unwrap().ext, Ext::MULTI);
    }
}

#[test]
fn what_no_outbound_process_has_any_more_is_closed_with_1012() {
    for is_answered in [true, false] {
        let mut world = World::new(1000);
        world.die(0, 0);
        let claim = world.wire.to_out.pop_front().unwrap();
        if is_answered {
            let ids = Ids::One(Packet::decode(&claim).unwrap().ids.single().unwrap().0, Some(0));
            let condition = Some(&b"unknown-session"[..]);
            let answer = Packet { from: b"out", ids, kind: Kind::Error, condition, ..Packet::default() };
            world.engine.origin_packet(&bytes(&answer), world.now, &mut world.wire);
        }
        assert!(world.wire.to_front.is_empty());
        // At most a second until it gives up, and one until this client's turn.
        let mut now = world.now;
        for _ in 0..(if is_answered { 10 } else { 20 }) {
            now += Duration::from_millis(100);
            world.engine.on_timer(now, &mut world.wire);
        }
        let close = world.wire.to_front.pop_front().unwrap();
        let close = Packet::decode(&close).unwrap();
        assert_eq!((close.kind, close.code), (Kind::Close, Some(1012)));
        assert!(world.engine.is_empty() && !world.wire.warnings.is_empty());
    }
}

#[test]
fn a_position_that_the_frontend_can_not_send_again_from_closes_it() {
    let mut world = World::new(1000);
    world.die(0, 0);
    let claim = world.wire.to_out.pop_front().unwrap();
    let ids = Ids::One(Packet::decode(&claim).unwrap().ids.single().unwrap().0, Some(0));
    let ext = Ext { had: Some(7), ..Ext::default() };
    let answer = Packet { from: b"out", ids, kind: Kind::KeepAlive, ext, ..Packet::default() };
    world.engine.origin_packet(&bytes(&answer), world.now, &mut world.wire);
    let cancel = world.wire.to_out.pop_front().unwrap();
    assert_eq!(Packet::decode(&cancel).unwrap().kind, Kind::Cancel);
    world.engine.on_timer(world.now + Duration::from_secs(1), &mut world.wire);
    assert_eq!(Packet::decode(&world.wire.to_front[0]).unwrap().code, Some(1012));
}

/// Two messages were lost with the predecessor, or on their way to it. A third one must not come before them.
#[test]
fn what_the_handler_says_before_it_knows_how_far_the_client_is_comes_in_its_turn() {
    let mut world = World::new(1000);
    world.backend_says(4, 1, 0);
    world.settle();
    assert!(world.die(0, 0));
    world.settle();
    let cid = world.out.name.clone();
    let say = |world: &mut World, answered: Option<&[u8]>, runs: &[u64]| {
        let control = |kind| crate::websocket::control::item(kind, &cid);
        let answer = answered.map(|number| Item { req_id: Some(number.into()), ..control(ItemKind::Ack) });
        let before = u32::from(answer.is_some());
        let news = |run: &u64| Item { message: Some(run.to_string().into_bytes().into()), ..control(ItemKind::Send) };
        let items = answer.into_iter().chain(runs.iter().map(news)).collect();
        let mark = |(at, run): (u32, &u64)| Mark { run: *run, first: before + at, count: 1, ..Mark::default() };
        let marks = (0..).zip(runs).map(mark).collect();
        let packet = ws_control::Packet { items, marks, ..Default::default() }.encode().unwrap();
        world.engine.control_packet(&packet, world.now, &mut world.wire);
        world.settle();
        let heard: Vec<u8> = world.front.heard.iter().filter_map(|(_, byte)| *byte).collect();
        String::from_utf8(heard).unwrap()
    };
    assert_eq!(say(&mut world, None, &[3]), "");
    world.engine.handler_joined(world.now, &mut world.wire);
    let named = world.wire.named.clone().expect("the handler is asked for an answer");
    assert_eq!(say(&mut world, None, &[3]), "", "the handler has not read it yet");
    assert_eq!(say(&mut world, Some(b"1"), &[3]), "", "a predecessor's question is answered");
    assert_eq!(say(&mut world, Some(&named), &[1, 2, 3]), "123");
    assert_eq!(say(&mut world, None, &[3, 4]), "1234");
}

proptest! {
    #[test]
    fn whenever_proxies_die_nothing_is_lost_repeated_or_torn(
        window in 5..60u32,
        steps in prop::collection::vec((0..16u8, 0..9usize, 0..9usize), 0..250),
    ) {
        let mut world = World::new(window);
        let mut pieces = 0;
        for (number, (step, a, b)) in steps.into_iter().enumerate() {
            match step {
                0 => world.front.say(text(&b"client talk"[..a], a > 0 && b < 4)),
                1 => world.front.say(Packet { kind: Kind::Ping, body: &b"ping pong"[..a], ..Packet::default() }),
                2..=4 => world.backend_says((a % 5) as u8, b + 1, number),
                5 => world.handler_says(),
                6 => if !world.die(a, b) {
                    return Ok(());
                },
                // Until then it has heard of no WebSocket of this proxy's.
                7 => world.engine.handler_joined(world.now, &mut world.wire),
                way => (0..=a).for_each(|_| _ = world.move_one(way % 4)),
            }
            pieces += usize::from(step == 6);
        }
        world.settle();
        // A last death, with all that lies where it may.
        if !world.die(0, 0) {
            return Ok(());
        }
        world.settle();
        world.engine.handler_joined(world.now, &mut world.wire);
        prop_assert_eq!(without_news(&world.front.heard), world.passed, "{} deaths", pieces);
        prop_assert_eq!(&world.out.heard, &world.front.said);
        let mut last = None;
        for told in &world.told {
            let at = world.wire.instructions.iter().position(|other| other == told);
            prop_assert!(at.is_some() && at >= last, "{}", told.escape_ascii());
            last = at;
        }
        prop_assert!(world.wire.warnings.is_empty(), "{:?}", world.wire.warnings);
        // What is kept has been given up at last.
        prop_assert!(world.front.sent.span().1 - world.front.sent.span().0 < 20_000);
    }
}
