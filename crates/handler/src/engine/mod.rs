// SPDX-License-Identifier: AGPL-3.0-or-later
//! Joins the stages: what comes from the worker's sockets goes through them in order. No I/O, no clock, no log.
//!
//! Items pass [`order`](crate::order), which decides once for all, then [`deliver`](crate::deliver), which finds the
//! holds. Requests to hold pass [`take_over`](crate::take_over) and become part of the
//! [`audience`](crate::subscribe::audience).
//!
//! `pages` has next links fetched, `inquiries` has filters ask, `updates` decides when backends are asked again,
//! `recovering` hears of the holds of a predecessor, `recovery` goes on with them, `websockets` takes what the proxy tells of
//! WebSockets.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod inquiries;
mod pages;
pub mod recovering;
mod recovery;
mod telling;
mod updates;
mod websockets;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use grip::{HoldMode, Instruct, Item};
use settings::FirstSubscription;
use zhttp::session::server::{self, Due, Outcome};
use zhttp::{Bulk, Ext, Headers, Id, Ids, Kind as PacketKind, Packet, PeerId, Record};

use crate::cohort::Urgency;
use crate::cohort::schedule::Schedule;
use crate::context::{Address, Context, Way};
use crate::deliver::fanout::{self, Fanout};
use crate::deliver::fate::Fate;
use crate::deliver::inquiries::Inquiries;
use crate::deliver::responses::{self, Target};
use crate::deliver::sender::Sender;
use crate::deliver::slow::Slow;
use crate::engine::recovery::Naming;
use crate::fetch::Fetches;
use crate::hold::opening::Opening;
use crate::hold::timers::Timers;
use crate::hold::{Hold, Kind};
use crate::notice::Notice;
use crate::order::dedup::{Dedup, Seen};
use crate::order::owed::Sent;
use crate::order::sequencer::{Pushed, Sequencer};
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::HoldKey;
use crate::take_over::accept::Accept;
use crate::take_over::admission::{Admission, Decision, Prepared};
use crate::take_over::record::PLACE;
use crate::take_over::returned::Returned;

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels that the backend may give one hold.
    pub subscriptions: usize,
    /// Frontends are given what a successor of this handler needs to go on with its holds.
    pub records: bool,
    /// Streams ask proxies in front not to buffer.
    pub unbuffer_streams: bool,
    /// How long a channel's subscription outlives its last long-poll.
    pub linger: Duration,
    /// Bytes that may wait for one client for longer than `queue_time`, with what it takes to keep them.
    pub queue_bytes: usize,
    /// See `queue_bytes`.
    pub queue_time: Duration,
    /// Deliveries a second.
    pub message_rate: Option<u32>,
    /// Deliveries that may wait for one route when the rate is limited.
    pub message_hwm: Option<u32>,
    /// Bytes that count as one delivery; none: every delivery counts as one.
    pub message_block_size: Option<u32>,
    /// How long an item waits for the one before it.
    pub message_wait: Duration,
    /// How long an item's id is remembered.
    pub id_cache_ttl: Duration,
    /// How many are remembered at most.
    pub id_cache_max: usize,
    /// For whom backends are asked again soon after a channel has got its first subscriber.
    pub update_on_first_subscription: FirstSubscription,
    /// Requests for links under way at a time.
    pub link_requests: usize,
    /// Requests for gone links that may wait for their turn.
    pub gone_requests: usize,
    /// Requests of filters under way at a time.
    pub filter_requests: usize,
    /// Messages that may wait for answers to filters.
    pub filter_messages: usize,
    /// Bytes of content that may wait so.
    pub filter_bytes: usize,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Deliveries.
    pub deliveries: fanout::Totals,
    /// Clients closed because too much waited for them.
    pub slow_closed: u64,
    /// Sessions ended because a packet for them could not be sent.
    pub lost: u64,
    /// Sessions ended because their frontend was gone.
    pub frontend_gone: u64,
    /// Items dropped as repetitions.
    pub repeated: u64,
    /// Items dropped because too many wait for others.
    pub out_of_order: u64,
    /// Deliveries dropped because of `message_hwm`.
    pub over_rate: u64,
    /// Ids forgotten before their time.
    pub ids_forgotten: u64,
    /// Holds of a predecessor that were taken up.
    pub taken_up: u64,
    /// Such for which something was lost with it, so that they were ended.
    pub behind: u64,
    /// Such whose record can not be used, or that may have missed a message, so that they were ended.
    pub refused: u64,
    /// Long-polls given back to the proxy.
    pub given_back: u64,
    /// WebSockets forgotten because the proxy had not named them for too long.
    pub websockets_expired: u64,
    /// WebSockets given up because the proxy had not acknowledged a message in time.
    pub websockets_unanswered: u64,
    /// WebSockets given up because the link to the proxy had not taken something for them.
    pub websockets_lost: u64,
    /// Requests for next and gone links, and of filters.
    pub fetches: crate::fetch::Totals,
}

/// See the module.
pub struct Engine {
    admission: Admission,
    dedup: Dedup,
    id_cache_max: usize,
    sequencer: Sequencer,
    /// What a predecessor has sent.
    sent: Sent,
    audience: Audience,
    timers: Timers,
    fanout: Fanout,
    fetches: Fetches,
    schedule: Schedule,
    /// Channels that the backend may give one WebSocket.
    max_channels: usize,
    update_on_first_subscription: FirstSubscription,
    naming: Naming,
    rounds: Rounds,
    returned: Returned,
    totals: Totals,
}

/// Numbers turns in which long-polls are given back.
struct Rounds {
    last: u64,
    at: Instant,
}

impl Rounds {
    /// The number of the turn that is now.
    fn at(&mut self, now: Instant) -> u64 {
        if self.at != now {
            (self.at, self.last) = (now, self.last + 1);
        }
        self.last
    }
}

impl Engine {
    /// An engine that holds nothing.
    pub fn new(limits: Limits, now: Instant) -> Self {
        let sender = Sender::new(Slow::new(limits.queue_bytes, limits.queue_time, now));
        let mut engine = Engine {
            admission: Admission::new(limits.subscriptions, limits.records, limits.unbuffer_streams),
            dedup: Dedup::new(limits.id_cache_ttl, limits.id_cache_max),
            id_cache_max: limits.id_cache_max,
            sequencer: Sequencer::new(limits.message_wait),
            sent: Sent::default(),
            audience: Audience::new(limits.linger, now),
            timers: Timers::new(now),
            fanout: Fanout::new(
                sender,
                limits.message_rate,
                limits.message_hwm,
                limits.message_block_size,
                limits.queue_bytes,
                Inquiries::new(limits.filter_messages, limits.filter_bytes),
            ),
            fetches: Fetches::new(limits.link_requests, limits.gone_requests, limits.filter_requests, now),
            schedule: Schedule::default(),
            max_channels: limits.subscriptions,
            update_on_first_subscription: limits.update_on_first_subscription,
            naming: Naming::default(),
            rounds: Rounds { last: 0, at: now },
            returned: Returned::default(),
            totals: Totals::default(),
        };
        engine.audience.outbox.names_messages = limits.records;
        engine
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        self.audience.holds.len() - self.audience.sockets.lanes()
    }

    /// What happened so far.
    pub fn totals(&self) -> Totals {
        Totals {
            deliveries: self.fanout.totals,
            slow_closed: self.fanout.sender.slow_closed,
            over_rate: self.fanout.over_rate(),
            ids_forgotten: self.dedup.forgotten_early,
            fetches: self.fetches.totals,
            ..self.totals
        }
    }

    /// Decides about a request that the proxy wants to hand over, by the instruct in the backend's response.
    pub fn decide(&mut self, accept: Accept<'_>, instruct: &Instruct<'_>, cx: &mut Context<'_>) -> Decision {
        self.admission.decide(accept, instruct, cx)
    }

    /// Takes the requests over, after the proxy has been told.
    pub fn take_over(&mut self, mut prepared: Prepared, cx: &mut Context<'_>) {
        // What was published before is not for them.
        self.flush(cx);
        self.drop_repeated(&mut prepared, cx);
        if prepared.requests.is_empty() {
            return;
        }
        let missed = self.has_missed(&prepared);
        if missed && prepared.terms.mode() == HoldMode::Response {
            return self.give_back_at_once(&prepared, cx);
        }
        let mut asked = std::mem::take(&mut prepared.asked).into_iter();
        let records = std::mem::take(&mut prepared.records);
        for (number, request) in prepared.requests.iter().enumerate() {
            let asked = asked.next().unwrap_or_default();
            let session = server::Session::take_over(&request.state, cx.now);
            let (birth, jitter) = (self.audience.holds.next_birth(), self.timers.jitter());
            let mut hold = Hold::new(session, &prepared.terms, birth, cx.now, jitter);
            hold.debug = request.debug;
            hold.farewell = prepared.farewell.clone().map(Box::new);
            let at_once = prepared.course.as_ref().is_some_and(|course| course.at_once);
            match &mut hold.kind {
                Kind::Response(poll) => poll.asked = asked,
                Kind::Stream(stream) if at_once => stream.be_silent(),
                Kind::Stream(_) | Kind::Push(_) => {}
            }
            if let Some(notes) = &mut self.audience.notes {
                notes.begun.push((request.state.client, request.state.id));
            }
            let key = self.audience.holds.insert(hold);
            self.audience.holds.set_user(key, prepared.user.clone());
            self.fanout.count_apart(birth, prepared.bucket.clone());
            let record = records.get(number).or(records.first()).filter(|_| request.state.by_router);
            let record = record.map(|content| Record { owner: PLACE, content });
            self.audience.holds[key].is_recorded = record.is_some();
            self.begin(key, prepared.opening.as_ref().filter(|_| !request.responding), record, cx);
            self.timers.watch(key, &mut self.audience.holds[key]);
            if let Some(course) = &prepared.course {
                let like = course.like.clone();
                let cohort = match at_once {
                    true => self.audience.cohorts.fetching(like),
                    false => self.audience.cohorts.of(like, cx.now),
                };
                self.audience.enlist(key, cohort);
            }
            // Without a hold, only the route's channels count.
            let count = if at_once { prepared.implicit } else { prepared.channels.len() };
            for (name, class) in &prepared.channels[..count] {
                self.audience.subscribe(key, name, class.clone(), cx);
                cx.report(Notice::Subscribed { uri: &prepared.uri, channel: name });
            }
            if let Some(membership) = self.audience.holds[key].membership {
                match at_once {
                    true => self.fetch_page(membership.cohort, cx),
                    false if missed => self.wish(membership.cohort, Urgency::Low, true, cx),
                    false => {}
                }
            }
        }
        self.flush(cx);
    }

    /// Drops requests that are held, or have been, which the proxy does not know.
    fn drop_repeated(&mut self, prepared: &mut Prepared, cx: &mut Context<'_>) {
        let (holds, returned) = (&self.audience.holds, &mut self.returned);
        prepared.retain(|session| {
            let is_held = holds.find(session.client, session.id).is_some();
            if is_held || returned.is_repeated(session, cx.now) {
                cx.report(Notice::HeldAlready(session.id));
                return false;
            }
            true
        });
    }

    /// Sends what a held client gets at once. The first packet tells the frontend whom the session belongs to now.
    fn begin(&mut self, key: HoldKey, opening: Option<&Opening>, keep: Option<Record<'_>>, cx: &mut Context<'_>) {
        let ext = Ext { keep, ..Ext::MULTI };
        let hold = &mut self.audience.holds[key];
        let (to, id) = (hold.address(), hold.session.id());
        let Some(Opening { head, body }) = opening else {
            let ids = Ids::One(id.as_bytes(), Some(hold.session.send().seq));
            let packet = Packet { ids, kind: PacketKind::KeepAlive, ext, ..Packet::default() };
            return self.audience.links.send(to, &packet, cx);
        };
        let len = body.len().min(hold.session.credits() as usize);
        let headers: Vec<_> = head.headers.iter().collect();
        let packet = Packet {
            ids: Ids::One(id.as_bytes(), Some(hold.session.send_body(len).seq)),
            ext,
            code: Some(head.code.get()),
            reason: Some(head.reason.as_bytes()),
            headers: Headers::Pairs(&headers),
            body: &body[..len],
            more: true,
            ..Packet::default()
        };
        if len < body.len() {
            hold.enqueue(body.slice(len..));
            self.fanout.sender.look_at(key, &mut self.audience.holds);
        }
        self.audience.links.send(to, &packet, cx);
    }

    /// A packet has come from a frontend for one or more of its sessions.
    pub fn on_packet(&mut self, from: PeerId, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let mut turning = Vec::new();
        for id in packet.ids.iter() {
            let Ok((id, seq)) = id else { continue };
            let Some(id) = Id::new(id) else { continue };
            let Some(key) = self.audience.holds.find(from, id) else { continue };
            let hold = &mut self.audience.holds[key];
            turning.extend(hold.membership.map(|membership| membership.cohort));
            match hold.session.on_packet(packet, seq, cx.now) {
                Ok(Outcome::Ended) => self.audience.remove(key, cx),
                Ok(Outcome::Proceed) => self.give_back(key, cx),
                Ok(_) if hold.queue().is_some() => self.fanout.sender.look_at(key, &mut self.audience.holds),
                Ok(_) => {}
                Err(violation) => {
                    cx.report(Notice::Violation(id, violation));
                    self.audience.cancel(key, cx);
                }
            }
        }
        self.fanout.sender.flush(&mut self.audience, cx);
        turning.into_iter().for_each(|cohort| self.pace(cohort, cx));
        self.settle(cx);
    }

    /// A frontend's link takes packets again.
    pub fn on_room(&mut self, peer: PeerId, cx: &mut Context<'_>) {
        let waiting = self.audience.links.open(peer, cx);
        let holds = waiting.iter().filter_map(|&(key, _)| self.audience.holds.get(key)?.membership);
        let mut turning: Vec<_> = holds.map(|membership| membership.cohort).collect();
        turning.dedup();
        self.fanout.sender.on_room(peer, waiting, &mut self.audience, cx);
        self.fanout.sender.flush(&mut self.audience, cx);
        turning.into_iter().for_each(|cohort| self.pace(cohort, cx));
        self.settle(cx);
    }

    /// A frontend can not be reached any more in this way, so all clients that were are gone.
    pub fn on_peer_gone(&mut self, peer: Address, cx: &mut Context<'_>) {
        let holds = self.audience.on_peer_gone(peer, cx);
        if holds > 0 {
            self.totals.frontend_gone += holds as u64;
            cx.report(Notice::FrontendGone { holds });
        }
        self.settle(cx);
    }

    /// Whether a connection is held, by its id for statistics: instance, colon, session; or a WebSocket's own id.
    pub fn is_held(&self, id: &[u8], peers: &zhttp::Peers) -> bool {
        self.audience.sockets.find(&id.into()).is_some() || self.is_request(id, peers)
    }

    /// Whether a request is held, by its id for statistics.
    pub fn is_request(&self, id: &[u8], peers: &zhttp::Peers) -> bool {
        let Some(colon) = id.iter().position(|&b| b == b':') else { return false };
        let (peer, session) = (peers.find(&id[..colon]), Id::new(&id[colon + 1..]));
        peer.zip(session).is_some_and(|(peer, id)| self.audience.holds.find(peer, id).is_some())
    }

    /// Takes a published item; returns how many deliveries it has led to, with those of items that have waited for it, and what
    /// has become of itself.
    pub fn publish(&mut self, item: Item, cx: &mut Context<'_>) -> (usize, Fate) {
        let owed = item.id.as_ref().and_then(|id| self.sent.take(&item.channel, id, cx.now));
        if let Some(id) = &item.id {
            match self.dedup.note(&item.channel, id, cx.now) {
                Seen::New => {}
                Seen::NewInPlaceOfAnother => cx.report(Notice::IdsForgotten { limit: self.id_cache_max }),
                Seen::Repeated => {
                    self.totals.repeated += 1;
                    return (0, Fate::Repeated);
                }
            }
        }
        if let Some(owed) = owed {
            let receivers = self.fanout.deliver_owed(item, &owed, &mut self.audience, cx);
            return (receivers, Fate::Published(self.fanout.given));
        }
        let subscribed = self.audience.channels.find(&item.channel).is_some();
        let mut due = Vec::new();
        let pushed = self.sequencer.push(item, subscribed, cx.now, &mut |item| due.push(item));
        let mut fate = match pushed {
            Pushed::Passed => None,
            Pushed::Waits => Some(Fate::Waiting),
            Pushed::Dropped(item) => {
                self.totals.out_of_order += 1;
                cx.report(Notice::OutOfOrder { channel: &item.channel });
                Some(Fate::Dropped)
            }
        };
        let mut receivers = 0;
        // The first one that is due is this item, the others have waited for it.
        for item in due {
            receivers += self.fanout.deliver(item, &mut self.audience, cx);
            fate.get_or_insert(Fate::Published(self.fanout.given));
        }
        (receivers, fate.unwrap_or(Fate::Dropped))
    }

    /// Gives up on items missing in a sequence. Call once a second.
    pub fn expire_sequences(&mut self, cx: &mut Context<'_>) {
        let mut due = Vec::new();
        self.sequencer.expire(cx.now, &mut |item| due.push(item));
        for item in due {
            self.fanout.deliver(item, &mut self.audience, cx);
        }
        self.flush(cx);
    }

    /// Sends what has been collected. To be called at the end of each turn, and before anything that must come after it.
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        self.fanout.flush(&mut self.audience, cx);
        self.settle(cx);
    }

    /// Ends the sessions of lost packets, and forgets the order of channels that nobody listens to.
    fn settle(&mut self, cx: &mut Context<'_>) {
        self.go_on_asking(cx);
        let sessions = self.audience.end_lost(cx);
        if sessions > 0 {
            self.totals.lost += sessions as u64;
            cx.report(Notice::Lost { sessions });
        }
        self.end_lost_sockets(cx);
        self.follow_up(cx);
        for fetch in self.audience.cohorts.take_orphans() {
            self.fetches.cancel(fetch, cx);
        }
        for farewell in self.audience.take_farewells() {
            self.fetches.ask(farewell, cx);
        }
        self.audience.deserted().for_each(|channel| self.sequencer.forget(&channel));
    }

    /// When [`Engine::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        let pages = [self.audience.cohorts.next_due(), self.fetches.next_due(), self.next_update()];
        let sockets = self.audience.sockets.next_due();
        let inquiries = self.fanout.inquiries.next_due();
        let holds = [self.timers.next_due(), self.audience.next_due(), self.fanout.next_due(), sockets];
        holds.into_iter().chain(pages).chain([inquiries]).flatten().min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        self.flush(cx);
        let mut looked_at = Vec::new();
        let mut refresh: Bulk<Way> = Bulk::default();
        let mut keep_alives: Vec<(Bytes, HoldKey)> = Vec::new();
        let mut time_outs: Vec<Target> = Vec::new();
        let mut spent = Vec::new();
        while let Some((key, watch)) = self.timers.pop(cx.now) {
            let Some(hold) = self.audience.holds.get_mut(key) else { continue };
            if hold.watch != watch {
                continue;
            }
            match hold.session.on_timer(cx.now) {
                Due::Nothing => {}
                Due::KeepAlive(to) => refresh.push(to.to, hold.way(), hold.session.id(), to.seq),
                Due::Expired => {
                    self.audience.remove(key, cx);
                    continue;
                }
                Due::Spent => {
                    cx.report(Notice::Spent(hold.session.id()));
                    spent.push(key);
                    continue;
                }
            }
            match &mut hold.kind {
                Kind::Response(response) if response.ends_at.is_some_and(|at| at <= cx.now) => {
                    time_outs.push(Target::new(key, response.terms.response.body.clone()));
                }
                Kind::Response(_) | Kind::Push(_) => {}
                Kind::Stream(stream) => {
                    let data = stream.keep_alive(cx.now, self.timers.jitter());
                    keep_alives.extend(data.map(|data| (data, key)));
                }
            }
            looked_at.push((key, hold.birth));
        }
        refresh.drain(|peer, way, ids| {
            let ext = Ext { lane: way.lane, ..Ext::MULTI };
            let packet = Packet { ids, kind: PacketKind::KeepAlive, ext, ..Packet::default() };
            self.audience.links.send(way.to(peer), &packet, cx);
        });
        for key in spent {
            self.audience.cancel(key, cx);
        }
        self.send_keep_alives(keep_alives, cx);
        responses::respond(time_outs, None, &mut self.fanout.sender, &mut self.audience, cx);
        self.fanout.on_timer(&mut self.audience, cx);
        for (key, birth) in looked_at {
            if let Some(hold) = self.audience.holds.get_mut(key).filter(|hold| hold.birth == birth) {
                self.timers.watch(key, hold);
            }
        }
        self.audience.on_timer(cx);
        self.on_socket_timers(cx);
        self.on_page_timers(cx);
        self.on_inquiry_timers(cx);
        self.on_update_timers(cx);
        self.settle(cx);
        self.flush(cx);
    }

    /// Streams with equal terms share the bytes of their keep-alives, and so the packets.
    fn send_keep_alives(&mut self, keep_alives: Vec<(Bytes, HoldKey)>, cx: &mut Context<'_>) {
        if let Some(notes) = self.audience.notes.as_mut().filter(|_| !keep_alives.is_empty()) {
            *notes.keep_alives.entry(None).or_default() += keep_alives.len() as u32;
        }
        let mut by_data: Vec<(Bytes, Vec<HoldKey>)> = Vec::new();
        let mut numbers: HashMap<*const u8, usize, RandomState> = HashMap::default();
        for (data, key) in keep_alives {
            let number = *numbers.entry(data.as_ptr()).or_insert_with(|| {
                by_data.push((data, Vec::new()));
                by_data.len() - 1
            });
            by_data[number].1.push(key);
        }
        let (holds, links) = (&mut self.audience.holds, &mut self.audience.links);
        for (data, keys) in by_data {
            keys.into_iter().for_each(|key| self.fanout.sender.give(key, &data, holds, links, cx));
            self.fanout.sender.finish(&data, holds, links, cx);
        }
    }

    /// Ends all holds, telling the frontends, many sessions a packet, but for those that a successor can go on with, and
    /// WebSockets, which the proxy ends when it sees that we have gone.
    pub fn shut_down(&mut self, cx: &mut Context<'_>) {
        let mut cancels: Bulk<bool> = Bulk::default();
        for hold in self.audience.holds.iter_mut().filter(|hold| !hold.is_recorded && hold.socket().is_none()) {
            let seq = hold.session.send().seq;
            cancels.push(hold.session.client(), hold.session.by_router(), hold.session.id(), seq);
        }
        cancels.drain(|peer, by_router, ids| {
            let packet = Packet { ids, kind: PacketKind::Cancel, ..Packet::default() };
            self.audience.links.send(Address { peer, by_router }, &packet, cx);
        });
        self.audience.holds.clear();
        self.fetches.shut_down(cx);
    }
}
