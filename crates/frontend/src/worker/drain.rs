// SPDX-License-Identifier: AGPL-3.0-or-later
//! The end of a process that has been replaced: it accepts nobody any more, and goes on for the clients it has.
//!
//! New clients are its successor's. Each of ours is told with its next response that no request follows. Those that are still
//! here after half of the time are ended in the other half.

use std::time::{Duration, Instant};

use process::passing::Door;

use super::Worker;
use crate::departure::spread::Spread;
use crate::exchange::Exchange;

/// For what clients still send after the last of them has been ended.
const LINGER: Duration = Duration::from_secs(5);

/// How far it is.
pub(super) struct Drain {
    /// When each slot's client is ended.
    closing: Spread<usize>,
    end: Instant,
    /// The runner knows that the successor serves: it would take an earlier end for a failure.
    released: bool,
}

impl Worker {
    /// A successor serves: leaves new clients to it, and is [drained](Self::is_drained) when ours are gone, after `timeout` at
    /// the latest.
    pub fn give_way(&mut self, timeout: Duration, now: Instant) {
        if self.drain.is_none() {
            self.reactor.give_way();
            self.begin_drain(timeout, now);
        }
        if let Some(drain) = &mut self.drain {
            drain.released = true;
        }
    }

    /// The same, before the runner knows.
    pub(super) fn begin_drain(&mut self, timeout: Duration, now: Instant) {
        tracing::info!("{} clients are left to be served, for at most {} s", self.clients.len(), timeout.as_secs());
        std::mem::take(&mut self.listeners).deregister(self.reactor.registry());
        process::adoption::leave();
        // Its file is the successor's by now, if that has one.
        drop(self.leave_door());
        let mut closing = Spread::over(timeout / 2, now);
        for (slot, client) in &mut self.clients {
            client.http.be_last();
            closing.add(slot, slot as u64, now + timeout / 2);
        }
        self.drain = Some(Drain { closing, end: now + timeout + LINGER, released: false });
    }

    /// There is no way to the servers any more.
    pub(super) fn end_drain(&mut self) {
        if let Some(drain) = &mut self.drain {
            drain.end = Instant::now();
        }
    }

    /// A successor has failed: takes back what it may have taken.
    pub fn go_on(&mut self) {
        if let Err(error) = self.reactor.bind_again() {
            tracing::error!("{error}");
        }
        if let Some(path) = self.door_path.clone()
            && self.door.as_ref().is_some_and(Door::is_displaced)
            && let Err(error) = self.open_door(path)
        {
            tracing::error!("clients will not be able to move to a successor: {error}");
        }
    }

    /// Whether there is nobody left to be served since a successor is.
    pub fn is_drained(&self, now: Instant) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.released && self.clients.is_empty() || drain.end <= now)
    }

    /// If a successor serves: how many clients have been ended because they stayed for too long.
    pub fn ended_for_successor(&self) -> Option<u64> {
        self.drain.as_ref().map(|_| self.counters.replaced)
    }

    pub(super) fn drains_at(&self) -> Option<Instant> {
        self.drain.as_ref().map(|drain| drain.closing.next().map_or(drain.end, |next| next.min(drain.end)))
    }

    /// Ends the clients whose time has come.
    pub(super) fn end_clients(&mut self, now: Instant) {
        let Some(drain) = &mut self.drain else { return };
        // Slots are not given to others meanwhile.
        let due: Vec<usize> = std::iter::from_fn(|| drain.closing.pop(now)).collect();
        for slot in due {
            if self.clients.contains(slot) {
                self.counters.replaced += 1;
                let is_held = self.is_held(slot);
                self.end_client(slot, is_held, now);
            }
        }
    }

    /// Whether what a client waits for is the handler's.
    fn is_held(&self, slot: usize) -> bool {
        let exchange = self.clients.get(slot).and_then(|client| client.http.exchange());
        let server = exchange.and_then(|exchange| self.core.exchanges.get(exchange)).and_then(Exchange::server);
        server.is_some_and(|server| is_handler(self.core.links.peers.name(server)))
    }

    /// Ends a client as properly as it can be; a stream that is held as if it were complete.
    fn end_client(&mut self, slot: usize, is_held: bool, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.http.leave(is_held, &mut self.core.context(&mut client.output, now));
        self.touch(slot);
    }

    /// Nobody serves after this process: ends all clients, and writes what they take of their ends. Streams are broken off, as by
    /// Pushpin: there is nothing that they go on with.
    pub(super) fn end_all_clients(&mut self, now: Instant) {
        let slots: Vec<usize> = self.clients.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.end_client(slot, false, now));
        self.attend_to_clients(now);
    }
}

/// Whether an instance is a handler, ours or Pushpin's: those are called after what they are. What others send has an end of its
/// own, and must not look complete without it.
fn is_handler(instance: &[u8]) -> bool {
    instance.strip_prefix(b"pushpin-").unwrap_or(instance).starts_with(b"handler_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_known_by_their_names() {
        for (instance, expected) in
            [(&b"handler_12_0a"[..], true), (b"pushpin-handler_12", true), (b"proxy_12_0a", false), (b"", false)]
        {
            assert_eq!(is_handler(instance), expected);
        }
    }
}
