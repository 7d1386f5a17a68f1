// SPDX-License-Identifier: AGPL-3.0-or-later
//! Closing many clients, one after the other, so that they do not all come back at once.

use std::time::{Duration, Instant};

use zhttp::Wheel;

const TICK: Duration = Duration::from_millis(10);

/// Entries that come up one after the other.
pub(crate) struct Spread<T> {
    wheel: Wheel<T>,
    /// The last one comes up so long after the first.
    period: Duration,
}

impl<T> Spread<T> {
    pub(crate) fn over(period: Duration, now: Instant) -> Self {
        Spread { wheel: Wheel::new(TICK, now), period }
    }

    /// Comes up within the period, at a time that depends on `serial` only.
    pub(crate) fn add(&mut self, entry: T, serial: u64, from: Instant) {
        self.wheel.insert(entry, from + delay(self.period, serial));
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        self.wheel.pop(now)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.wheel.next()
    }
}

/// Multiples of the golden ratio are even over any run of numbers, also if every second or third is left out.
fn delay(period: Duration, serial: u64) -> Duration {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = serial.wrapping_mul(GOLDEN) >> 32;
    Duration::from_nanos(((period.as_nanos() * u128::from(fraction)) >> 32) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(1);

    #[test]
    fn many_come_up_evenly_within_a_second_whichever_numbers_they_have() {
        for stride in [1, 2, 3, 4, 16, 1000] {
            let start = Instant::now();
            let mut spread = Spread::over(SPREAD, start);
            for number in 0..1000 {
                spread.add(number, 5_000_000 + number * stride, start);
            }
            let mut seen = Vec::new();
            for tenth in 1..=10 {
                let now = start + SPREAD * tenth / 10;
                let some: Vec<u64> = std::iter::from_fn(|| spread.pop(now)).collect();
                assert!((80..=120).contains(&some.len()), "{} of 1000 in tenth {tenth}, stride {stride}", some.len());
                seen.extend(some);
            }
            // The last may be a tick late.
            seen.extend(std::iter::from_fn(|| spread.pop(start + SPREAD + 2 * TICK)));
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..1000), "each once, stride {stride}");
            assert_eq!(spread.next(), None);
        }
    }

    #[test]
    fn the_same_number_comes_up_after_the_same_time() {
        let start = Instant::now();
        let mut spread = Spread::over(SPREAD, start);
        spread.add((), 7, start);
        assert_eq!(spread.pop(start + delay(SPREAD, 7) - TICK), None);
        assert_eq!(spread.pop(start + delay(SPREAD, 7) + TICK), Some(()));
    }
}
