// SPDX-License-Identifier: AGPL-3.0-or-later
//! When holds are to be looked at.

use std::time::{Duration, Instant};

use zhttp::Wheel;
use zhttp::session::KEEP_ALIVE_SLACK;

use super::Hold;
use crate::subscribe::channels::HoldKey;

/// How exact timeouts are.
const TICK: Duration = Duration::from_millis(100);

/// See the module.
pub struct Timers {
    wheel: Wheel<(HoldKey, u32)>,
    /// The number of the last note. It comes round only long after the wheel has.
    note: u32,
    origin: Instant,
    seed: u64,
}

impl Timers {
    /// Nothing is due.
    pub fn new(now: Instant) -> Self {
        Timers { wheel: Wheel::new(TICK, now), note: 0, origin: now, seed: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Notes when a hold is to be looked at; to be called once after each look, when the hold begins, and when it may have to
    /// be looked at earlier than was noted before. Sessions are
    /// looked at at times that many have in common, so that they share the packets that keep them alive.
    pub fn watch(&mut self, key: HoldKey, hold: &mut Hold) {
        self.note = self.note.wrapping_add(1);
        hold.watch = self.note;
        let due = hold.session.next_due().saturating_duration_since(self.origin).as_nanos();
        let step = KEEP_ALIVE_SLACK.as_nanos();
        let session = self.origin + Duration::from_nanos((due.div_ceil(step) * step) as u64);
        self.wheel.insert((key, hold.watch), hold.next_due().map_or(session, |own| own.min(session)));
    }

    /// The next hold that is to be looked at, with the number of the note; it may be gone, or another than it was, and the
    /// note stale.
    pub fn pop(&mut self, now: Instant) -> Option<(HoldKey, u32)> {
        self.wheel.pop(now)
    }

    /// When that is.
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next()
    }

    /// Up to a second, so that what many holds began together does not stay together.
    pub fn jitter(&mut self) -> Duration {
        // xorshift; it only has to be uneven.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        Duration::from_millis(self.seed % 1000)
    }
}
