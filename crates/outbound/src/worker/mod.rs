// SPDX-License-Identifier: AGPL-3.0-or-later
//! The worker: one thread that joins requesters, exchanges, connections and clock.
//!
//! A turn takes the packets that have come, and what connections have become ready for; each is dealt with to the end
//! before the next, so that a small request is written, and a small response sent back, the moment it is there.
//!
//! - `sessions`: packets from requesters.
//! - `connecting`: from a new exchange to its connection.
//! - `transfer`: bytes between connection and requester, and the end of an exchange.
//! - `frames`: the same for WebSockets; `adopting`: those whose proxy has gone.
//! - `measures`: what operators can see of all this.
//! - `context`: what all of them use.

mod adopting;
mod connecting;
mod context;
mod frames;
mod measures;
mod sessions;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use limited::Limited;
use settings::model::Outbound;
use slab::Slab;
use transport::{Event, Options, Reactor};
use wire::http1;
use zhttp::session::server::Outgoing;
use zhttp::{ACK_DELAY, Id, Kind, Packet, PeerId, Wheel};

use self::adopting::Adoptions;
use self::context::{Context, Counters};
use crate::connect::Connector;
use crate::connect::pool::{Pool, PoolLimits};
use crate::connect::resolve::Resolver;
use crate::failure::Failure;
use crate::http1::exchange::{Alarm, Exchange, Timeouts};
use crate::requesters::{Group, INPUT, OUT, Requesters, STREAM};

/// WebSockets by the names by which they may be claimed.
type Names = HashMap<Box<[u8]>, usize, RandomState>;

/// How exact the timers of an exchange are.
const TICK: Duration = Duration::from_millis(100);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Packets taken from one socket in a turn, so that connections are served in between.
const PACKETS_A_TURN: usize = 256;
/// How long cancels may take to leave when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Body bytes of one request that may be under way from the requester and waiting here. More than the 200,000 that Pushpin's
/// proxy takes from a client ahead, and no sum of usual sizes: the proxy of 1.36 never goes on with a WebSocket whose credits
/// it has used up to the byte.
const WINDOW: u32 = 250_007;
/// Room in the buffer for what comes with the end of the largest head.
const BEYOND_HEAD: usize = 65_536;

/// Bounds.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Exchanges at a time.
    exchanges: usize,
    /// Addresses of one backend that are connected to at a time.
    connect_attempts: usize,
    /// Of a response's head.
    head: http1::Limits,
    timeouts: Timeouts,
}

/// The outbound client's event loop.
pub(crate) struct Worker {
    reactor: Reactor,
    context: Context,
    limits: Limits,
    exchanges: Slab<Exchange>,
    /// Exchanges by requester and id.
    sessions: HashMap<(PeerId, Id), usize, RandomState>,
    adoptions: Adoptions,
    connector: Connector,
    serials: u64,
    keys: frames::Keys,
    /// Exchanges younger than `ACK_DELAY`, in order. Most are over by then, and never meet the wheel.
    young: VecDeque<(usize, u64, Instant)>,
    /// WebSockets whose requester is owed credits, by when they are due.
    owing: VecDeque<(usize, u64, Instant)>,
    wheel: Wheel<(usize, u64, Instant)>,
    keep_alives: Group,
    /// Exchanges whose connection has more than one turn's share to read.
    unread: Vec<(usize, u64)>,
    next_sweep: Instant,
    /// All reads share it, heads included.
    buffer: Vec<u8>,
    joined: Vec<u8>,
    /// Content whose coding has been taken off.
    unpacked: Vec<u8>,
}

impl Worker {
    /// Binds the sockets.
    pub(crate) fn new(instance: String, settings: &Outbound) -> Result<Self, transport::Error> {
        let mut reactor = Reactor::new()?;
        let options = Options { peer_bytes: settings.queue_bytes, ..process::zmq::options(&settings.zmq) };
        let requesters = Requesters::bind(&mut reactor, &instance, &settings.specs, options)?;
        let pool = Pool::new(PoolLimits {
            connections: settings.keepalive_connections,
            per_endpoint: settings.keepalive_per_target,
            patience: settings.keepalive_timeout,
        });
        let limits = Limits {
            exchanges: settings.maxconn,
            connect_attempts: settings.connect_attempts,
            head: http1::Limits { head_bytes: settings.max_headers_size, headers: settings.max_headers },
            timeouts: Timeouts {
                connect: settings.connect_timeout,
                response: settings.response_timeout,
                idle: settings.idle_timeout,
            },
        };
        let resolver = Resolver::new(reactor.waker(), settings.lookup_threads, settings.lookup_queue);
        let connector = Connector::new(resolver, pool);
        let now = Instant::now();
        Ok(Worker {
            reactor,
            context: Context { requesters, warnings: Limited::default(), counters: Counters::default(), now },
            limits,
            exchanges: Slab::new(),
            sessions: HashMap::default(),
            adoptions: Adoptions::new(settings),
            connector,
            serials: 0,
            keys: frames::Keys::default(),
            young: VecDeque::new(),
            owing: VecDeque::new(),
            wheel: Wheel::new(TICK, now),
            keep_alives: Group::default(),
            unread: Vec::new(),
            next_sweep: now,
            buffer: vec![0; settings.max_headers_size + BEYOND_HEAD],
            joined: Vec::new(),
            unpacked: Vec::new(),
        })
    }

    /// Where other sources are registered, under tokens that no connection has.
    pub(crate) fn registry(&self) -> &mio::Registry {
        self.reactor.registry()
    }

    /// Waits for something to do and does it. What has happened is left in `ready`.
    pub(crate) fn turn(&mut self, ready: &mut Vec<Event>) -> Result<(), transport::Error> {
        let timeout = self.timeout();
        self.reactor.wait(timeout, ready)?;
        self.context.now = Instant::now();
        for event in ready.iter() {
            match *event {
                Event::Socket(INPUT) => self.take_requests(),
                Event::Socket(STREAM) => self.take_packets(),
                Event::Socket(OUT) => self.take_changes(),
                Event::Socket(_) => {}
                Event::Source { token, readable, writable, ended } => self.on_ready(token, readable, writable, ended),
                Event::Wake => self.take_answers(),
            }
        }
        for (index, serial) in std::mem::take(&mut self.unread) {
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial) {
                self.advance(index);
            }
        }
        self.on_time();
        Ok(())
    }

    /// How long the next turn may wait.
    fn timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let young = self.young.front().map(|(_, _, due)| *due);
        let sweep = (self.connector.has_idle() || !self.exchanges.is_empty()).then_some(self.next_sweep);
        let owing = self.owing.front().map(|(_, _, due)| *due);
        let due = [young, owing, sweep, self.wheel.next()].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn on_time(&mut self) {
        let now = self.context.now;
        while let Some(&(index, serial, _)) = self.young.front().filter(|(_, _, due)| *due <= now) {
            self.young.pop_front();
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial) {
                self.attend(index);
            }
        }
        while let Some((index, serial, due)) = self.wheel.pop(now) {
            let exchange = self.exchanges.get_mut(index).filter(|exchange| exchange.serial == serial);
            if let Some(exchange) = exchange.filter(|exchange| exchange.alarm == Some(due)) {
                exchange.alarm = None;
                self.attend(index);
            }
        }
        self.grant_owed();
        for session in self.context.requesters.send_group(&mut self.keep_alives, Kind::KeepAlive) {
            if let Some(&index) = self.sessions.get(&session) {
                self.lost(index);
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.connector.sweep(now);
        }
    }

    /// Does what the time asks of an exchange, and has the wheel ring again.
    pub(super) fn attend(&mut self, index: usize) {
        let now = self.context.now;
        loop {
            let exchange = &mut self.exchanges[index];
            let timeouts = self.limits.timeouts;
            match exchange.ring(now) {
                Alarm::None => break,
                // What every packet must echo can not be shared with others.
                Alarm::KeepAlive(outgoing) if exchange.user_data().is_some() => {
                    if !self.send_as(index, outgoing, Kind::KeepAlive, Packet::default()) {
                        return;
                    }
                }
                Alarm::KeepAlive(Outgoing { to, by_router, seq }) => {
                    self.keep_alives.push(to, by_router, exchange.session.id(), seq);
                }
                Alarm::Expired => {
                    self.context.counters.orphaned += u64::from(exchange.is_orphan());
                    return self.drop_exchange(index);
                }
                Alarm::Spent => return self.cancel(index),
                Alarm::ResolveTimeout => return self.fail(index, &Failure::ConnectTimeout(timeouts.connect)),
                Alarm::Dial => {
                    if !self.dial(index) {
                        return;
                    }
                }
                Alarm::ResponseTimeout => return self.fail(index, &Failure::ResponseTimeout(timeouts.response)),
                Alarm::SessionTimeout => return self.fail(index, &Failure::SessionTimeout),
                Alarm::Idle => return self.fail(index, &Failure::Idle(timeouts.idle)),
            }
        }
        self.watch(index);
    }

    /// Has the wheel ring for what is due next.
    fn watch(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        let due = exchange.next_alarm();
        if exchange.alarm.is_none_or(|alarm| due < alarm) {
            exchange.alarm = Some(due);
            self.wheel.insert((index, exchange.serial, due), due);
        }
    }

    /// Has the wheel ring earlier if a deadline has come nearer. A young exchange is not in the wheel yet.
    fn watch_again(&mut self, index: usize) {
        if self.exchanges[index].alarm.is_some() {
            self.watch(index);
        }
    }

    /// Tells requesters that their exchanges are over. Those of this machine see the end of the link, as if the process had
    /// died: what only asks can be sent again.
    pub(crate) fn shut_down(&mut self) {
        let mut cancels = Group::default();
        for (_, exchange) in &mut self.exchanges {
            let session = &mut exchange.session;
            if session.by_router() {
                continue;
            }
            let Outgoing { to, by_router, seq } = session.send();
            cancels.push(to, by_router, session.id(), seq);
        }
        // Who does not take them hears of the end by that of the link.
        let _ = self.context.requesters.send_group(&mut cancels, Kind::Cancel);
        tracing::debug!("{:?}", self.context.counters);
        self.reactor.drain(FAREWELL);
    }

    /// When an exchange that begins now is no longer young.
    fn grown_up_at(&self) -> Instant {
        self.context.now + ACK_DELAY
    }
}
