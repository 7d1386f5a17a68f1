//! The worker: one thread that joins requesters, exchanges, connections and clock.
//!
//! A turn takes the packets that have come, and what connections have become ready for; each is dealt with to the end
//! before the next, so that a small request is written, and a small response sent back, the moment it is there.
//!
//! - `sessions`: packets from requesters.
//! - `advance`: what moves one exchange forward.

mod advance;
mod sessions;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use process::Limited;
use settings::specs::OutboundSpecs;
use slab::Slab;
use transport::{Event, Reactor};
use wire::http1;
use zhttp::{ACK_DELAY, Id, Kind, PeerId, Wheel};

use crate::connect::connection::Connection;
use crate::connect::pool::Pool;
use crate::connect::resolve::Resolver;
use crate::http1::exchange::{Alarm, Exchange};
use crate::requesters::{Group, INPUT, OUT, Requesters, STREAM};

/// How exact the timers of an exchange are.
const TICK: Duration = Duration::from_millis(100);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Packets taken from one socket in a turn, so that connections are served in between.
const PACKETS_A_TURN: usize = 256;
/// How long cancels may take to leave when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Exchanges at a time.
    exchanges: usize,
    /// Of a response's head.
    head: http1::Limits,
    /// Body bytes of one request that may be under way from the requester and waiting here.
    window: u32,
    /// Idle connections.
    idle: usize,
    /// How long a connection may be idle.
    idle_time: Duration,
}

impl Limits {
    /// The bounds that follow from `client_maxconn` and `client_buffer_size`.
    pub(crate) fn new(connections: usize, buffer_size: usize) -> Self {
        Limits {
            exchanges: connections.max(1),
            // Larger than what clients may send: backends are trusted more and like cookies more.
            head: http1::Limits { head_bytes: buffer_size.clamp(32_768, READ_BUFFER / 2), headers: 128 },
            window: 200_000,
            idle: (connections / 10).max(100),
            idle_time: Duration::from_secs(55),
        }
    }
}

/// Size of the buffer that all reads share, heads included.
const READ_BUFFER: usize = 65_536 * 2;

/// The outbound client's event loop.
pub(crate) struct Worker {
    reactor: Reactor,
    requesters: Requesters,
    resolver: Resolver,
    limits: Limits,
    exchanges: Slab<Exchange>,
    /// Exchanges by requester and id.
    sessions: HashMap<(PeerId, Id), usize, RandomState>,
    connections: Slab<Connection>,
    pool: Pool,
    serials: u64,
    /// Exchanges younger than `ACK_DELAY`, in order. Most are over by then, and never meet the wheel.
    young: VecDeque<(usize, u64, Instant)>,
    wheel: Wheel<(usize, u64, Instant)>,
    keep_alives: Group,
    /// Exchanges whose connection has more than one turn's share to read.
    unread: Vec<(usize, u64)>,
    next_sweep: Instant,
    buffer: Vec<u8>,
    joined: Vec<u8>,
    warnings: Limited,
    now: Instant,
}

impl Worker {
    /// Binds the sockets.
    pub(crate) fn new(
        instance: String,
        specs: &OutboundSpecs,
        file_mode: Option<u32>,
        limits: Limits,
    ) -> Result<Self, transport::Error> {
        let mut reactor = Reactor::new()?;
        let requesters = Requesters::bind(&mut reactor, &instance, specs, file_mode)?;
        let resolver = Resolver::new(reactor.waker());
        let now = Instant::now();
        Ok(Worker {
            reactor,
            requesters,
            resolver,
            limits,
            exchanges: Slab::new(),
            sessions: HashMap::default(),
            connections: Slab::new(),
            pool: Pool::new(limits.idle, limits.idle_time),
            serials: 0,
            young: VecDeque::new(),
            wheel: Wheel::new(TICK, now),
            keep_alives: Group::default(),
            unread: Vec::new(),
            next_sweep: now,
            buffer: vec![0; READ_BUFFER],
            joined: Vec::new(),
            warnings: Limited::default(),
            now,
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
        self.now = Instant::now();
        for event in ready.iter() {
            match *event {
                Event::Socket(INPUT) => self.take_requests(),
                Event::Socket(STREAM) => self.take_packets(),
                Event::Socket(OUT) => self.take_changes(),
                Event::Socket(_) => {}
                Event::Source { token, readable, writable, .. } => self.on_ready(token, readable, writable),
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
        let sweep = (!self.pool.is_empty() || !self.exchanges.is_empty()).then_some(self.next_sweep);
        let due = [young, sweep, self.wheel.next()].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn on_time(&mut self) {
        let now = self.now;
        while let Some(&(index, serial, _)) = self.young.front().filter(|(_, _, due)| *due <= now) {
            self.young.pop_front();
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial) {
                self.acknowledge(index);
            }
        }
        while let Some((index, serial, due)) = self.wheel.pop(now) {
            let exchange = self.exchanges.get_mut(index).filter(|exchange| exchange.serial == serial);
            if let Some(exchange) = exchange.filter(|exchange| exchange.alarm == Some(due)) {
                exchange.alarm = None;
                let alarm = exchange.ring(now);
                self.on_alarm(index, alarm);
            }
        }
        self.requesters.send_group(&mut self.keep_alives, Kind::KeepAlive, now);
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            let connections = &mut self.connections;
            self.pool.expire(now, |connection| drop(connections.try_remove(connection)));
            let dropped = self.requesters.out.forget_absent(now);
            if dropped > 0 {
                let text = format_args!("{dropped} packets dropped: who asked for them does not listen").to_string();
                self.warnings.warn("absent", now, text);
            }
        }
    }

    fn on_alarm(&mut self, index: usize, alarm: Alarm) {
        match alarm {
            Alarm::None => {}
            Alarm::KeepAlive => {
                let exchange = &mut self.exchanges[index];
                exchange.spoke = self.now;
                let session = &mut exchange.session;
                self.keep_alives.push(session.client, session.by_router, session.id, session.send());
            }
            Alarm::Expired => return self.drop_exchange(index),
            Alarm::ConnectTimeout => return self.connect_failed(index, std::io::ErrorKind::TimedOut.into()),
            Alarm::SessionTimeout => return self.fail(index, "session-timeout", &"the requester's timeout is over"),
            Alarm::Inactive => return self.fail(index, "connection-timeout", &"nothing has moved for 30 minutes"),
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

    /// Tells all requesters that their exchanges are over.
    pub(crate) fn shut_down(&mut self) {
        let mut cancels = Group::default();
        for (_, exchange) in &mut self.exchanges {
            let session = &mut exchange.session;
            cancels.push(session.client, session.by_router, session.id, session.send());
        }
        self.requesters.send_group(&mut cancels, Kind::Cancel, self.now);
        self.reactor.drain(FAREWELL);
    }

    /// When an exchange that begins now is no longer young.
    fn grown_up_at(&self) -> Instant {
        self.now + ACK_DELAY
    }
}
