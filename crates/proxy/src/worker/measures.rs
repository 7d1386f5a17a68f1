// SPDX-License-Identifier: AGPL-3.0-or-later
//! What operators can measure of the proxy.

use metrics::Page;
use metrics::catalogue::{
    CONNECTION_CONNECTED, CONNECTION_MINUTE, PACKETS_LOST, QUEUE_BYTES, REQUEST_RECEIVED, REQUESTS, REQUESTS_OPEN,
};

use super::Worker;

impl Worker {
    /// Writes down how it is.
    pub(super) fn measure(&mut self, page: &mut Page) {
        let (arrivals, open) = (self.engine.arrivals(), self.engine.open());
        let (all_arrivals, all_open) = (arrivals.http + arrivals.websockets, open.http + open.websockets);
        page.add(&REQUEST_RECEIVED, &[], all_arrivals);
        page.add(&CONNECTION_CONNECTED, &[], all_open);
        // The first minute of each counts when it begins.
        page.add(&CONNECTION_MINUTE, &[], all_arrivals + self.minutes.look(all_open, self.sockets.now));
        for (kind, arrivals, open) in [("http", arrivals.http, open.http), ("ws", arrivals.websockets, open.websockets)]
        {
            page.add(&REQUESTS, &[kind], arrivals);
            page.add(&REQUESTS_OPEN, &[kind], open);
        }
        let sockets = &self.sockets;
        let frontends = sockets.stream.load().bytes + sockets.responses.load().bytes;
        let backends = sockets.origin_out.load().bytes + sockets.origin_stream.load().bytes;
        page.add_each(&QUEUE_BYTES, [("frontends", frontends as u64), ("backends", backends as u64)]);
        page.add(&PACKETS_LOST, &[], self.sockets.lost);
        page.add_warnings(|totals| {
            self.sockets.warnings.add_to(totals);
            self.reactor.add_warnings(totals);
        });
    }
}
