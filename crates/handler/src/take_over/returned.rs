// SPDX-License-Identifier: AGPL-3.0-or-later
//! Long-polls of a predecessor that the proxy has again.
//!
//! When a handler ends, the proxy repeats the offers that it has no answer to. The predecessor may have taken such a request, and its
//! successor may have taken it up from the frontend and given it back before it reads the repetition, whose numbers are old.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use zhttp::session::HandedOver;
use zhttp::{Id, PeerId};

/// The proxy waits for no answer for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. It has an entry for a session of the predecessor at most.
#[derive(Default)]
pub struct Returned {
    /// The number of the first packet that was left to the proxy.
    sessions: HashMap<(PeerId, Id), u32, RandomState>,
    /// When the last one was added.
    last: Option<Instant>,
}

impl Returned {
    /// A session of the predecessor goes back.
    pub fn add(&mut self, session: &HandedOver, now: Instant) {
        self.sessions.insert((session.client, session.id), session.out_seq);
        self.last = Some(now);
    }

    /// Whether this is offered as it was before it went back.
    pub fn is_repeated(&mut self, session: &HandedOver, now: Instant) -> bool {
        let Some(last) = self.last else { return false };
        if now.saturating_duration_since(last) > PATIENCE {
            *self = Returned::default();
        }
        self.sessions.get(&(session.client, session.id)).is_some_and(|&number| session.out_seq < number)
    }
}
