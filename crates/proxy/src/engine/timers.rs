// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is due: deadlines, and keep-alives of many sessions in a packet.

use std::time::Instant;

use zhttp::{Bulk, Ext, Id, Kind, Packet};

use super::Engine;
use crate::context::{Links, Way};
use crate::exchange::{Exchange, KeepAlive};

impl Engine {
    /// When [`Engine::on_timer`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let own = [self.timers.next(), self.shared.statistics.next_due(), self.departed.next_due()];
        let others = [self.websockets.next_due(), self.polls.next_due(), self.groups.next_due()];
        own.into_iter().chain(others).flatten().min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, links: &mut dyn Links) {
        self.groups_wait = true;
        self.exchange_timers(now, links);
        self.groups_wait = false;
        self.departed_timer(now, links);
        self.poll_timers(now, links);
        self.group_timers(now, links);
    }

    fn exchange_timers(&mut self, now: Instant, links: &mut dyn Links) {
        let mut clients: Bulk<Way> = Bulk::default();
        let mut origins: Bulk<()> = Bulk::default();
        while let Some(timer) = self.timers.pop(now) {
            let Some(entry) = self.exchanges.get_mut(timer.index) else { continue };
            if entry.exchange.serial() != timer.serial || entry.timer != Some(timer.due) {
                continue;
            }
            entry.timer = None;
            self.with_exchange(timer.index, now, links, |exchange, context| {
                exchange.on_timer(context, &mut |keep_alive| match keep_alive {
                    KeepAlive::Client { to, way, id } => clients.push(to.to, way, id, to.seq),
                    KeepAlive::Origin { to, id } => origins.push(to.to, (), id, to.seq),
                });
            });
        }
        self.with_websockets(now, links, |websockets, context| {
            websockets.on_timer(&mut clients, &mut origins, context);
        });
        if clients.is_empty() && origins.is_empty() {
            return;
        }
        let shared = &self.shared;
        let packet = Packet { from: &shared.instance, kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() };
        let (mut cut_clients, mut cut_origins) = (Vec::new(), Vec::new());
        clients.drain(|peer, way, ids| {
            if !way.send(shared.peers.name(peer), &Packet { ids, ..packet }, links) {
                cut_clients.extend(ids.iter().flatten().filter_map(|(id, _)| Id::new(id)).map(|id| (peer, id)));
            }
        });
        origins.drain(|peer, (), ids| {
            if !links.to_origin(shared.peers.name(peer), &Packet { ids, ..packet }) {
                cut_origins.extend(ids.iter().flatten().filter_map(|(id, _)| Id::parse_indexed(id)));
            }
        });
        for key in cut_clients {
            if let Some(index) = self.by_client.get(&key).copied() {
                self.with_exchange(index, now, links, Exchange::cut_client);
            } else {
                self.with_websockets(now, links, |websockets, context| websockets.cut_client(&key, context));
            }
        }
        for (index, serial) in cut_origins {
            self.with_websockets(now, links, |websockets, context| websockets.cut_origin((index, serial), context));
            let index = index as usize;
            if self.exchanges.get(index).is_some_and(|entry| entry.exchange.is_origin(serial)) {
                self.with_exchange(index, now, links, Exchange::cut_origin);
            }
        }
    }
}
