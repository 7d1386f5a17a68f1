// SPDX-License-Identifier: AGPL-3.0-or-later
//! A publisher that waits for its answer, and repeats what it has none for.

use super::{CHANNELS, Order, World};
use crate::net::Part;

impl World {
    pub(super) fn publish(&mut self) {
        if self.order.is_some() {
            // The publisher waits for its answer.
            return;
        }
        let mut items = Vec::new();
        for _ in 0..=self.random.below(4) {
            let channel = CHANNELS[self.random.below(CHANNELS.len())];
            let number = self.facts.published.entry(channel).or_default();
            *number += 1;
            self.items += 1;
            let length = if self.random.once_in(15) { 2_500 } else { self.random.below(60) };
            let content = format!("{},{channel},{number},{};", self.items, "x".repeat(length));
            let short = format!("{},{channel},{number}", self.items);
            items.push(format!(
                r#"J{{"channel":"{channel}","id":"{}","formats":{{"http-stream":{{"content":"{content}"}},"http-response":{{"body":"{content}"}},"ws-message":{{"content":"{short}"}}}}}}"#,
                self.items
            ));
        }
        if self.random.once_in(3) {
            // The backend has it first, and may be asked before it is published.
            self.backend.stored += 1;
            let (id, prev) = (self.backend.stored, self.backend.stored - 1);
            let response = format!(r#"{{"http-response":{{"body":"{id},{id};"}}}}"#);
            items.push(format!(r#"J{{"channel":"r","id":"{id}","prev-id":"{prev}","formats":{response}}}"#));
        }
        self.order = Some(Order { items, is_given: false });
        self.attend_to_publisher();
    }

    /// Gives the handler what is to be published, and the publisher its answer: when it has left the handler, or a frontend does not
    /// keep up.
    pub(super) fn attend_to_publisher(&mut self) {
        let Some(order) = &mut self.order else { return };
        if self.net.stopped.contains(&Part::Handler) || self.handler.is_recovering() {
            return;
        }
        if !std::mem::replace(&mut order.is_given, true) {
            self.net.end_turn(Part::Handler);
            self.handler.publish(&order.items, self.now, &mut self.net);
        }
        if self.handler.acknowledges(self.now, &self.net) {
            self.net.end_turn(Part::Handler);
            self.order = None;
        }
    }
}
