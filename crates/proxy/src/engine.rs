// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of exchanges, and which of them a packet is for. No I/O, no clock, no log.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod departed;
mod peers;
mod polls;
mod recovering;
mod sharing;
mod timers;

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use routes::Table;
use rpc::Reply;
use rpc::inspect::Inspected;
use rpc::passthrough::Passthrough;
use rpc::retry::Retry;
use slab::Slab;
use tnetstring::Writer;
use zhttp::session::server;
use zhttp::{INITIAL_BODY, Id, Ids, Kind, Packet, PeerId, Wheel};

use crate::context::{Clients, Config, Context, Links, Note, Shared, Way};
use crate::exchange::Exchange;
use crate::handler::accept::Verdict;
use crate::request::uri::Uri;
use crate::sockjs::table::Event;
use crate::statistics::Statistics;
use crate::{sharing as shared_requests, sockjs, websocket};

/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(5);

/// All requests under way.
pub struct Engine {
    shared: Shared,
    routes: Arc<Table>,
    exchanges: Slab<Entry>,
    websockets: websocket::table::Table,
    polls: sockjs::table::Table,
    groups: shared_requests::table::Table,
    /// What comes up for groups waits: for what is being done for them, or for keep-alives whose numbers are taken already.
    groups_wait: bool,
    by_client: HashMap<(PeerId, Id), usize, RandomState>,
    timers: Wheel<Timer>,
    departed: departed::Departed,
    /// What the clock showed when the engine was told the time in seconds since 1970.
    epoch: (Instant, u64),
}

struct Entry {
    exchange: Exchange,
    /// When the timer of the exchange comes up. Others of it in the wheel are stale.
    timer: Option<Instant>,
}

/// A deadline of the exchange that was in this place.
struct Timer {
    index: usize,
    serial: u64,
    due: Instant,
}

impl Engine {
    /// An engine with nothing to do. `unix` is `now` in seconds since 1970.
    pub fn new(instance: &str, config: Config, routes: Arc<Table>, now: Instant, unix: u64) -> Self {
        let limit = websocket::slow::Limit { bytes: config.session_queue_bytes, time: config.session_queue_time };
        Engine {
            websockets: websocket::table::Table::new(limit, now),
            polls: sockjs::table::Table::new(config.max_open_requests, config.max_message_size, now),
            groups: shared_requests::table::Table::new(config.session_queue_bytes, config.session_queue_time),
            groups_wait: false,
            shared: Shared::new(instance, config),
            routes,
            exchanges: Slab::new(),
            by_client: HashMap::default(),
            timers: Wheel::new(TICK, now),
            departed: departed::Departed::default(),
            epoch: (now, unix),
        }
    }

    /// Whether another request may be taken.
    pub fn has_room(&self) -> bool {
        self.len() < self.shared.config.max_open_requests
    }

    /// Requests of clients and handlers under way, and WebSockets.
    pub fn len(&self) -> usize {
        (self.exchanges.len() + self.websockets.len()).saturating_sub(self.groups.count())
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the WebSockets do something.
    fn with_websockets<R>(
        &mut self,
        now: Instant,
        links: &mut dyn Links,
        act: impl FnOnce(&mut websocket::table::Table, &mut Context<'_>) -> R,
    ) -> R {
        let unix = self.unix(now);
        let mut kept = polls::Kept { links, packets: Vec::new() };
        let result = act(&mut self.websockets, &mut Context { shared: &mut self.shared, links: &mut kept, now, unix });
        self.shared.polls.extend(kept.packets.into_iter().map(Event::Packet));
        self.work_on_polls(now, links);
        result
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

    /// Takes in the first packet of a request of a client.
    pub fn request(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        self.first_packet(message, false, now, links);
    }

    /// Takes in the first packet of a request that a handler has made itself.
    pub fn internal_request(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        self.first_packet(message, true, now, links);
    }

    fn first_packet(&mut self, message: &[u8], internal: bool, now: Instant, links: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return malformed(links, "request", format_args!("skipping a request: {error}")),
        };
        let Some(peer) = self.shared.peers.intern(packet.from) else {
            return malformed(links, "request", "skipping a request whose sender is not named");
        };
        let Some((id, _)) = packet.ids.single() else {
            return malformed(links, "request", "skipping a request without exactly one id");
        };
        let uri = packet.uri.and_then(Uri::parse);
        let websocket = uri.is_some_and(|uri| uri.scheme.is_websocket());
        let session = match server::Session::open(&packet, peer, INITIAL_BODY as u32, now) {
            Ok(session) if packet.stream || websocket => session,
            result => {
                let reason = result.err().map_or_else(|| "it can't take a stream".to_string(), |e| e.to_string());
                malformed(links, "request", format_args!("refusing a request: {reason}"));
                let error = Packet { kind: Kind::Error, condition: Some(b"bad-request"), ..Packet::default() };
                return self.reply(&packet, internal, id, Some(0), error, links);
            }
        };
        let key = (peer, session.id());
        let in_use = self.by_client.contains_key(&key) || self.websockets.has_client(&key);
        let Some(uri) = uri.filter(|_| !in_use) else {
            malformed(links, "request", "refusing a request with an unusable address or an id that is in use");
            let cancel = Packet { kind: Kind::Cancel, ..Packet::default() };
            return self.reply(&packet, internal, id, None, cancel, links);
        };
        let passthrough = match packet.passthrough.filter(|_| internal).map(Passthrough::decode).transpose() {
            Ok(passthrough) if passthrough.is_some() == internal && !(internal && websocket) => passthrough,
            _ => {
                malformed(
                    links,
                    "internal",
                    "refusing a request of the handler that does not say for which route it is",
                );
                let error = Packet { kind: Kind::Error, condition: Some(b"bad-request"), ..Packet::default() };
                return self.reply(&packet, internal, id, Some(0), error, links);
            }
        };
        let routes = self.routes.clone();
        if websocket {
            return self.with_websockets(now, links, |websockets, context| {
                websockets.open(session, &packet, uri.scheme, context, |relay, scene| {
                    relay.begin(&packet, &uri, &routes, scene);
                    relay.note_arrival(&packet, scene);
                });
            });
        }
        let index =
            self.insert(|index, serial| Exchange::new(index, serial, session, message, &packet, uri.scheme, now));
        self.with_exchange(index, now, links, |exchange, context| match &passthrough {
            None => {
                exchange.begin(&packet, &uri, &routes, context);
                exchange.note_arrival(&packet, context);
            }
            Some(passthrough) => exchange.begin_internal(&packet, &uri, passthrough, &routes, context),
        });
    }

    fn reply(
        &self,
        request: &Packet<'_>,
        internal: bool,
        id: &[u8],
        seq: Option<u32>,
        packet: Packet<'_>,
        links: &mut dyn Links,
    ) {
        let packet = Packet { from: &self.shared.instance, ids: Ids::One(id, seq), ..packet };
        Way { internal, by_router: request.router_resp }.send(request.from, &packet, links);
    }

    fn insert(&mut self, make: impl FnOnce(usize, u64) -> Exchange) -> usize {
        let serial = self.shared.serial();
        let vacant = self.exchanges.vacant_entry();
        let index = vacant.key();
        let exchange = make(index, serial);
        self.by_client.insert(exchange.client_key(), index);
        vacant.insert(Entry { exchange, timer: None });
        index
    }

    /// Lets one exchange do something, and forgets it if that was the last thing.
    fn with_exchange(
        &mut self,
        index: usize,
        now: Instant,
        links: &mut dyn Links,
        act: impl FnOnce(&mut Exchange, &mut Context<'_>),
    ) {
        let unix = self.unix(now);
        let Some(entry) = self.exchanges.get_mut(index) else { return };
        let exchange = &mut entry.exchange;
        let context = &mut Context { shared: &mut self.shared, links, now, unix };
        act(exchange, context);
        exchange.end_refused(context);
        if let Some(outcome) = exchange.take_outcome() {
            exchange.note_end(outcome, context);
            exchange.log(outcome, context);
        }
        if exchange.is_abandoned() {
            let key = exchange.client_key();
            if self.by_client.get(&key) == Some(&index) {
                self.by_client.remove(&key);
            }
        }
        match exchange.next_due() {
            None => {
                self.exchanges.remove(index);
            }
            // One that comes up too early is put in again then; that happens once, not each time a deadline moves back.
            Some(due) if entry.timer.is_none_or(|timer| due < timer) => {
                entry.timer = Some(due);
                self.timers.insert(Timer { index, serial: exchange.serial(), due }, due);
            }
            Some(_) => {}
        }
        self.work_on_polls(now, links);
        self.work_on_groups(now, links);
    }

    /// Takes in a later packet from a client's instance.
    pub fn client_packet(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return malformed(links, "client", format_args!("skipping a packet: {error}")),
        };
        let Some(peer) = self.shared.peers.find(packet.from) else { return };
        for entry in packet.ids.iter() {
            let Ok((id, seq)) = entry else { continue };
            // Sessions that are over may still be spoken of; that is no error.
            let Some(key) = Id::new(id).map(|id| (peer, id)) else { continue };
            match self.by_client.get(&key).copied() {
                Some(index) => self.with_exchange(index, now, links, |exchange, context| {
                    exchange.client_packet(&packet, seq, context);
                }),
                None => self.with_websockets(now, links, |websockets, context| {
                    websockets.client_packet(&key, &packet, seq, context);
                }),
            }
        }
    }

    /// Takes in a packet from the outbound side.
    pub fn origin_packet(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return malformed(links, "origin", format_args!("skipping a response: {error}")),
        };
        let from = if packet.from.is_empty() { None } else { self.shared.peers.intern(packet.from) };
        for entry in packet.ids.iter() {
            let Ok((id, seq)) = entry else { continue };
            let Some((index, serial)) = Id::parse_indexed(id) else { continue };
            let of_websocket = self.with_websockets(now, links, |websockets, context| {
                websockets.origin_packet((index, serial), &packet, from, seq, context)
            });
            if of_websocket {
                continue;
            }
            let index = index as usize;
            if self.exchanges.get(index).is_some_and(|entry| entry.exchange.is_origin(serial)) {
                self.with_exchange(index, now, links, |exchange, context| {
                    exchange.origin_packet(&packet, from, seq, context);
                });
            } else if packet.kind == Kind::KeepAlive || (packet.kind == Kind::Data && packet.more) {
                // Of a request that has been given up before it was taken: nobody wants to hear the rest.
                let cancel = Packet { kind: Kind::Cancel, ids: Ids::One(id, None), ..Packet::default() };
                links.to_origin(packet.from, &Packet { from: &self.shared.instance, ..cancel });
            }
        }
        if let Some(peer) = from {
            self.departed.heard(peer, now);
        }
    }

    /// Takes in an answer to an `inspect` call.
    pub fn inspect_reply(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        let reply = match Reply::decode(message) {
            Ok(reply) => reply,
            Err(error) => return malformed(links, "inspect", format_args!("skipping an answer: {error}")),
        };
        let inspected = reply.result.ok().and_then(|value| tnetstring::from_item::<Inspected<'_>>(value).ok());
        let again = inspected.as_ref().and_then(|inspected| inspected.inspect_again).map(Duration::from_millis);
        self.shared.availability.answered(again, now);
        if let Some((index, serial)) = Id::parse_indexed(reply.id)
            && self.exchanges.get(index as usize).is_some_and(|entry| entry.exchange.awaits_inspect(serial))
        {
            self.with_exchange(index as usize, now, links, |exchange, context| {
                exchange.inspected(inspected.map(Inspected::into_owned), context);
            });
        }
    }

    /// Takes in an answer to an `accept` call. One that nobody waits for any more is dropped: its client has been answered,
    /// and its frontend says so to the handler as soon as that speaks to it.
    pub fn accept_reply(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        let reply = match Reply::decode(message) {
            Ok(reply) => reply,
            Err(error) => return malformed(links, "accept", format_args!("skipping an answer: {error}")),
        };
        if let Some((index, serial)) = Id::parse_indexed(reply.id)
            && self.exchanges.get(index as usize).is_some_and(|entry| entry.exchange.awaits_accept(serial))
        {
            let verdict = Verdict::parse(&reply);
            self.with_exchange(index as usize, now, links, |exchange, context| exchange.accepted(&verdict, context));
        }
    }

    /// Takes in what a handler says about WebSockets.
    pub fn control_packet(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        self.with_websockets(now, links, |websockets, context| websockets.control_packet(message, context));
    }

    /// The backend of a WebSocket is to be asked again, by the connection's public name. `false`: there is none.
    pub fn refresh(&mut self, cid: &[u8], now: Instant, links: &mut dyn Links) -> bool {
        self.with_websockets(now, links, |websockets, context| websockets.refresh(cid, context))
    }

    /// Takes in requests that the handler gives back.
    pub fn retry(&mut self, message: &[u8], now: Instant, links: &mut dyn Links) {
        let retry = match Retry::decode(message) {
            Ok(retry) => retry,
            Err(error) => return malformed(links, "retry", format_args!("skipping a retry: {error}")),
        };
        let request = &retry.request_data;
        let Some(uri) = Uri::parse(&request.uri) else {
            return malformed(links, "retry", "skipping a retry with an unusable address");
        };
        let routes = self.routes.clone();
        for client in &retry.requests {
            let session = match client.session(&mut self.shared.peers) {
                Ok(session) => session,
                Err(error) => {
                    malformed(links, "retry", format_args!("skipping a retry: {error}"));
                    continue;
                }
            };
            // The answer that the handler has the request may come by its own way after the request itself.
            let key = (session.client, session.id);
            if let Some(&index) = self.by_client.get(&key)
                && self.exchanges.get(index).is_some_and(|entry| entry.exchange.is_given_away())
            {
                self.with_exchange(index, now, links, |exchange, context| {
                    exchange.accepted(&Verdict::Accepted, context);
                });
            }
            if self.by_client.contains_key(&key) {
                malformed(links, "retry", "skipping a retry of a request that is under way");
                continue;
            }
            let user_data = client.user_data.as_ref().and_then(|data| tnetstring::to_vec(data).ok());
            // Kept in the form of a first packet, as if the client had just sent it.
            let packet = Packet {
                method: Some(&request.method),
                uri: Some(&request.uri),
                headers: request.headers.pairs(),
                body: &request.body,
                user_data: user_data.as_deref().and_then(|data| tnetstring::split(data).ok()).map(|(item, _)| item),
                peer_address: client.peer_address.map(str::as_bytes),
                ..Packet::default()
            };
            let mut writer = Writer::new(request.body.len() + 1024);
            let message = packet.encode(None, &mut writer);
            let session = server::Session::take_over(&session, now);
            let index =
                self.insert(|index, serial| Exchange::new(index, serial, session, message, &packet, uri.scheme, now));
            self.with_exchange(index, now, links, |exchange, context| {
                exchange.begin_again(&packet, &uri, client, &retry, &routes, context);
                exchange.note_arrival(&packet, context);
            });
        }
    }

    /// Lets every exchange do something, in the order of the table.
    fn with_all(&mut self, now: Instant, links: &mut dyn Links, mut act: impl FnMut(&mut Exchange, &mut Context<'_>)) {
        let indexes: Vec<usize> = self.exchanges.iter().map(|(index, _)| index).collect();
        for index in indexes {
            self.with_exchange(index, now, links, &mut act);
        }
    }

    /// Whether a connection, `<instance>:<id>`, has a request under way, or is the name of a WebSocket.
    pub fn has_connection(&self, connection: &[u8]) -> bool {
        if self.websockets.has_connection(connection) {
            return true;
        }
        let Some(colon) = connection.iter().position(|&b| b == b':') else { return false };
        let peer = self.shared.peers.find(&connection[..colon]);
        let id = Id::new(&connection[colon + 1..]);
        peer.zip(id).is_some_and(|key| self.by_client.contains_key(&key))
    }

    /// Somebody listens to statistics, or nobody does any more.
    pub fn set_heard(&mut self, heard: bool, now: Instant) {
        if !self.shared.statistics.set_heard(heard) {
            return;
        }
        let all = self.exchanges.len() + self.websockets.len();
        let shared = &mut self.shared;
        let mut number = 0..;
        for (_, entry) in &self.exchanges {
            let id = entry.exchange.connection_id(&shared.peers);
            entry.exchange.with_arrival(&id, &shared.config.rules, |arrival| {
                shared.statistics.meet(&arrival, number.next().unwrap_or(0), all, now)
            });
        }
        for relay in self.websockets.relays() {
            relay.with_arrival(&shared.config.rules, |arrival| {
                shared.statistics.meet(&arrival, number.next().unwrap_or(0), all, now)
            });
        }
    }

    /// Clients that have come so far; those that come again after a hold are not counted twice.
    pub fn arrivals(&self) -> Clients {
        self.shared.arrivals
    }

    /// Clients that are here; those that are held are the handler's.
    pub fn open(&self) -> Clients {
        let http = self.exchanges.len().saturating_sub(self.groups.count());
        Clients { http: http as u64, websockets: self.websockets.len() as u64 }
    }

    /// What handlers are told.
    pub fn statistics(&mut self) -> &mut Statistics {
        &mut self.shared.statistics
    }

    /// Tells everybody that the proxy stops, and forgets everything.
    pub fn stop(&mut self, now: Instant, links: &mut dyn Links) {
        self.with_all(now, links, Exchange::stop);
        self.with_websockets(now, links, websocket::table::Table::stop);
    }
}

fn malformed(links: &mut dyn Links, kind: &'static str, text: impl Display) {
    links.log(&Note::Warning { kind, text: &text });
}
