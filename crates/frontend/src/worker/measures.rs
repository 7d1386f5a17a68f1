// SPDX-License-Identifier: AGPL-3.0-or-later
//! What operators can measure of the frontend.

use metrics::Page;
use metrics::catalogue::{
    CLIENT_RESPONSE, CLIENT_SESSIONS, CLIENTS, CLIENTS_ACCEPTED, CLIENTS_TAKEN_OVER, CLOSES, DRAINING, MALFORMED,
    QUEUE_BYTES, RECOVER_BYTES, REPLAY_BYTES, REPLAYED,
};

use super::Worker;

impl Worker {
    /// Writes down how it is.
    pub fn measure(&self, page: &mut Page) {
        let counters = &self.counters;
        page.add(&CLIENTS, &[], self.clients.len());
        page.add(&CLIENTS_ACCEPTED, &[], counters.clients);
        page.add(&CLIENTS_TAKEN_OVER, &[], counters.taken_over);
        page.add(&CLIENT_SESSIONS, &[], self.core.exchanges.len());
        page.add_each(
            &CLOSES,
            [
                ("refused", counters.refused - counters.oversized),
                ("message_size", counters.oversized),
                ("proxy_header", counters.unintroduced),
                ("deadline", counters.late),
                ("server_fault", counters.faults),
                ("server_silent", counters.expired),
                ("server_gone", counters.orphaned),
                ("server_full", counters.unreachable),
                ("no_proxy", counters.unserved),
            ],
        );
        page.add(&REPLAYED, &[], self.core.exchanges.replays.again);
        page.add(&REPLAY_BYTES, &[], self.core.exchanges.kept_bytes());
        page.add(&RECOVER_BYTES, &[], self.core.exchanges.recovery_bytes());
        self.core.exchanges.response_times().write(page, &CLIENT_RESPONSE, &[]);
        let unsent: usize = self.clients.iter().map(|(_, client)| client.unsent()).sum();
        page.add_each(&QUEUE_BYTES, [("clients", unsent as u64), ("proxies", self.core.links.waiting_bytes() as u64)]);
        page.add(&DRAINING, &[], self.predecessors.sessions());
        page.add(&MALFORMED, &[], counters.malformed);
        page.add_warnings(|totals| {
            self.warnings.add_to(totals);
            self.reactor.add_warnings(totals);
        });
    }
}
