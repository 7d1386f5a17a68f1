// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that go to another proxy, or wait for one.

use std::time::Instant;

use zhttp::Packet;

use super::Worker;
use crate::transplant::relay::Down;

impl Worker {
    /// A link to a proxy may have ended. What was sent by it was perhaps not read; what was not sent waits for the next.
    pub(super) fn look_for_lost_requests(&mut self, now: Instant) {
        let left = self.core.links.proxies_left();
        if std::mem::replace(&mut self.proxies_left, left) == left || self.core.links.relay.is_some() {
            return;
        }
        self.predecessors.tell(&Down::ProxyLost);
        if !self.core.links.has_proxy() {
            for message in self.core.links.take_unsent() {
                self.take_back(&message, now);
            }
        }
        self.departures.on_requests_lost(&self.core.exchanges, now);
    }

    /// A request that no proxy has got anything of.
    fn take_back(&mut self, message: &[u8], now: Instant) {
        let Ok(packet) = Packet::decode(message) else { return };
        let Some((id, _)) = packet.ids.single() else { return };
        let core = &mut self.core;
        if self.predecessors.owner(id).is_some() {
            // It waits here: its predecessor ends it if that takes too long.
            let _ = core.links.requests.send(message);
            return;
        }
        let Some(slot) = core.exchanges.find(id).map(|exchange| exchange.slot()) else { return };
        if !core.exchanges.take_back(slot, now, &mut core.links) {
            self.counters.unreachable += 1;
            self.lose(slot, Some((503, "The servers of this request take no more.\n")), now);
        }
    }

    /// The proxy of a request is gone; it goes to another one.
    pub(super) fn send_again(&mut self, exchange: u32, now: Instant) {
        let core = &mut self.core;
        core.exchanges.send_again(exchange, now, &mut core.links);
    }

    /// Sends requests that wait when there is a proxy, and ends those that have waited for long enough.
    pub(super) fn attend_to_waiting(&mut self, now: Instant) {
        let core = &mut self.core;
        if core.exchanges.next_given_up_at().is_none() {
            return;
        }
        while core.links.takes_requests() && core.exchanges.send_waiting(now, &mut core.links) {}
        let seconds = self.core.exchanges.replays.patience().as_secs();
        while let Some(slot) = self.core.exchanges.next_given_up(now) {
            self.counters.unserved += 1;
            let text = format_args!("requests are answered with 502: no proxy has come for {seconds} s (replay_wait)");
            self.warnings.warn("no-proxy", now, text);
            self.lose(slot, Some((502, &format!("No proxy has come to take this request for {seconds} s.\n"))), now);
        }
    }
}
