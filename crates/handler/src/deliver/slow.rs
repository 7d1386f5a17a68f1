// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which clients read too slowly.
//!
//! A client may have more waiting than `session_queue_bytes` for a while, because one item may be that large and all
//! clients share its bytes. It is slow when it does not come below within the time, or is behind by many times as much.

use std::time::{Duration, Instant};

use zhttp::Wheel;

use crate::hold::Hold;
use crate::subscribe::channels::HoldKey;

/// How exactly the time is kept.
const TICK: Duration = Duration::from_millis(100);
/// How many times the limit is too much at once.
const TIMES_AT_ONCE: usize = 16;

/// What is to be done about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// It is to be closed.
    Close,
}

/// See the module.
pub struct Slow {
    limit: usize,
    patience: Duration,
    /// Those with too much, to be looked at when their time is over.
    watched: Wheel<(HoldKey, u64)>,
}

impl Slow {
    /// More than `limit` bytes for longer than `patience` are too much.
    pub fn new(limit: usize, patience: Duration, now: Instant) -> Self {
        Slow { limit, patience, watched: Wheel::new(TICK, now) }
    }

    /// Judges a client by what waits for it. One that gets the last of its response is not slow, the response is large.
    pub fn judge(&mut self, key: HoldKey, hold: &mut Hold, now: Instant) -> Verdict {
        let (birth, ending) = (hold.birth, hold.ending);
        let Some(queue) = hold.queue_mut() else { return Verdict::Keep };
        let weight = queue.weight();
        if ending || weight <= self.limit {
            queue.over_since = None;
            return Verdict::Keep;
        }
        let since = *queue.over_since.get_or_insert_with(|| {
            self.watched.insert((key, birth), now + self.patience);
            now
        });
        match now.duration_since(since) >= self.patience || weight > self.limit.saturating_mul(TIMES_AT_ONCE) {
            true => Verdict::Close,
            false => Verdict::Keep,
        }
    }

    /// The next client whose time is over; to be judged again.
    pub fn pop(&mut self, now: Instant) -> Option<(HoldKey, u64)> {
        self.watched.pop(now)
    }

    /// When that is.
    pub fn next_due(&self) -> Option<Instant> {
        self.watched.next()
    }
}
