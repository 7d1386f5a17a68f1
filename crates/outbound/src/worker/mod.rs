// SPDX-License-Identifier: AGPL-3.0-or-later
//! The worker: one thread that joins the engine with sockets, names and clock.
//!
//! A turn takes the packets that have come, and what connections have become ready for.
//!
//! - `links`: what carries out the engine's actions.
//! - `measures`: what operators can see of all this.

mod links;
mod measures;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use settings::model::Outbound;
use transport::{Change, Event, Incoming, Options, Reactor};
use wire::http1;

use self::links::{INPUT, Links, OUT, STREAM};
use crate::connect::pool::PoolLimits;
use crate::connect::resolve::Resolver;
use crate::context::Context;
use crate::engine::{Engine, Limits, WINDOW};
use crate::http1::exchange::Timeouts;

/// Packets taken from one socket in a turn, so that connections are served in between.
const PACKETS_A_TURN: usize = 256;
/// How long cancels may take to leave when the process ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The outbound client's event loop.
pub(crate) struct Worker {
    reactor: Reactor,
    links: Links,
    engine: Engine,
}

impl Worker {
    /// Binds the sockets.
    pub(crate) fn new(instance: &str, settings: &Outbound) -> Result<Self, transport::Error> {
        let mut reactor = Reactor::new()?;
        let options = Options { peer_bytes: settings.queue_bytes, ..process::zmq::options(&settings.zmq) };
        let resolver = Resolver::new(reactor.waker(), settings.lookup_threads, settings.lookup_queue);
        let links = Links::bind(&mut reactor, instance, &settings.specs, options, resolver)?;
        let engine = Engine::new(instance, limits(settings), links.now);
        Ok(Worker { reactor, links, engine })
    }

    /// Where other sources are registered, under tokens that no connection has.
    pub(crate) fn registry(&self) -> &mio::Registry {
        self.reactor.registry()
    }

    /// Waits for something to do and does it. What has happened is left in `ready`.
    pub(crate) fn turn(&mut self, ready: &mut Vec<Event>) -> Result<(), transport::Error> {
        let timeout = self.timeout();
        self.reactor.wait(timeout, ready)?;
        self.links.now = Instant::now();
        for event in ready.iter() {
            match *event {
                Event::Socket(INPUT) => self.take_requests(),
                Event::Socket(STREAM) => self.take_packets(),
                Event::Socket(OUT) => self.take_changes(),
                Event::Socket(_) => {}
                Event::Source { token, readable, writable, ended } => {
                    self.engine.on_ready(token, readable, writable, ended, &mut context(&mut self.links));
                }
                Event::Wake => self.take_answers(),
            }
        }
        self.engine.go_on(&mut context(&mut self.links));
        self.engine.on_timer(&mut context(&mut self.links));
        Ok(())
    }

    /// How long the next turn may wait.
    fn timeout(&self) -> Option<Duration> {
        if self.engine.has_unread() {
            return Some(Duration::ZERO);
        }
        Some(self.engine.next_due()?.saturating_duration_since(Instant::now()))
    }

    /// First packets of sessions.
    fn take_requests(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            let Some(message) = self.links.input.recv() else { return };
            self.engine.request(&message, &mut context(&mut self.links));
        }
    }

    /// Later packets of sessions; and requesters that leave, after the last of their packets.
    fn take_packets(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            match self.links.stream.incoming() {
                None => return,
                Some(Incoming::Packet(_, message)) => self.engine.packet(&message, &mut context(&mut self.links)),
                Some(Incoming::Change(change)) => self.take_change(&change, true),
            }
        }
    }

    /// Requesters that have come or gone, as far as their subscriptions tell.
    fn take_changes(&mut self) {
        let changes: Vec<Change> = self.links.out.changes().collect();
        changes.iter().for_each(|change| self.take_change(change, false));
    }

    /// `by_router`: the way by which the requester hears of its responses.
    fn take_change(&mut self, change: &Change, by_router: bool) {
        let cx = &mut context(&mut self.links);
        match change {
            Change::Left(name, _) => self.engine.requester_left(name, by_router, cx),
            Change::Room(name) => self.engine.requester_has_room(name, by_router, cx),
            Change::Joined(_) => {}
        }
    }

    /// Answers of the resolver.
    fn take_answers(&mut self) {
        while let Some((addresses, askers)) = self.links.resolver.answered(self.links.now) {
            self.engine.resolved(&addresses, askers, &mut context(&mut self.links));
        }
    }

    /// Tells requesters that their exchanges are over.
    pub(crate) fn shut_down(&mut self) {
        self.engine.shut_down(&mut context(&mut self.links));
        tracing::debug!("{:?}", self.engine.counters());
        self.reactor.drain(FAREWELL);
    }
}

/// What the engine is given with an event of this turn.
fn context(links: &mut Links) -> Context<'_> {
    Context::new(links.now, links)
}

fn limits(settings: &Outbound) -> Limits {
    Limits {
        exchanges: settings.maxconn,
        window: WINDOW,
        connect_attempts: settings.connect_attempts,
        head: http1::Limits { head_bytes: settings.max_headers_size, headers: settings.max_headers },
        timeouts: Timeouts {
            connect: settings.connect_timeout,
            response: settings.response_timeout,
            idle: settings.idle_timeout,
        },
        pool: PoolLimits {
            connections: settings.keepalive_connections,
            per_endpoint: settings.keepalive_per_target,
            patience: settings.keepalive_timeout,
        },
        recover_wait: settings.recover_wait,
        recover_memory: settings.recover_memory,
    }
}
