// SPDX-License-Identifier: AGPL-3.0-or-later
//! What operators can measure of the outbound process.

use metrics::Page;
use metrics::catalogue::{
    BACKEND_CONNECTIONS, BACKEND_ERRORS, BACKEND_OPEN, BACKEND_RECOVER_BYTES, BACKEND_REQUESTS, BACKEND_RESPONSE,
    BACKEND_REUSED, QUEUE_BYTES,
};

use super::Worker;

impl Worker {
    /// Writes down how it is.
    pub(crate) fn measure(&self, page: &mut Page) {
        let counters = self.engine.counters();
        page.add(&BACKEND_REQUESTS, &[], counters.requests);
        page.add(&BACKEND_OPEN, &[], self.engine.len());
        page.add(&BACKEND_RECOVER_BYTES, &[], self.engine.kept_bytes());
        page.add(&BACKEND_CONNECTIONS, &[], counters.connected);
        page.add(&BACKEND_REUSED, &[], counters.reused);
        page.add_each(
            &BACKEND_ERRORS,
            [
                ("failed", counters.failed),
                ("lookups_busy", counters.lookups_refused),
                ("requester_gone", counters.orphaned),
                ("repeated", counters.repeated),
            ],
        );
        let proxies = self.links.waiting_bytes();
        page.add_each(&QUEUE_BYTES, [("proxies", proxies as u64), ("backends", self.engine.unsent() as u64)]);
        counters.response.write(page, &BACKEND_RESPONSE, &[]);
        page.add_warnings(|totals| {
            self.links.warnings.add_to(totals);
            self.reactor.add_warnings(totals);
        });
    }
}
