// SPDX-License-Identifier: AGPL-3.0-or-later
//! Carries out what becomes of the sessions of servers that have gone, and offers them to successors.

use std::time::Instant;

use transport::Reason;
use zhttp::PeerId;

use super::Worker;
use crate::departure::{Nature, Step};
use crate::exchange::Exchange;
use crate::keep::offer;
use crate::transplant::relay::Down;

/// What clients are told that have got nothing yet.
const GONE: Option<(u16, &str)> =
    Some((502, "The server of this request is gone. It may have carried it out, so it is not asked again.\n"));

impl Worker {
    /// A server has gone.
    pub(super) fn on_left(&mut self, name: &[u8], reason: Reason, now: Instant) {
        let Some(peer) = self.core.links.peers.intern(name) else { return };
        tracing::debug!("{} has left: {reason:?}", String::from_utf8_lossy(name));
        self.predecessors.tell(&Down::Left(name.to_vec()));
        self.departures.on_left(peer, name, &mut self.core.exchanges, now);
    }

    /// Ends a step's worth of sessions whose server has gone.
    pub(super) fn end_departed(&mut self, now: Instant) {
        if self.departures.next_due().is_none_or(|due| due > now) {
            return;
        }
        let clients = &self.clients;
        let nature = |exchange: &Exchange| {
            let client = exchange.client().and_then(|slot| clients.get(slot as usize));
            client.map_or(Nature::Request, |client| client.http.nature())
        };
        let Step { ended, again, unpushed, orphaned, offer, news } =
            self.departures.step(&mut self.core.exchanges, nature, now);
        self.counters.orphaned += orphaned as u64;
        ended.into_iter().for_each(|exchange| self.lose(exchange, GONE, now));
        again.into_iter().for_each(|exchange| self.send_again(exchange, now));
        unpushed.into_iter().for_each(|exchange| self.lose_pushes(exchange, now));
        news.iter().for_each(|news| tracing::warn!("{news}"));
        if let Some((place, successor)) = offer {
            self.offer(place, successor, now);
        }
    }

    /// Who pushed into a session has gone. The session goes on without it, as its own server says.
    fn lose_pushes(&mut self, exchange: u32, now: Instant) {
        let Some(client) = self.core.exchanges.get(exchange).and_then(|exchange| exchange.client()) else { return };
        if let Some(client) = self.clients.get_mut(client as usize) {
            client.http.on_pushes_lost(&mut self.core.context(&mut client.output, now));
        }
        if let Some(client) = self.core.exchanges.get(exchange).and_then(|exchange| exchange.client()) {
            self.touch(client as usize);
        }
    }

    /// A server asks for the sessions of its predecessor.
    pub(super) fn on_question(&mut self, from: &[u8], message: &[u8], now: Instant) {
        let Some(server) = self.core.links.peers.intern(from) else { return };
        match offer::on_question(&mut self.core.exchanges, server, message) {
            Ok(place) => place.into_iter().for_each(|place| self.offer(place, server, now)),
            Err(error) => {
                self.counters.malformed += 1;
                let text = format_args!("a question of a server for its predecessor's sessions is skipped: {error}");
                self.warnings.warn("recovery", now, text);
            }
        }
    }

    fn offer(&mut self, place: usize, to: PeerId, now: Instant) {
        let offer = offer::offer(&mut self.core.exchanges, place, to, now);
        let sent = offer.packets.iter().all(|packet| self.core.links.send_raw(to, packet));
        if !sent {
            self.warnings.warn("offer", now, "a server does not take the sessions of its predecessor");
        } else if offer.sessions > 0 {
            tracing::info!("{} sessions are offered to the successor of their server", offer.sessions);
        }
    }
}
