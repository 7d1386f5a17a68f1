// SPDX-License-Identifier: AGPL-3.0-or-later
//! What frontends have kept of a predecessor of this proxy.

use std::hash::DefaultHasher;
use std::time::Instant;

use zhttp::PeerId;
use zhttp::recovery::Message;

use super::{Engine, malformed};
use crate::context::Links;

impl Engine {
    /// Frontends are asked for the WebSockets of a predecessor, who may name them until then.
    pub fn expect_strangers(&mut self, until: Instant) {
        self.websockets.expect_strangers(until);
    }

    /// Whether a handler is still to be told which WebSockets there are. `ends`: the one that has been told last is about to be gone.
    pub fn tells_all_again(&self, ends: bool) -> bool {
        !self.shared.config.recover_wait.is_zero() && (ends || !self.websockets.has_greeted())
    }

    /// Makes the names of WebSockets with this key, so that a run can be repeated.
    pub fn name_by(&mut self, names: DefaultHasher) {
        self.websockets.name_by(names);
    }

    /// The number by which a frontend is known.
    pub fn peer(&mut self, name: &[u8]) -> Option<PeerId> {
        self.shared.peers.intern(name)
    }

    /// A frontend tells what it has kept of a predecessor. Whether that was all.
    pub fn on_kept(&mut self, frontend: PeerId, message: &[u8], now: Instant, links: &mut dyn Links) -> bool {
        let told = match Message::decode(message) {
            Ok(told) => told,
            Err(error) => {
                malformed(links, "recovery", format_args!("what a frontend has kept can not be read: {error}"));
                return false;
            }
        };
        let is_all = matches!(told, Message::Done { .. });
        let routes = self.routes.clone();
        self.with_websockets(now, links, |websockets, context| match told {
            Message::Seen(seen) => websockets.note_seen(&seen),
            Message::Held { records, sessions } => {
                for alike in sessions.chunk_by(|a, b| a.record == b.record) {
                    let record = alike.first().and_then(|held| records.get(held.record as usize));
                    websockets.take_up(frontend, record.copied().unwrap_or_default(), alike, &routes, context);
                }
            }
            Message::Recover(_) | Message::Done { .. } => {}
        });
        is_all
    }
}
