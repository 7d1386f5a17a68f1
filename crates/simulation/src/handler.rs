// SPDX-License-Identifier: AGPL-3.0-or-later
//! A handler: its engine, driven as its worker does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use grip::Instruct;
use grip::websocket::control::Control;
use handler::context::{Actions, Address, Context, GivenBack, Sent};
use handler::engine::recovering::{Change, Recovering, Told};
use handler::engine::{Engine, Limits};
use handler::notice::{Level, Notice};
use handler::take_over::accept::{self, Accept};
use handler::take_over::admission::{Decision, Prepared};
use handler::take_over::arrears::Arrears;
use handler::take_over::asked;
use rpc::Call;
use rpc::call::{failure, success};
use rpc::ws_control::{self, Kind};
use tnetstring::Writer;
use zhttp::{Ext, Packet, PeerId, Peers};

use crate::frontend::RECOVER_WAIT;
use crate::net::{Lane, Net, Part};

/// Bytes that may wait for one client for longer than [`QUEUE_TIME`].
pub const QUEUE: usize = 3_000;
/// See [`QUEUE`].
pub const QUEUE_TIME: Duration = Duration::from_secs(5);

/// How long a publisher waits for a frontend that does not keep up, and for a proxy or its successor, as in the handler's worker.
const STALLED: Duration = Duration::from_millis(200);
const PROXY_PATIENCE: Duration = Duration::from_secs(6);

/// A WebSocket has been subscribed to a channel.
pub struct Subscribed {
    /// Its name among the [`facts`](crate::facts).
    pub name: String,
    /// The suite's name for it.
    pub cid: String,
    /// The channel.
    pub channel: String,
}

/// See the module.
pub struct Handler {
    name: Vec<u8>,
    engine: Engine,
    peers: Peers,
    recovering: Recovering,
    /// With what its file says.
    arrears: Arrears,
    frontends: BTreeSet<Part>,
    /// What it has subscribed clients to: the request's address, and the channel.
    subscribed: Vec<(String, String)>,
    /// Addresses of WebSockets by their names.
    sockets: BTreeMap<Vec<u8>, String>,
    /// The proxy has left, and its successor has not named all WebSockets.
    awaits_names: bool,
    /// The proxy that is there has named all.
    is_told: bool,
    /// One has.
    has_been_told: bool,
    /// Publishers had their answers while something for the proxy had not left.
    owes_proxy: bool,
    /// Since when the publisher waits for the proxy, and for a frontend.
    proxy_behind_since: Option<Instant>,
    unsent_since: Option<Instant>,
    /// It has begun to publish before the proxy had named all.
    pub is_blind: bool,
    next_second: Instant,
    /// Nobody has any reason to break the rules.
    strict: bool,
}

struct Outputs<'a> {
    name: &'a [u8],
    peers: &'a Peers,
    subscribed: &'a mut Vec<(String, String)>,
    net: &'a mut Net,
    writer: Writer,
    strict: bool,
}

impl Actions for Outputs<'_> {
    fn send(&mut self, to: Address, packet: &Packet<'_>) -> Sent {
        let packet = Packet { from: self.name, ext: Ext { multi: true, ..packet.ext }, ..*packet };
        let Some(part) = self.net.part(self.peers.name(to.peer)) else { return Sent::Lost };
        let lane = if to.by_router { Lane::Stream } else { Lane::Published };
        match self.net.send(Part::Handler, part, lane, packet.encode(None, &mut self.writer)) {
            Some(true) => Sent::Taken,
            Some(false) => Sent::Full,
            None => Sent::Lost,
        }
    }

    fn frontend(&mut self, name: &[u8]) -> Option<PeerId> {
        self.peers.find(name)
    }

    fn open(&mut self, packet: &Packet<'_>) -> bool {
        let packet = Packet { from: self.name, ..*packet };
        self.net.send(Part::Handler, Part::Proxy, Lane::First, packet.encode(None, &mut self.writer)).is_some()
    }

    fn to_proxy(&mut self, to: PeerId, packet: &Packet<'_>) -> bool {
        let packet = Packet { from: self.name, ..*packet };
        let Some(part) = self.net.part(self.peers.name(to)) else { return false };
        self.net.send(Part::Handler, part, Lane::Stream, packet.encode(None, &mut self.writer)).is_some()
    }

    fn give_back(&mut self, poll: &GivenBack<'_>) -> bool {
        let packet = asked::give_back(poll, self.name, self.peers).expect("it came in a call");
        self.net.send(Part::Handler, Part::Proxy, Lane::Retry, &packet).is_some()
    }

    fn control(&mut self, packet: &ws_control::Packet<'_>) -> Sent {
        let bytes = packet.encode().expect("it is flat");
        match self.net.send(Part::Handler, Part::Proxy, Lane::Told, &bytes) {
            Some(true) => Sent::Taken,
            Some(false) => Sent::Full,
            None => Sent::Lost,
        }
    }

    fn follow(&mut self, _: &str) {}

    fn unfollow(&mut self, _: &str) {}

    fn report(&mut self, notice: Notice<'_>) {
        if let Notice::Subscribed { uri, channel } = notice {
            self.subscribed.push((uri.to_string(), channel.to_string()));
        }
        // A call that got no answer is repeated when the link to the handler ends.
        let wrong = matches!(notice, Notice::Violation(..) | Notice::HeldAlready(_));
        assert!(!wrong || !self.strict, "{notice}");
        if notice.level() == Level::Warning && std::env::var_os("SIMULATION_LOG").is_some() {
            eprintln!("handler: {notice}");
        }
    }
}

macro_rules! outputs {
    ($this:ident, $net:ident) => {
        Outputs {
            name: &$this.name,
            peers: &$this.peers,
            subscribed: &mut $this.subscribed,
            net: $net,
            writer: Writer::new(1024),
            strict: $this.strict,
        }
    };
}

impl Handler {
    /// A handler that asks so many frontends for what its predecessor held, and reads what that has left for it in a file.
    pub fn new(name: &[u8], frontends: usize, file: &[u8], strict: bool, now: Instant) -> Self {
        let limits = Limits {
            subscriptions: 20,
            records: true,
            unbuffer_streams: false,
            linger: Duration::from_secs(1),
            queue_bytes: QUEUE,
            queue_time: QUEUE_TIME,
            message_rate: None,
            message_hwm: None,
            message_block_size: None,
            message_wait: Duration::from_secs(5),
            id_cache_ttl: Duration::from_secs(60),
            id_cache_max: 1_000,
            update_on_first_subscription: settings::FirstSubscription::Reliable,
            link_requests: 100,
            gone_requests: 100,
            filter_requests: 10,
            filter_messages: 100,
            filter_bytes: 100_000,
        };
        let mut engine = Engine::new(limits, now);
        if frontends > 0 {
            engine.expect_websockets(now + RECOVER_WAIT);
        }
        Handler {
            name: name.to_vec(),
            engine,
            peers: Peers::default(),
            recovering: Recovering::new(frontends, now),
            arrears: Arrears::read(file),
            frontends: BTreeSet::new(),
            subscribed: Vec::new(),
            sockets: BTreeMap::new(),
            awaits_names: false,
            is_told: false,
            has_been_told: false,
            owes_proxy: false,
            proxy_behind_since: None,
            unsent_since: None,
            is_blind: false,
            next_second: now,
            strict,
        }
    }

    /// Requests that are held.
    pub fn held(&self) -> usize {
        self.engine.held()
    }

    /// Whether nothing is published or accepted yet.
    pub fn is_recovering(&self) -> bool {
        self.recovering.is_under_way()
    }

    /// The proxy says something about WebSockets. Gives those that are subscribed now.
    pub fn on_control(&mut self, message: &[u8], now: Instant, net: &mut Net) -> Vec<Subscribed> {
        let packet = ws_control::Packet::decode(message).expect("the proxy sends packets");
        if let Some(proxy) = packet.from.as_deref().and_then(|from| self.peers.intern(from)) {
            self.engine.note_sent_to_sockets(proxy, &packet.marks, now);
        }
        self.subscribed.clear();
        let cx = &mut outputs!(self, net);
        self.engine.on_control(&packet, &mut Context::new(now, cx));
        if packet.named_all {
            // What a proxy that has gone says last is about itself.
            if packet.from.as_deref() == cx.net.name(Part::Proxy) {
                (self.awaits_names, self.is_told, self.has_been_told) = (false, true, true);
            }
            if self.recovering.on_all_named(&mut self.engine, &mut Context::new(now, cx)) {
                cx.control(&ws_control::Packet { takes_up: true, ..ws_control::Packet::default() });
            }
        }
        self.end_recovery(now, net);
        packet.items.iter().filter_map(|item| self.subscription(item)).collect()
    }

    /// A WebSocket that has been subscribed because of this item.
    fn subscription(&mut self, item: &ws_control::Item<'_>) -> Option<Subscribed> {
        if let (Kind::Here, Some(uri)) = (item.kind, &item.uri) {
            self.sockets.insert(item.cid.to_vec(), String::from_utf8_lossy(uri).into_owned());
        }
        let message = item.message.as_ref().filter(|_| item.kind == Kind::Grip)?;
        let Ok(Control::Subscribe { channel, .. }) = Control::read(message) else { return None };
        let uri = self.sockets.get(&*item.cid)?;
        let is_subscribed = self.subscribed.iter().any(|(of, to)| of == uri && **to == *channel);
        let cid = String::from_utf8_lossy(&item.cid).into_owned();
        // A backend over HTTP is told the name of the suite, others only what is unique in the path.
        let tag = uri.rsplit_once('?').map(|(_, tag)| tag.to_string()).filter(|_| uri.contains("/direct/"));
        is_subscribed.then(|| Subscribed {
            name: tag.unwrap_or_else(|| cid.clone()),
            cid,
            channel: channel.to_string(),
        })
    }

    /// Whether something that was published is lost for WebSockets if it dies now: it waits here for a successor of the proxy to name
    /// them, or for the proxy to keep up.
    pub fn has_untold(&self, net: &Net) -> bool {
        let waits = self.awaits_names
            || net.name(Part::Proxy).is_none()
            || net.is_of_the_dead(Part::Proxy, Part::Handler, Lane::Told);
        waits || self.owes_proxy && net.untold() > 0
    }

    /// Whether a proxy has named all WebSockets to it, and so what a predecessor had sent them.
    pub fn has_been_told(&self) -> bool {
        self.has_been_told
    }

    /// WebSockets that it knows.
    pub fn websockets(&self) -> usize {
        self.engine.websockets()
    }

    /// The link to the proxy has ended by which it is told of WebSockets. What it has got nothing of is not for its successor, who
    /// does not know them yet.
    fn on_control_left(&mut self, now: Instant, net: &mut Net) {
        if self.engine.goes_on_without_proxy() {
            self.engine.flush(&mut Context::new(now, &mut outputs!(self, net)));
            net.take_unsent(Part::Handler, Part::Proxy, Lane::Told);
            self.engine.proxy_left();
            self.awaits_names = true;
        }
        self.is_told = false;
    }

    /// The file that it leaves for a successor.
    pub fn file(&self) -> Vec<u8> {
        self.arrears.file()
    }

    /// Names of the frontends that have not got everything.
    fn behind(&self, net: &Net) -> Vec<Vec<u8>> {
        let name = |part: &Part| net.name(*part).map(<[u8]>::to_vec);
        let waits = |name: &[u8]| self.peers.find(name).is_some_and(|peer| self.engine.waits_for_room(peer));
        let linked = self.frontends.iter().filter_map(|part| Some((part, name(part)?)));
        linked.filter(|(part, name)| net.overflow(**part) > 0 || waits(name)).map(|(_, name)| name).collect()
    }

    /// Whether publishers get their answers, as they do when all has left or they have waited for long enough. The worker does the
    /// same.
    pub fn acknowledges(&mut self, now: Instant, net: &Net) -> bool {
        let untold = net.untold() > 0;
        let behind_proxy = self.engine.goes_on_without_proxy() && untold;
        if !behind_proxy && !self.engine.waits_for_names() {
            self.proxy_behind_since = None;
        } else if now < *self.proxy_behind_since.get_or_insert(now) + PROXY_PATIENCE {
            return false;
        }
        let behind = self.behind(net);
        if behind.is_empty() && !untold {
            self.unsent_since = None;
        } else if now < *self.unsent_since.get_or_insert(now) + STALLED {
            return false;
        }
        self.owes_proxy = untold;
        for name in &behind {
            self.arrears.add_waiting(name);
        }
        true
    }

    /// When publishers have waited for long enough.
    pub fn patience_due(&self) -> Option<Instant> {
        let proxy = self.proxy_behind_since.map(|since| since + PROXY_PATIENCE);
        proxy.into_iter().chain(self.unsent_since.map(|since| since + STALLED)).min()
    }

    /// The link to a frontend is cut.
    pub fn cut(&mut self, part: Part, now: Instant, net: &mut Net) {
        let Some(name) = net.name(part).map(<[u8]>::to_vec) else { return };
        self.arrears.add_cut(&name);
        net.cut(Part::Handler, part);
        for lane in [Lane::Stream, Lane::Published] {
            self.on_left(part, &name, lane, now, net);
        }
    }

    /// Clients that have been closed because they were slow, or something waited for them with a predecessor.
    pub fn closed(&self) -> u64 {
        let totals = self.engine.totals();
        totals.behind + totals.refused + totals.slow_closed + totals.lost
    }

    /// Requests of predecessors that it went on with.
    pub fn taken_up(&self) -> u64 {
        self.engine.totals().taken_up
    }

    /// Ends each event.
    fn end_recovery(&mut self, now: Instant, net: &mut Net) {
        let has_proxy = net.name(Part::Proxy).is_some();
        if self.recovering.end(has_proxy, &mut self.engine, &mut Context::new(now, &mut outputs!(self, net))) {
            self.recovering.note_heard(&mut self.arrears, &self.peers);
            self.is_blind = !self.is_told;
        }
    }

    /// A call of the proxy; gives the answer.
    pub fn on_call(&mut self, lane: Lane, message: &[u8], now: Instant, net: &mut Net) {
        let call = Call::decode(message).expect("the proxy sends calls");
        // An answer to one that is gone is sent, for all that can be seen here.
        let reply = |answer: &[u8], net: &mut Net| {
            net.is_of_the_dead(Part::Proxy, Part::Handler, lane)
                || net.send(Part::Handler, Part::Proxy, lane, answer).is_some()
        };
        if lane == Lane::Inspect {
            let inspected = rpc::inspect::Inspected { inspect_again: Some(1_000), ..Default::default() };
            reply(&success(call.id, &inspected).expect("it is flat"), net);
            return;
        }
        let (answer, prepared) = self.decide(&call, now, net);
        // The proxy must hear that the requests are ours before any frontend hears of us.
        if reply(&answer, net)
            && let Some(prepared) = prepared
        {
            self.engine.take_over(prepared, &mut Context::new(now, &mut outputs!(self, net)));
        }
    }

    fn decide(&mut self, call: &Call<'_>, now: Instant, net: &mut Net) -> (Vec<u8>, Option<Prepared>) {
        let accept = Accept::read(call.args, &mut self.peers).expect("the proxy sends good arguments");
        let response = accept.response.clone();
        let instruct = match Instruct::read(response.backend()) {
            Ok(instruct) => instruct,
            Err(error) => return (failure(call.id, "bad-format", Some(&error.to_string())), None),
        };
        match self.engine.decide(accept, &instruct, &mut Context::new(now, &mut outputs!(self, net))) {
            Decision::Hold(prepared) => (success(call.id, &accept::accepted()).expect("it is flat"), Some(prepared)),
            _ => (failure(call.id, "bad-format", None), None),
        }
    }

    /// A packet of a frontend.
    pub fn on_packet(&mut self, message: &[u8], now: Instant, net: &mut Net) {
        let packet = Packet::decode(message).expect("frontends send packets");
        if let Some(peer) = self.peers.find(packet.from) {
            self.engine.on_packet(peer, &packet, &mut Context::new(now, &mut outputs!(self, net)));
        }
    }

    /// A response to a request of its own.
    pub fn on_response(&mut self, message: &[u8], now: Instant, net: &mut Net) {
        let packet = Packet::decode(message).expect("the proxy sends packets");
        let from = self.peers.intern(packet.from);
        self.engine.on_proxy_packet(from, &packet, &mut Context::new(now, &mut outputs!(self, net)));
    }

    /// A link to the proxy has ended.
    pub fn on_proxy_left(&mut self, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if lane == Lane::Told {
            self.on_control_left(now, net);
        }
        if let Some(peer) = self.peers.find(name).filter(|_| lane == Lane::Stream) {
            self.engine.on_proxy_gone(peer, &mut Context::new(now, &mut outputs!(self, net)));
        }
    }

    /// A frontend tells what it has kept of a predecessor.
    pub fn on_kept(&mut self, from: &[u8], message: &[u8], now: Instant, net: &mut Net) {
        let frontend = self.peers.intern(from).expect("names are short");
        let told = Told::read(message, &mut self.peers).expect("frontends tell what can be read");
        let cx = &mut outputs!(self, net);
        let trusted = self.arrears.trusts(from);
        if self.recovering.on_told(frontend, trusted, told, &mut self.engine, &mut Context::new(now, cx)) {
            self.arrears.on_heard(from);
        }
        self.end_recovery(now, net);
    }

    /// A frontend is there, as the ROUTER sees it, or can be asked, as its subscription says.
    pub fn on_joined(&mut self, from: Part, name: &[u8], lane: Lane, net: &mut Net) {
        if lane == Lane::Stream {
            self.frontends.insert(from);
        }
        let Some(frontend) = self.peers.intern(name) else { return };
        let change = if lane == Lane::Stream { Change::Linked } else { Change::Able };
        if self.recovering.on_change(frontend, change)
            && let Some(part) = net.part(name)
        {
            net.tell(Part::Handler, part, Recovering::question());
        }
    }

    /// A frontend is gone, as the ROUTER or the PUB socket sees it.
    pub fn on_gone(&mut self, from: Part, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if lane == Lane::Stream {
            self.arrears.on_gone(name);
        }
        self.on_left(from, name, lane, now, net);
    }

    fn on_left(&mut self, from: Part, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if lane == Lane::Stream {
            self.frontends.remove(&from);
        }
        if let Some(frontend) = self.peers.intern(name) {
            let change = if lane == Lane::Stream { Change::Lost } else { Change::NotAble };
            self.recovering.on_change(frontend, change);
        }
        if let Some(peer) = self.peers.find(name) {
            let address = Address { peer, by_router: lane == Lane::Stream };
            self.engine.on_peer_gone(address, &mut Context::new(now, &mut outputs!(self, net)));
        }
    }

    /// A frontend takes packets again.
    pub fn on_room(&mut self, name: &[u8], now: Instant, net: &mut Net) {
        if let Some(peer) = self.peers.find(name) {
            self.engine.on_room(peer, &mut Context::new(now, &mut outputs!(self, net)));
        }
    }

    /// Publishes items; the last call of a turn.
    pub fn publish(&mut self, items: &[String], now: Instant, net: &mut Net) {
        let cx = &mut outputs!(self, net);
        for item in items {
            let item = grip::item::from_message(item.as_bytes(), None).expect("items are good");
            self.engine.publish(item, &mut Context::new(now, cx));
        }
        self.engine.flush(&mut Context::new(now, cx));
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.engine.next_due().into_iter().chain([self.next_second]).chain(self.recovering.next_due()).min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net) {
        let cx = &mut outputs!(self, net);
        self.engine.on_timer(&mut Context::new(now, cx));
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.engine.expire_sequences(&mut Context::new(now, cx));
        }
        self.end_recovery(now, net);
        let behind = self.behind(net);
        self.arrears.settle(|name| behind.iter().any(|other| other == name));
    }
}
