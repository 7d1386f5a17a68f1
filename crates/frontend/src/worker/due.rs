// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is due: deadlines of clients, keep-alives and expiry of exchanges, credits of quiet sessions.

use std::time::Instant;

use zhttp::session::client::Outgoing;
use zhttp::{Bulk, Kind};

use super::Worker;
use crate::client::deadlines::Late;
use crate::exchange::Over;
use crate::uplink::Refused;

impl Worker {
    pub(super) fn attend_to_timers(&mut self, now: Instant) {
        if self.grants_due.is_some_and(|due| due <= now) {
            self.grants_due = None;
            self.grant_owed();
        }
        while let Some(slot) = self.client_timers.pop(now) {
            self.look_at_client(slot as usize, now);
        }
        let mut keep_alives = Bulk::default();
        while let Some(slot) = self.exchange_timers.pop(now) {
            self.look_at_exchange(slot, now, &mut keep_alives);
        }
        self.core.links.send_bulk(Kind::KeepAlive, keep_alives);
        self.end_refused(now);
    }

    /// Ends the sessions that a packet was refused for. One that a successor of its server may go on with has time, in which the
    /// end of that may be told.
    fn end_refused(&mut self, now: Instant) {
        let mut refused = self.core.links.take_refused();
        let exchanges = &mut self.core.exchanges;
        let doubtful = &mut self.doubtful;
        refused.retain(|refused| {
            let may_go_on =
                exchanges.find(refused.id.as_bytes()).is_some_and(|exchange| exchange.kept.record.is_some());
            if may_go_on {
                doubtful.add(*refused, now);
            }
            !may_go_on
        });
        refused.extend(doubtful.take_due(now).into_iter().filter(|refused| {
            let exchange = exchanges.find(refused.id.as_bytes());
            exchange.is_some_and(|exchange| exchange.server() == refused.server)
        }));
        if refused.is_empty() {
            return;
        }
        let text = format_args!(
            "{} sessions are ended: proxy or handler is gone, or too much waits for it already",
            refused.len()
        );
        self.warnings.warn("refused", now, text);
        for Refused { id, .. } in refused {
            if let Some(slot) = self.core.exchanges.find(id.as_bytes()).map(|exchange| exchange.slot()) {
                self.counters.unreachable += 1;
                self.lose(slot, Some((503, "The servers of this request take no more.\n")), now);
            }
        }
    }

    pub(super) fn grant_owed(&mut self) {
        for (slot, serial) in std::mem::take(&mut self.owing) {
            if let Some(exchange) = self.core.exchanges.get_mut(slot).filter(|e| e.serial() == serial) {
                exchange.grant(&mut self.core.links);
            }
        }
        self.core.links.send_grants();
    }

    /// Ends a client whose time is up.
    fn look_at_client(&mut self, slot: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.pacing.due(&self.core.config.deadlines) {
            None => {}
            Some((due, _)) if due > now => self.client_timers.arm(slot as u32, due),
            Some((_, late)) => {
                let address = client.http.address();
                let session = client.http.exchange().and_then(|slot| self.core.exchanges.get(slot)).map(|e| e.id());
                tracing::debug!(
                    client = address.map(tracing::field::display),
                    session = session.map(tracing::field::display),
                    "closed: {}",
                    late.reason()
                );
                self.counters.late += 1;
                client.http.on_gone(&mut self.core.context(&mut client.output, now));
                if late == Late::Write {
                    // What it has must not look complete, and what it has not must not stay in the system's memory.
                    client.io.abort();
                }
                self.close(slot);
            }
        }
    }

    /// Keeps a session alive, or ends it.
    fn look_at_exchange(&mut self, slot: u32, now: Instant, keep_alives: &mut Bulk<()>) {
        let Some(exchange) = self.core.exchanges.get_mut(slot) else { return };
        let links = &mut self.core.links;
        match exchange.on_timer(now, |Outgoing { to, seq }, id| keep_alives.push(to, (), id, seq)) {
            Ok(due) => self.exchange_timers.arm(slot, due),
            Err(Over::Unwanted) => {
                exchange.cancel(links);
                self.lose(slot, None, now);
            }
            Err(Over::Unpushed) => {
                exchange.cancel(links);
                let text = format_args!("session {} is ended: who pushed into it was silent for 60 s", exchange.id());
                self.warnings.warn("expired", now, text);
                self.counters.expired += 1;
                self.lose(slot, None, now);
            }
            Err(Over::Expired) => {
                let text = format_args!("session {} is ended: its server was silent for 60 s", exchange.id());
                self.warnings.warn("expired", now, text);
                self.counters.expired += 1;
                self.lose(slot, None, now);
            }
        }
    }

    /// Ends an exchange whose server is no longer there: with a page, if its client has got nothing yet.
    pub(super) fn lose(&mut self, exchange: u32, page: Option<(u16, &str)>, now: Instant) {
        let client = self.core.exchanges.get(exchange).and_then(|exchange| exchange.client());
        self.core.exchanges.close(exchange);
        let Some(slot) = client.map(|slot| slot as usize) else { return };
        if let Some(client) = self.clients.get_mut(slot) {
            client.http.on_lost(page, &mut self.core.context(&mut client.output, now));
            self.touch(slot);
        }
    }
}
