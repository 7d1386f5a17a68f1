// SPDX-License-Identifier: AGPL-3.0-or-later
//! Deadlines of many sessions, cheap to set and never moved.
//!
//! Most deadlines are pushed back before they are due: a session hears from its peer and lives on. So an entry is not
//! moved when that happens. When it comes up, its owner looks at the session and puts it in again if it is not due. A
//! session costs one small entry, whatever happens to it.

use std::time::{Duration, Instant};

/// Slots of the wheel; deadlines further away than all of them come up early and are put in again.
const SLOTS: usize = 512;

/// A timer wheel. Times are rounded up to its tick, so nothing comes up early but what is beyond its range.
pub struct Wheel<K> {
    slots: Vec<Vec<K>>,
    /// A bit for each slot that has entries.
    occupied: [u64; SLOTS / 64],
    /// In nanoseconds.
    tick: u64,
    origin: Instant,
    /// Ticks that have been given out.
    done: u64,
    /// The tick of the last look; what is put in now comes up later than that, so that giving out comes to an end.
    current: u64,
    len: usize,
}

impl<K> Wheel<K> {
    /// A wheel that tells times apart by `tick`.
    pub fn new(tick: Duration, now: Instant) -> Self {
        Wheel {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            tick: tick.as_nanos() as u64,
            origin: now,
            done: 0,
            current: 0,
            len: 0,
        }
    }

    /// Since the wheel was made, in nanoseconds; 64 bits are 584 years.
    fn age(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// Puts an entry in.
    pub fn insert(&mut self, entry: K, due: Instant) {
        let ticks = self.age(due).div_ceil(self.tick);
        let ticks = ticks.max(self.current + 1).min(self.done + SLOTS as u64 - 1);
        let slot = (ticks % SLOTS as u64) as usize;
        self.slots[slot].push(entry);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    /// The next entry that is due. The caller checks whether it really is, and puts it in again if not.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let current = self.age(now) / self.tick;
        self.current = self.current.max(current);
        while self.done < current {
            let at = ((self.done + 1) % SLOTS as u64) as usize;
            let slot = &mut self.slots[at];
            if let Some(entry) = slot.pop() {
                self.len -= 1;
                return Some(entry);
            }
            self.occupied[at / 64] &= !(1 << (at % 64));
            if slot.capacity() > 1024 {
                slot.shrink_to(64);
            }
            // An empty wheel needs no turning.
            self.done = if self.len == 0 { current } else { self.done + 1 };
        }
        None
    }

    /// When to look again: the next tick with an entry, or `None` if the wheel is empty.
    pub fn next(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        Some(self.origin + Duration::from_nanos(self.tick * (self.done + self.ahead()?)))
    }

    /// Ticks from the last one given out to the next that has entries. An entry that was taken out leaves the bit of its
    /// slot behind, so this may be a tick that has none any more: then the owner looks once too often.
    fn ahead(&self) -> Option<u64> {
        let first = ((self.done + 1) % SLOTS as u64) as usize;
        let words = self.occupied.len();
        (0..=words).find_map(|i| {
            let word = (first / 64 + i) % words;
            // The first word is looked at twice: from the first slot on, and at the end from its beginning.
            let before = (1u64 << (first % 64)) - 1;
            let bits = self.occupied[word]
                & if i == 0 {
                    !before
                } else if i == words {
                    before
                } else {
                    u64::MAX
                };
            let slot = word * 64 + bits.trailing_zeros() as usize;
            (bits != 0).then(|| 1 + ((slot + SLOTS - first) % SLOTS) as u64)
        })
    }

    /// Entries in the wheel.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the wheel is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn drain(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
        let mut all: Vec<u32> = std::iter::from_fn(|| wheel.pop(now)).collect();
        all.sort();
        all
    }

    #[test]
    fn entries_come_up_at_their_time_and_not_before() {
        let start = Instant::now();
        let mut wheel = Wheel::new(TICK, start);
        for (entry, ms) in [(1, 100), (2, 150), (3, 1000), (4, 0)] {
            wheel.insert(entry, start + Duration::from_millis(ms));
        }
        assert_eq!(drain(&mut wheel, start + Duration::from_millis(99)), []);
        assert_eq!(drain(&mut wheel, start + Duration::from_millis(100)), [1, 4]);
        assert_eq!(wheel.next(), Some(start + Duration::from_millis(200)));
        assert_eq!(drain(&mut wheel, start + Duration::from_millis(999)), [2]);
        assert_eq!(drain(&mut wheel, start + Duration::from_millis(5000)), [3]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn an_entry_beyond_the_range_comes_up_within_it() {
        let start = Instant::now();
        let mut wheel = Wheel::new(TICK, start);
        wheel.insert(1, start + TICK * 10_000);
        let now = wheel.next().unwrap();
        assert_eq!(drain(&mut wheel, now), [1]);
    }

    #[test]
    fn an_entry_put_in_for_now_while_entries_are_given_out_comes_up_at_the_next_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(TICK, start);
        wheel.insert(1, start + TICK);
        let now = start + TICK;
        assert_eq!(wheel.pop(now), Some(1));
        wheel.insert(2, now);
        assert_eq!(wheel.pop(now), None);
        assert_eq!(drain(&mut wheel, now + TICK), [2]);
    }

    #[test]
    fn the_next_tick_is_found_wherever_the_wheel_stands() {
        let start = Instant::now();
        for stands in [1, 2, 62, 63, 64, 127, 500, 510, 511, 512, 1000] {
            for ahead in [1, 2, 63, 64, 65, 300, 448, 510] {
                let mut wheel = Wheel::new(TICK, start);
                wheel.insert(0, start);
                drain(&mut wheel, start + TICK * stands);
                wheel.insert(1, start + TICK * (stands + ahead));
                assert_eq!(wheel.next(), Some(start + TICK * (stands + ahead)), "{stands} {ahead}");
                assert_eq!(drain(&mut wheel, start + TICK * (stands + ahead - 1)), []);
                assert_eq!(drain(&mut wheel, start + TICK * (stands + ahead)), [1]);
            }
        }
    }
}
