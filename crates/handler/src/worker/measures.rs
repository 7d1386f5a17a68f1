// SPDX-License-Identifier: AGPL-3.0-or-later
//! What operators can measure of the handler.

use limited::Limited;
use metrics::Page;
use metrics::catalogue::{
    CHANNELS, CONNECTION_CONNECTED, CONNECTION_MINUTE, CONTENT_BYTES, DELIVERIES, DROPS, HOLDS, HOLDS_ENDED,
    HOLDS_RECOVERED, LINK_REQUESTS, MESSAGE_RECEIVED, MESSAGE_SENT, MESSAGES, MESSAGES_WAITING, PUBLISH, QUEUE_BYTES,
};

use super::Worker;
use crate::engine::Totals;

/// Items that have come, by the way they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    pub(super) http: u64,
    pub(super) command: u64,
    pub(super) pull: u64,
    pub(super) sub: u64,
}

impl Worker {
    /// Writes down how it is. `control_port`: its warnings.
    pub fn measure(&mut self, control_port: Option<&Limited>, page: &mut Page) {
        let (totals, counters) = (self.engine.totals(), self.engine.counters());
        let audience = self.engine.audience();
        let (holds, polls) = (self.engine.held(), audience.holds.polls());
        page.add(&CONNECTION_CONNECTED, &[], holds);
        page.add(&CONNECTION_MINUTE, &[], self.minutes.look(holds as u64, self.outputs.now));
        page.add(&MESSAGE_RECEIVED, &[], counters.received);
        page.add(&MESSAGE_SENT, &[], counters.sent);
        page.add(&HOLDS, &["response"], polls);
        page.add(&HOLDS, &["stream"], holds - polls);
        page.add(&HOLDS, &["ws"], audience.sockets.len());
        page.add(&CHANNELS, &[], audience.channels.len());
        page.add(&MESSAGES_WAITING, &[], self.backlog.len());
        self.publish_times.write(page, &PUBLISH, &[]);
        let (frontends, proxies) = self.outputs.waiting_bytes();
        for (queue, bytes) in [("publishing", self.backlog.bytes()), ("frontends", frontends), ("proxies", proxies)] {
            page.add(&QUEUE_BYTES, &[queue], bytes);
        }
        page.add(&CONTENT_BYTES, &[], counters.content_bytes_sent);
        let Inputs { http, command, pull, sub } = self.inputs;
        for (input, total) in [("http", http), ("command", command), ("pull", pull), ("sub", sub)] {
            page.add(&MESSAGES, &[input], total);
        }
        write(&totals, page);
        page.add_warnings(|totals| {
            self.outputs.warnings.add_to(totals);
            self.reactor.add_warnings(totals);
            control_port.iter().for_each(|port| port.add_to(totals));
        });
    }
}

/// Writes down what the engine has counted.
fn write(totals: &Totals, page: &mut Page) {
    let deliveries = &totals.deliveries;
    let streams = deliveries.sent - deliveries.responses_sent - deliveries.sockets_sent;
    for (mode, total) in [("response", deliveries.responses_sent), ("stream", streams), ("ws", deliveries.sockets_sent)]
    {
        page.add(&DELIVERIES, &[mode], total);
    }
    page.add_each(
        &DROPS,
        [
            ("filtered", deliveries.filtered),
            ("filter_failed", deliveries.filter_failed),
            ("repeated", totals.repeated),
            ("out_of_order", totals.out_of_order),
            ("ids_forgotten", totals.ids_forgotten),
            ("page_backlog", deliveries.kept_dropped),
            ("filter_backlog", deliveries.inquiries_dropped),
            ("rate", totals.over_rate),
            ("gone_link", totals.fetches.dropped),
        ],
    );
    page.add_each(
        &HOLDS_ENDED,
        [
            ("slow_client", totals.slow_closed),
            ("link_full", totals.lost),
            ("frontend_gone", totals.frontend_gone),
            ("behind", totals.behind),
            ("not_recovered", totals.refused),
            ("given_back", totals.given_back),
            ("ws_silent", totals.websockets_expired),
            ("ws_unacknowledged", totals.websockets_unanswered),
            ("ws_link_full", totals.websockets_lost),
        ],
    );
    page.add(&HOLDS_RECOVERED, &[], totals.taken_up);
    page.add(&LINK_REQUESTS, &["made"], totals.fetches.made);
    page.add(&LINK_REQUESTS, &["failed"], totals.fetches.failed);
}
