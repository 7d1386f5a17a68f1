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
    tick: Duration,
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
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick, origin: now, done: 0, current: 0, len: 0 }
    }

    /// Puts an entry in.
    pub fn insert(&mut self, entry: K, due: Instant) {
        let ticks = due.saturating_duration_since(self.origin).as_nanos().div_ceil(self.tick.as_nanos()) as u64;
        let ticks = ticks.max(self.current + 1).min(self.done + SLOTS as u64 - 1);
        self.slots[(ticks % SLOTS as u64) as usize].push(entry);
        self.len += 1;
    }

    /// The next entry that is due. The caller checks whether it really is, and puts it in again if not.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let current = (now.saturating_duration_since(self.origin).as_nanos() / self.tick.as_nanos()) as u64;
        self.current = self.current.max(current);
        while self.done < current {
            let slot = &mut self.slots[((self.done + 1) % SLOTS as u64) as usize];
            if let Some(entry) = slot.pop() {
                self.len -= 1;
                return Some(entry);
            }
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
        let ahead = (1..=SLOTS as u64).find(|i| !self.slots[((self.done + i) % SLOTS as u64) as usize].is_empty())?;
        let nanos = self.tick.as_nanos() * u128::from(self.done + ahead);
        Some(self.origin + Duration::from_nanos(nanos as u64))
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
}
