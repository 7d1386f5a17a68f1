//! Holds, subscriptions and deliveries, without I/O.
//!
//! The worker feeds in what comes from its sockets: requests to hold from the proxy, packets from frontends, published
//! items. What goes out is given to an [`Outlet`]. Delivering is in [`deliver`](crate::deliver).

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use grip::{HoldMode, Instruct};
use process::Limited;
use slab::Slab;
use zhttp::{Bulk, Ext, Id, Ids, KEEP_ALIVE, Kind, Packet, PeerId, Wheel, server};

use crate::deliver::fanout::{Delivery, Run};
use crate::hold::session::Hold;
use crate::hold::terms::{Plan, Plans};
use crate::order::rate::{Bucket, Limiter};
use crate::order::sequencer::Sequencer;
use crate::subscribe::channels::{ChannelKey, HoldKey, Place, Subscriptions};
use crate::take_over::accept::{Accept, Request};

/// How exact timeouts are.
const TICK: Duration = Duration::from_millis(100);
/// The same for subscriptions that linger.
const LINGER_TICK: Duration = Duration::from_secs(1);
/// Holds that began within so long of each other share the packets that keep their sessions alive.
const REFRESH_STEP: u64 = 5;

/// Where the engine's packets and subscriptions go.
pub trait Outlet {
    /// Sends a packet to a frontend, through ROUTER or PUB.
    fn send(&mut self, to: PeerId, by_router: bool, packet: &Packet<'_>);
    /// Subscribes to a channel at those who publish over SUB.
    fn follow(&mut self, channel: &str);
    /// Ends such a subscription.
    fn unfollow(&mut self, channel: &str);
}

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels that the backend may give one hold.
    pub subscriptions: usize,
    /// How long a channel's subscription outlives its last long-poll.
    pub linger: Duration,
    /// Bytes that may wait for one client, with what it takes to keep them; with more it is closed.
    pub queue_bytes: usize,
    /// Deliveries a second.
    pub message_rate: Option<u32>,
    /// Deliveries that may wait for one route when the rate is limited.
    pub message_hwm: Option<u32>,
    /// How long an item waits for the one before it.
    pub message_wait: Duration,
    /// How long an item's id is remembered.
    pub id_cache_ttl: Duration,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Items published.
    pub received: u64,
    /// Deliveries, one for each receiver.
    pub sent: u64,
    /// Clients closed because too much waited for them.
    pub slow_closed: u64,
}

/// What the proxy is told, and what is to be held once it has been told.
pub enum Decision {
    /// Requests are held.
    Hold(Prepared),
    /// Nothing is held.
    Pass,
}

/// Requests on their way into the table.
pub struct Prepared {
    requests: Vec<Request>,
    plan: Rc<Plan>,
    channels: Vec<String>,
    uri: String,
    response_sent: bool,
    bucket: Bucket,
}

/// See the module.
pub struct Engine {
    pub(crate) limits: Limits,
    pub(crate) holds: Slab<Hold>,
    by_session: HashMap<(PeerId, Id), HoldKey, RandomState>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) sequencer: Sequencer,
    pub(crate) limiter: Option<Limiter<(HoldKey, u64, Delivery)>>,
    buckets: HashMap<u64, Bucket, RandomState>,
    plans: Plans,
    /// Items that go to the same streams, one after the other, joined.
    pub(crate) run: Option<Run>,
    pub(crate) group: Bulk<bool>,
    wheel: Wheel<(HoldKey, u64)>,
    origin: Instant,
    /// Channels whose last long-poll has left, each once, however often polls come and go.
    lingering: Wheel<Box<str>>,
    births: u64,
    seed: u64,
    pub(crate) warnings: Limited,
    /// Counters for statistics.
    pub totals: Totals,
}

impl Engine {
    /// An engine that holds nothing.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Engine {
            sequencer: Sequencer::new(limits.message_wait, limits.id_cache_ttl),
            limiter: limits.message_rate.filter(|&r| r > 0).map(|rate| Limiter::new(rate, limits.message_hwm)),
            buckets: HashMap::default(),
            limits,
            holds: Slab::new(),
            by_session: HashMap::default(),
            subscriptions: Subscriptions::default(),
            plans: Plans::default(),
            run: None,
            group: Bulk::default(),
            wheel: Wheel::new(TICK, now),
            origin: now,
            lingering: Wheel::new(LINGER_TICK, now),
            births: 0,
            seed: 0x9e37_79b9_7f4a_7c15,
            warnings: Limited::default(),
            totals: Totals::default(),
        }
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// Decides about a request that the proxy wants to give over, by the instruct in the backend's response.
    pub fn decide(&mut self, accept: Accept<'_>, instruct: &Instruct<'_>) -> Decision {
        let Some(mode) = instruct.hold else { return Decision::Pass };
        let mut channels: Vec<String> = Vec::new();
        for &name in &accept.channels {
            if !name.is_empty() && !channels.iter().any(|known| known == name) {
                channels.push(name.to_string());
            }
        }
        let implicit = channels.len();
        for channel in &instruct.channels {
            let name = [accept.prefix, &channel.name].concat();
            // An empty name would receive everything that is published over SUB; a hold has one place in a channel.
            if name.is_empty() || channels.contains(&name) {
                continue;
            }
            if channels.len() - implicit == self.limits.subscriptions {
                tracing::debug!("httpsession: too many subscriptions");
                break;
            }
            channels.push(name);
        }
        Decision::Hold(Prepared {
            plan: self.plans.share(Plan::of(instruct, mode)),
            channels,
            uri: String::from_utf8_lossy(accept.uri).into_owned(),
            response_sent: accept.response_sent,
            bucket: accept.route.map(Rc::from),
            requests: accept.requests,
        })
    }

    /// Takes the requests over, after the proxy has been told.
    pub fn take_over(&mut self, prepared: Prepared, now: Instant, out: &mut impl Outlet) {
        // What was published before is not for them.
        self.flush_run(now, out);
        for request in &prepared.requests {
            let session = (request.state.client, request.state.id);
            if self.by_session.contains_key(&session) {
                tracing::error!("session {} is held already; it is not taken over again", request.state.id);
                continue;
            }
            let birth = self.births;
            self.births += 1;
            let end = server::Session::take_over(&request.state, now);
            let hold = Hold::new(end, prepared.plan.clone(), birth, self.refresh_time(now));
            let key = self.holds.insert(hold) as HoldKey;
            self.by_session.insert(session, key);
            if prepared.bucket.is_some() && self.limiter.is_some() {
                self.buckets.insert(birth, prepared.bucket.clone());
            }
            self.begin(key, prepared.response_sent || request.responding, now, out);
            for name in &prepared.channels {
                self.subscribe(key, name, out);
                tracing::info!("subscribe {} channel={name}", prepared.uri);
            }
        }
    }

    /// Sends what a held client gets at once. The first packet tells the frontend whom the session belongs to now.
    fn begin(&mut self, key: HoldKey, responding: bool, now: Instant, out: &mut impl Outlet) {
        let jitter = self.jitter();
        let hold = &mut self.holds[key as usize];
        let plan = hold.plan.clone();
        let (to, by_router, id) = (hold.session.client, hold.session.by_router, hold.session.id);
        if plan.mode == HoldMode::Stream && !responding {
            let body = plan.body.slice(..plan.body.len().min(hold.session.credits as usize));
            let headers = plan.header_pairs();
            let seq = hold.session.send_body(body.len());
            out.send(
                to,
                by_router,
                &Packet {
                    ids: Ids::One(id.as_bytes(), Some(seq)),
                    ext: Ext::MULTI,
                    code: Some(plan.code.get()),
                    reason: Some(plan.reason.as_bytes()),
                    headers: zhttp::Headers::Pairs(&headers),
                    body: &body,
                    more: true,
                    ..Packet::default()
                },
            );
            hold.enqueue(plan.body.slice(body.len()..));
        } else {
            let ids = Ids::One(id.as_bytes(), Some(hold.session.send()));
            out.send(to, by_router, &Packet { ids, kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() });
        }
        match plan.mode {
            HoldMode::Stream => hold.arm_keep_alive(now, jitter),
            HoldMode::Response => hold.ends_at = Some(now + plan.timeout),
        }
        self.wheel.insert((key, hold.birth), hold.next_due());
    }

    fn subscribe(&mut self, key: HoldKey, name: &str, out: &mut impl Outlet) {
        let hold = &mut self.holds[key as usize];
        let (place, new) = self.subscriptions.add(name, hold.plan.mode, key);
        hold.places.push(place);
        self.subscriptions.get_mut(place.channel).lingers_until = None;
        if new {
            // After the hold is in the table: who sees the subscription may publish at once.
            out.follow(name);
        }
    }

    /// Forgets a hold. What its client is told, if anything, has been sent.
    pub(crate) fn remove(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let hold = self.holds.remove(key as usize);
        self.by_session.remove(&(hold.session.client, hold.session.id));
        self.buckets.remove(&hold.birth);
        let mode = hold.plan.mode;
        for place in hold.places {
            if let Some(moved) = self.subscriptions.remove(place, mode) {
                self.correct_place(moved, place);
            }
            if self.subscriptions.get(place.channel).is_empty() {
                self.leave_channel(place.channel, mode, now, out);
            }
        }
    }

    fn correct_place(&mut self, hold: HoldKey, place: Place) {
        if let Some(own) = self.holds[hold as usize].places.iter_mut().find(|own| own.channel == place.channel) {
            own.index = place.index;
        }
    }

    fn leave_channel(&mut self, key: ChannelKey, mode: HoldMode, now: Instant, out: &mut impl Outlet) {
        let channel = self.subscriptions.get_mut(key);
        if mode == HoldMode::Response && !self.limits.linger.is_zero() {
            // A client that has got its answer is usually back in a moment.
            let end = now + self.limits.linger;
            channel.lingers_until = Some(end);
            if !std::mem::replace(&mut channel.watched, true) {
                self.lingering.insert(channel.name.clone(), end);
            }
        } else if channel.lingers_until.is_none() {
            self.forget_channel(key, out);
        }
    }

    fn forget_channel(&mut self, key: ChannelKey, out: &mut impl Outlet) {
        if self.run.as_ref().is_some_and(|run| run.channel == key) {
            // Nobody is left to get it.
            self.run = None;
        }
        let name = self.subscriptions.forget(key);
        self.sequencer.forget(&name);
        out.unfollow(&name);
    }

    /// A packet has come from a frontend for one of its sessions.
    pub fn on_packet(&mut self, from: PeerId, packet: &Packet<'_>, now: Instant, out: &mut impl Outlet) {
        for id in packet.ids.iter() {
            let Ok((id, seq)) = id else { continue };
            let Some(id) = Id::new(id) else { continue };
            let Some(&key) = self.by_session.get(&(from, id)) else { continue };
            let session = &mut self.holds[key as usize].session;
            if packet.kind.ends_session() {
                self.remove(key, now, out);
            } else if let Err(violation) = session.receive(packet.kind, seq, packet.credits, now) {
                self.warnings.warn("violation", now, format_args!("session {id} cancelled: {violation}"));
                self.cancel(key, now, out);
            } else if packet.credits.is_some() {
                self.send_queue(key, now, out);
            }
        }
    }

    /// Ends a hold and tells the frontend to close the client's connection.
    pub(crate) fn cancel(&mut self, key: HoldKey, now: Instant, out: &mut impl Outlet) {
        let session = &mut self.holds[key as usize].session;
        let seq = session.send();
        let (to, by_router, id) = (session.client, session.by_router, session.id);
        let ids = Ids::One(id.as_bytes(), Some(seq));
        out.send(to, by_router, &Packet { ids, kind: Kind::Cancel, ..Packet::default() });
        self.remove(key, now, out);
    }

    /// A frontend is gone, and all its clients with it.
    pub fn on_peer_gone(&mut self, peer: PeerId, now: Instant, out: &mut impl Outlet) {
        let gone: Vec<_> =
            self.holds.iter().filter(|(_, hold)| hold.session.client == peer).map(|(key, _)| key).collect();
        for key in gone {
            self.remove(key as HoldKey, now, out);
        }
    }

    /// Whether a connection is held, by its id for statistics: instance, colon, session.
    pub fn is_held(&self, id: &[u8], peers: &zhttp::Peers) -> bool {
        let Some(colon) = id.iter().position(|&b| b == b':') else { return false };
        let (peer, session) = (peers.find(&id[..colon]), Id::new(&id[colon + 1..]));
        peer.zip(session).is_some_and(|session| self.by_session.contains_key(&session))
    }

    /// Forgets what was published, so that no item waits for one that came before.
    pub fn recover(&mut self) {
        self.sequencer.forget_last_ids();
    }

    /// The bucket of a hold's deliveries.
    pub(crate) fn bucket(&self, birth: u64) -> Bucket {
        self.buckets.get(&birth).cloned().flatten()
    }

    /// When [`Engine::on_timer`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        let limiter = self.limiter.as_ref().and_then(Limiter::next_due);
        [self.wheel.next(), self.lingering.next(), limiter].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, out: &mut impl Outlet) {
        let mut refresh: Bulk<bool> = Bulk::default();
        while let Some((key, birth)) = self.wheel.pop(now) {
            if self.holds.get(key as usize).is_some_and(|hold| hold.birth == birth) {
                self.look_at(key, now, &mut refresh, out);
            }
        }
        refresh.drain(|peer, by_router, ids| {
            out.send(peer, by_router, &Packet { ids, kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() });
        });
        while let Some(name) = self.lingering.pop(now) {
            let Some(key) = self.subscriptions.find(&name) else { continue };
            let channel = self.subscriptions.get_mut(key);
            match channel.lingers_until {
                Some(end) if end > now => self.lingering.insert(name, end),
                Some(_) => self.forget_channel(key, out),
                None => channel.watched = false,
            }
        }
        self.deliver_limited(now, out);
    }

    fn look_at(&mut self, key: HoldKey, now: Instant, refresh: &mut Bulk<bool>, out: &mut impl Outlet) {
        let (jitter, next_refresh) = (self.jitter(), self.refresh_time(now));
        let hold = &mut self.holds[key as usize];
        if hold.session.is_expired(now) {
            return self.remove(key, now, out);
        }
        if hold.ends_at.is_some_and(|at| at <= now) {
            // Unless the response needs more credits than there are, the hold is gone then.
            self.time_out(key, now, out);
        } else if hold.keep_alive_at.is_some_and(|at| at <= now) {
            let data = hold.plan.keep_alive.as_ref().map(|(data, ..)| data.clone()).unwrap_or_default();
            hold.arm_keep_alive(now, jitter);
            self.send_or_queue(key, &data, now, out);
        }
        let Some(hold) = self.holds.get_mut(key as usize) else { return };
        if hold.refresh_at <= now {
            hold.refresh_at = next_refresh;
            let seq = hold.session.send();
            refresh.push(hold.session.client, hold.session.by_router, hold.session.id, seq);
        }
        self.wheel.insert((key, hold.birth), hold.next_due());
    }

    /// When a frontend that hears of a session now is to hear of it again: a few seconds early, at a time that many
    /// sessions have in common.
    fn refresh_time(&self, now: Instant) -> Instant {
        let latest = (now + KEEP_ALIVE).saturating_duration_since(self.origin).as_secs();
        self.origin + Duration::from_secs(latest - latest % REFRESH_STEP)
    }

    /// Up to a second, so that what many holds began together does not stay together.
    fn jitter(&mut self) -> Duration {
        // xorshift; it only has to be uneven.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        Duration::from_millis(self.seed % 1000)
    }

    /// Ends all holds, telling the frontends, many sessions a packet.
    pub fn shut_down(&mut self, out: &mut impl Outlet) {
        let mut cancels: Bulk<bool> = Bulk::default();
        for (_, hold) in &mut self.holds {
            let seq = hold.session.send();
            cancels.push(hold.session.client, hold.session.by_router, hold.session.id, seq);
        }
        cancels.drain(|peer, by_router, ids| {
            out.send(peer, by_router, &Packet { ids, kind: Kind::Cancel, ..Packet::default() });
        });
        self.holds.clear();
        self.by_session.clear();
    }
}
