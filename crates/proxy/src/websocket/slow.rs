// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which clients read too slowly what is published to them: by the same measure as those of held streams, which the handler
//! judges.
//!
//! More than the limit may wait for a while, because one message may be that large. A client is slow when it does not come
//! below within the time, or is behind by many times as much.

use std::time::{Duration, Instant};

/// How many times the limit is too much at once.
const TIMES_AT_ONCE: usize = 16;

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// So many bytes,
    pub bytes: usize,
    /// for longer than this.
    pub time: Duration,
}

/// How long one client has been behind.
#[derive(Debug, Default)]
pub struct Lag {
    due: Option<Instant>,
}

impl Lag {
    /// So much waits now. Whether that is too much.
    pub fn is_too_much(&mut self, weight: usize, limit: &Limit, now: Instant) -> bool {
        if weight <= limit.bytes {
            self.due = None;
            return false;
        }
        let due = *self.due.get_or_insert(now + limit.time);
        due <= now || weight > limit.bytes.saturating_mul(TIMES_AT_ONCE)
    }

    /// When the time is over.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }
}
