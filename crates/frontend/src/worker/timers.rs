// SPDX-License-Identifier: AGPL-3.0-or-later
//! One timer for each slot of a table.
//!
//! Deadlines are pushed back all the time and seldom come true, and slots are used again and again. So a slot has one
//! entry in a wheel, which stays when its owner's deadline moves back or another owner takes the slot. When the entry
//! comes up, whoever is in the slot is looked at, and the slot is put in again for what is due then.

use std::time::{Duration, Instant};

use zhttp::Wheel;

/// How exact the timers are.
const TICK: Duration = Duration::from_millis(TICK_MS);
const TICK_MS: u64 = 250;

/// The timers of a table.
pub(crate) struct SlotTimers {
    wheel: Wheel<(u32, u32)>,
    origin: Instant,
    /// By slot: the tick of the entry that counts; 0 if there is none.
    armed: Vec<u32>,
}

impl SlotTimers {
    /// For a table of so many slots.
    pub(crate) fn new(slots: usize, now: Instant) -> Self {
        SlotTimers { wheel: Wheel::new(TICK, now), origin: now, armed: vec![0; slots] }
    }

    /// Sees to it that the slot comes up at `due`, or earlier.
    pub(crate) fn arm(&mut self, slot: u32, due: Instant) {
        let tick = (due.saturating_duration_since(self.origin).as_millis() as u64 / TICK_MS + 1) as u32;
        let index = slot as usize;
        if index >= self.armed.len() {
            self.armed.resize(index + 1, 0);
        }
        let armed = &mut self.armed[index];
        if *armed == 0 || tick < *armed {
            *armed = tick;
            self.wheel.insert((slot, tick), due);
        }
    }

    /// Whether the slot comes up at some time.
    pub(crate) fn is_armed(&self, slot: u32) -> bool {
        self.armed.get(slot as usize).is_some_and(|&tick| tick != 0)
    }

    /// A slot that is to be looked at.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<u32> {
        loop {
            let (slot, tick) = self.wheel.pop(now)?;
            let armed = &mut self.armed[slot as usize];
            // Otherwise it is armed for another time, and this is what is left of an earlier one.
            if *armed == tick {
                *armed = 0;
                return Some(slot);
            }
        }
    }

    /// When a slot comes up next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.wheel.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn drain(timers: &mut SlotTimers, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop(now)).collect()
    }

    #[test]
    fn a_slot_comes_up_once_at_the_earliest_time_it_was_armed_for() {
        let start = Instant::now();
        let mut timers = SlotTimers::new(4, start);
        timers.arm(1, at(start, 60));
        timers.arm(1, at(start, 70));
        assert_eq!(drain(&mut timers, at(start, 59)), []);
        timers.arm(1, at(start, 60));
        timers.arm(2, at(start, 65));
        timers.arm(2, at(start, 62));
        assert_eq!(drain(&mut timers, at(start, 61)), [1]);
        assert_eq!(drain(&mut timers, at(start, 63)), [2]);
        assert_eq!(drain(&mut timers, at(start, 100)), []);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_slot_that_is_used_ten_thousand_times_has_one_entry() {
        let start = Instant::now();
        let mut timers = SlotTimers::new(1, start);
        for _ in 0..10_000 {
            timers.arm(0, at(start, 44));
        }
        assert_eq!(timers.wheel.len(), 1);
    }
}
