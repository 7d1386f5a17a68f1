//! The table of exchanges, and which of them a packet is for. No I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use process::Limited;
use routes::Table;
use slab::Slab;
use tnetstring::Writer;
use zhttp::{ACK_DELAY, Bulk, Id, Ids, Kind, Packet, PeerId, server};

use crate::context::{Config, Context, Links, Shared};
use crate::exchange::{Exchange, KeepAlive};
use crate::handler::accept::Verdict;
use crate::handler::call::Reply;
use crate::handler::inspect::Inspected;
use crate::handler::retry::Retry;
use crate::request::uri::Uri;
use crate::response::answer::Answer;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(500);

/// All requests under way.
pub struct Engine {
    shared: Shared,
    routes: Arc<Table>,
    exchanges: Slab<Exchange>,
    by_client: HashMap<(PeerId, Id), usize, RandomState>,
    /// Requests that are acknowledged at the given time if nothing was said before: time, place, serial.
    acknowledgements: VecDeque<(Instant, usize, u64)>,
    next_sweep: Option<Instant>,
    /// What the clock showed when the engine was told the time in seconds since 1970.
    epoch: (Instant, u64),
    warnings: Limited,
}

impl Engine {
    /// An engine with nothing to do. `unix` is `now` in seconds since 1970.
    pub fn new(instance: &str, config: Config, routes: Arc<Table>, now: Instant, unix: u64) -> Self {
        Engine {
            shared: Shared::new(instance, config),
            routes,
            exchanges: Slab::new(),
            by_client: HashMap::default(),
            acknowledgements: VecDeque::new(),
            next_sweep: None,
            epoch: (now, unix),
            warnings: Limited::default(),
        }
    }

    /// Whether another request may be taken.
    pub fn has_room(&self) -> bool {
        self.exchanges.len() < self.shared.config.max_open_requests
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Uses other routes from now on. Requests under way keep theirs.
    pub fn set_routes(&mut self, routes: Arc<Table>) {
        self.routes = routes;
        self.shared.signatures.forget_routes();
    }

    /// Tells the time in seconds since 1970 again, in case the system's clock was set.
    pub fn set_time(&mut self, now: Instant, unix: u64) {
        self.epoch = (now, unix);
    }

    fn unix(&self, now: Instant) -> u64 {
        self.epoch.1 + now.saturating_duration_since(self.epoch.0).as_secs()
    }

    /// Takes in the first packet of a request.
    pub fn request(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return self.warnings.warn("request", now, format_args!("skipping a request: {error}")),
        };
        let Some(peer) = self.shared.peers.intern(packet.from) else {
            return self.warnings.warn("request", now, "skipping a request whose sender is not named");
        };
        let Some((id, _)) = packet.ids.single() else {
            return self.warnings.warn("request", now, "skipping a request without exactly one id");
        };
        let websocket = packet.uri.and_then(Uri::parse).is_some_and(|uri| uri.scheme.is_websocket());
        let session = match server::Session::open(&packet, peer, now) {
            Ok(session) if packet.stream || websocket => session,
            result => {
                let reason = result.err().map_or_else(|| "it can't take a stream".to_string(), |e| e.to_string());
                self.warnings.warn("request", now, format_args!("refusing a request: {reason}"));
                let error = Packet { kind: Kind::Error, condition: Some(b"bad-request"), ..Packet::default() };
                return self.reply(&packet, id, Some(0), error, out);
            }
        };
        let Some(uri) = packet.uri.and_then(Uri::parse).filter(|_| !self.by_client.contains_key(&(peer, session.id)))
        else {
            self.warnings.warn("request", now, "refusing a request with an unusable address or an id that is in use");
            return self.reply(&packet, id, None, Packet { kind: Kind::Cancel, ..Packet::default() }, out);
        };
        if websocket {
            return self.refuse_websocket(&packet, id, out);
        }
        let index =
            self.insert(|index, serial| Exchange::new(index, serial, session, message, &packet, uri.scheme, now));
        if !packet.more {
            self.acknowledgements.push_back((now + ACK_DELAY, index, self.exchanges[index].serial()));
        }
        let routes = self.routes.clone();
        self.with_exchange(index, now, out, |exchange, context| exchange.begin(&packet, &uri, &routes, context));
    }

    fn reply(&self, request: &Packet<'_>, id: &[u8], seq: Option<u32>, packet: Packet<'_>, out: &mut dyn Links) {
        let packet = Packet { from: &self.shared.instance, ids: Ids::One(id, seq), ..packet };
        out.to_client(request.from, request.router_resp && packet.kind != Kind::Error, &packet);
    }

    fn refuse_websocket(&self, request: &Packet<'_>, id: &[u8], out: &mut dyn Links) {
        let answer = Answer::no_websocket();
        let body = format!("{}\n", answer.text);
        let headers: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"text/plain")];
        let packet = Packet {
            from: &self.shared.instance,
            ids: Ids::One(id, Some(0)),
            kind: Kind::Error,
            condition: Some(b"rejected"),
            code: Some(answer.code),
            reason: Some(answer.reason.as_bytes()),
            headers: zhttp::Headers::Pairs(&headers),
            body: body.as_bytes(),
            ..Packet::default()
        };
        out.to_client(request.from, request.router_resp, &packet);
    }

    fn insert(&mut self, make: impl FnOnce(usize, u64) -> Exchange) -> usize {
        let serial = self.shared.serial();
        let entry = self.exchanges.vacant_entry();
        let index = entry.key();
        let exchange = entry.insert(make(index, serial));
        self.by_client.insert((exchange.session().client, exchange.session().id), index);
        index
    }

    /// Lets one exchange do something, and forgets it if that was the last thing.
    fn with_exchange(
        &mut self,
        index: usize,
        now: Instant,
        out: &mut dyn Links,
        act: impl FnOnce(&mut Exchange, &mut Context<'_>),
    ) {
        let unix = self.unix(now);
        self.next_sweep.get_or_insert(now + SWEEP);
        let Some(exchange) = self.exchanges.get_mut(index) else { return };
        act(exchange, &mut Context { shared: &mut self.shared, out, now, unix });
        self.reap(index);
    }

    /// Logs and forgets an exchange that has ended.
    fn reap(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        if !exchange.is_abandoned() {
            return;
        }
        if let Some(outcome) = exchange.take_outcome() {
            exchange.log(outcome, &self.shared);
        }
        let key = (exchange.session().client, exchange.session().id);
        if self.by_client.get(&key) == Some(&index) {
            self.by_client.remove(&key);
        }
        if exchange.is_over() {
            self.exchanges.remove(index);
        }
    }

    /// Takes in a later packet from a client's instance.
    pub fn client_packet(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return self.warnings.warn("client", now, format_args!("skipping a packet: {error}")),
        };
        let Some(peer) = self.shared.peers.find(packet.from) else { return };
        for entry in packet.ids.iter() {
            let Ok((id, seq)) = entry else { continue };
            // Sessions that are over may still be spoken of; that is no error.
            let index = Id::new(id).and_then(|id| self.by_client.get(&(peer, id)).copied());
            if let Some(index) = index {
                self.with_exchange(index, now, out, |exchange, context| exchange.client_packet(&packet, seq, context));
            }
        }
    }

    /// Takes in a packet from the outbound side.
    pub fn origin_packet(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return self.warnings.warn("origin", now, format_args!("skipping a response: {error}")),
        };
        let from = if packet.from.is_empty() { None } else { self.shared.peers.intern(packet.from) };
        for entry in packet.ids.iter() {
            let Ok((id, seq)) = entry else { continue };
            let Some((index, serial)) = Id::parse_indexed(id) else { continue };
            let index = index as usize;
            if self.exchanges.get(index).is_some_and(|exchange| exchange.is_origin(serial)) {
                self.with_exchange(index, now, out, |exchange, context| {
                    exchange.origin_packet(&packet, from, seq, context)
                });
            }
        }
    }

    /// Takes in an answer to an `inspect` call.
    pub fn inspect_reply(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let reply = match Reply::decode(message) {
            Ok(reply) => reply,
            Err(error) => return self.warnings.warn("inspect", now, format_args!("skipping an answer: {error}")),
        };
        let inspected = reply.result.ok().and_then(|value| Inspected::parse(value).ok());
        self.shared.availability.answered(inspected.as_ref().and_then(|inspected| inspected.again), now);
        if let Some((index, serial)) = Id::parse_indexed(reply.id)
            && self.exchanges.get(index as usize).is_some_and(|exchange| exchange.awaits_inspect(serial))
        {
            self.with_exchange(index as usize, now, out, |exchange, context| exchange.inspected(inspected, context));
        }
    }

    /// Takes in an answer to an `accept` call.
    pub fn accept_reply(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let reply = match Reply::decode(message) {
            Ok(reply) => reply,
            Err(error) => return self.warnings.warn("accept", now, format_args!("skipping an answer: {error}")),
        };
        if let Some((index, serial)) = Id::parse_indexed(reply.id)
            && self.exchanges.get(index as usize).is_some_and(|exchange| exchange.awaits_accept(serial))
        {
            let verdict = Verdict::parse(&reply);
            self.with_exchange(index as usize, now, out, |exchange, context| exchange.accepted(&verdict, context));
        }
    }

    /// Takes in requests that the handler gives back.
    pub fn retry(&mut self, message: &[u8], now: Instant, out: &mut dyn Links) {
        let retry = match Retry::decode(message, &mut self.shared.peers) {
            Ok(retry) => retry,
            Err(error) => return self.warnings.warn("retry", now, format_args!("skipping a retry: {error}")),
        };
        let Some(uri) = Uri::parse(retry.uri) else {
            return self.warnings.warn("retry", now, "skipping a retry with an unusable address");
        };
        let routes = self.routes.clone();
        for client in &retry.clients {
            let key = (client.session.client, client.session.id);
            if self.by_client.contains_key(&key) {
                self.warnings.warn("retry", now, "skipping a retry of a request that is under way");
                continue;
            }
            // Kept in the form of a first packet, as if the client had just sent it.
            let packet = Packet {
                method: Some(retry.method),
                uri: Some(retry.uri),
                headers: retry.headers,
                body: retry.body,
                user_data: client.user_data,
                peer_address: client.peer_address,
                ..Packet::default()
            };
            let mut writer = Writer::new(retry.body.len() + 1024);
            let message = packet.encode(None, &mut writer);
            let session = server::Session::take_over(&client.session, now);
            let index =
                self.insert(|index, serial| Exchange::new(index, serial, session, message, &packet, uri.scheme, now));
            self.with_exchange(index, now, out, |exchange, context| {
                exchange.begin_again(&packet, &uri, client, &retry, &routes, context);
            });
        }
    }

    /// An instance that had clients is gone.
    pub fn client_instance_left(&mut self, name: &[u8], now: Instant, out: &mut dyn Links) {
        let Some(peer) = self.shared.peers.find(name) else { return };
        let of_peer: Vec<usize> =
            self.by_client.iter().filter(|((owner, _), _)| *owner == peer).map(|(_, index)| *index).collect();
        for index in of_peer {
            self.with_exchange(index, now, out, Exchange::client_left);
        }
    }

    /// Whether a connection, `<instance>:<id>`, has a request under way.
    pub fn has_connection(&self, connection: &[u8]) -> bool {
        let Some(colon) = connection.iter().position(|&b| b == b':') else { return false };
        let peer = self.shared.peers.find(&connection[..colon]);
        let id = Id::new(&connection[colon + 1..]);
        peer.zip(id).is_some_and(|key| self.by_client.contains_key(&key))
    }

    /// When [`Engine::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sweep = self.next_sweep.filter(|_| !self.exchanges.is_empty());
        let acknowledgement = self.acknowledgements.front().map(|(due, ..)| *due);
        [sweep, acknowledgement].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, out: &mut dyn Links) {
        while let Some(&(due, index, serial)) = self.acknowledgements.front() {
            if due > now {
                break;
            }
            self.acknowledgements.pop_front();
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial() == serial) {
                self.with_exchange(index, now, out, Exchange::acknowledge);
            }
        }
        if self.next_sweep.is_some_and(|due| due <= now) {
            self.next_sweep = None;
            self.sweep(now, out);
        }
    }

    /// Looks at every exchange. There are few: what is held is the handler's.
    fn sweep(&mut self, now: Instant, out: &mut dyn Links) {
        let mut clients: Bulk<bool> = Bulk::default();
        let mut origins: Bulk<()> = Bulk::default();
        let indexes: Vec<usize> = self.exchanges.iter().map(|(index, _)| index).collect();
        let mut alone = Vec::new();
        for index in indexes {
            self.with_exchange(index, now, out, |exchange, context| {
                exchange.tick(context, &mut |keep_alive| match keep_alive {
                    KeepAlive::Client { peer, id, seq, by_router, multi: true } => {
                        clients.push(peer, by_router, id, seq)
                    }
                    KeepAlive::Client { peer, id, seq, by_router, multi: false } => {
                        alone.push((peer, id, seq, by_router));
                    }
                    KeepAlive::Origin { peer, id, seq } => origins.push(peer, (), id, seq),
                });
            });
        }
        let shared = &self.shared;
        let packet = Packet { from: &shared.instance, kind: Kind::KeepAlive, ..Packet::default() };
        for (peer, id, seq, by_router) in alone {
            out.to_client(
                shared.peers.name(peer),
                by_router,
                &Packet { ids: Ids::One(id.as_bytes(), Some(seq)), ..packet },
            );
        }
        clients
            .drain(|peer, by_router, ids| out.to_client(shared.peers.name(peer), by_router, &Packet { ids, ..packet }));
        origins.drain(|peer, (), ids| out.to_origin(shared.peers.name(peer), &Packet { ids, ..packet }));
    }

    /// Tells everybody that the proxy stops, and forgets everything.
    pub fn stop(&mut self, now: Instant, out: &mut dyn Links) {
        let indexes: Vec<usize> = self.exchanges.iter().map(|(index, _)| index).collect();
        for index in indexes {
            self.with_exchange(index, now, out, Exchange::stop);
        }
    }
}
