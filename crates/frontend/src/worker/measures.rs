//! What operators can measure of the frontend.

use std::collections::BTreeMap;

use metrics::Page;
use metrics::catalogue::{CLIENT_SESSIONS, CLIENTS, CLIENTS_ACCEPTED, CLOSES, MALFORMED};

use super::Worker;

impl Worker {
    /// Writes down how it is.
    pub fn measure(&self, page: &mut Page) {
        let counters = &self.counters;
        page.add(&CLIENTS, &[], self.clients.len());
        page.add(&CLIENTS_ACCEPTED, &[], counters.clients);
        page.add(&CLIENT_SESSIONS, &[], self.core.exchanges.len());
        for (reason, total) in [
            ("refused", counters.refused - counters.oversized),
            ("message_size", counters.oversized),
            ("proxy_header", counters.unintroduced),
            ("deadline", counters.late),
            ("server_fault", counters.faults),
            ("server_silent", counters.expired),
            ("server_gone", counters.orphaned),
            ("server_full", counters.unreachable),
        ] {
            page.add(&CLOSES, &[reason], total);
        }
        page.add(&MALFORMED, &[], counters.malformed);
        let mut warnings = BTreeMap::new();
        self.warnings.add_to(&mut warnings);
        self.reactor.add_warnings(&mut warnings);
        page.add_warnings(&warnings);
    }
}
