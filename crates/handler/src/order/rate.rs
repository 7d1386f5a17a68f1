// SPDX-License-Identifier: AGPL-3.0-or-later
//! `message_rate` and `message_hwm`: how fast deliveries leave, when that is limited (publishing, limiter).
//!
//! A delivery counts as one, or, with `message_block_size`, as one for each block of its content.
//!
//! Unset, which is our default, deliveries are not limited here: flow control of each client does that. Set, they mean
//! what they mean in Pushpin: deliveries a second, and deliveries that may wait for one route; what exceeds the latter is
//! dropped, counted and logged.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Deliveries that may wait for a route when `message_hwm` does not say.
const MAX_WAITING: usize = 1_000_000;
/// What one delivery counts for at most, whatever its publisher says of its size.
const MAX_WEIGHT: usize = 10_000;
/// Time between batches at rates above 40 a second.
const TICK: Duration = Duration::from_millis(25);

/// A route, or `None` for all that are not counted apart.
pub type Bucket = Option<Rc<str>>;

/// Deliveries that wait for their turn.
pub struct Limiter<T> {
    tick: Duration,
    /// Deliveries a tick.
    batch: usize,
    high_water_mark: usize,
    buckets: BTreeMap<Bucket, Waiting<T>>,
    /// The end of the current tick, and what has left in it. A delivery that counts for more than is left of a tick uses
    /// up the next ones.
    tick_ends: Option<Instant>,
    used: usize,
    /// Deliveries dropped.
    pub dropped: u64,
}

/// What waits for one route.
struct Waiting<T> {
    /// Each with what it counts for.
    deliveries: VecDeque<(usize, T)>,
    weight: usize,
}

/// A delivery does not fit; it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded;

impl<T> Limiter<T> {
    /// `rate` deliveries a second, and at most `high_water_mark` waiting for a route (`None`: a million).
    pub fn new(rate: u32, high_water_mark: Option<u32>) -> Self {
        let (tick, batch) = if rate >= 40 {
            (TICK, rate.div_ceil(40) as usize)
        } else {
            (Duration::from_millis(1000 / u64::from(rate.max(1))), 1)
        };
        let high_water_mark = high_water_mark.map_or(MAX_WAITING, |n| n as usize);
        Limiter { tick, batch, high_water_mark, buckets: BTreeMap::new(), tick_ends: None, used: 0, dropped: 0 }
    }

    /// Whether deliveries that count for so much may leave at once, all together, because nothing waits and the rate allows
    /// it. They count then. This keeps a limit that is far from being reached from costing anything.
    pub fn admit(&mut self, weight: usize, now: Instant) -> bool {
        self.begin_tick(now);
        let fits = self.buckets.is_empty() && self.used.saturating_add(weight) <= self.batch;
        self.used += if fits { weight } else { 0 };
        fits
    }

    fn begin_tick(&mut self, now: Instant) {
        match self.tick_ends {
            Some(end) if end > now => {}
            Some(end) => {
                let ticks = 1 + (now.duration_since(end).as_nanos() / self.tick.as_nanos()) as usize;
                self.used = self.used.saturating_sub(self.batch.saturating_mul(ticks));
                self.tick_ends = Some(now + self.tick);
            }
            None => self.tick_ends = Some(now + self.tick),
        }
    }

    /// Adds a delivery that counts for `weight`, at least one.
    ///
    /// # Errors
    /// As much as may wait for the route is waiting already.
    pub fn add(&mut self, bucket: Bucket, weight: usize, delivery: T) -> Result<(), Exceeded> {
        let weight = weight.clamp(1, MAX_WEIGHT);
        let waiting = self.buckets.entry(bucket).or_insert_with(|| Waiting { deliveries: VecDeque::new(), weight: 0 });
        // One that is too large for the mark by itself may wait alone.
        if !waiting.deliveries.is_empty() && waiting.weight.saturating_add(weight) > self.high_water_mark {
            self.dropped += 1;
            return Err(Exceeded);
        }
        waiting.weight += weight;
        waiting.deliveries.push_back((weight, delivery));
        Ok(())
    }

    /// When deliveries that wait may leave; a time that may have passed.
    pub fn next_due(&self) -> Option<Instant> {
        if self.buckets.is_empty() {
            return None;
        }
        let ticks = (self.used / self.batch) as u32;
        self.tick_ends.map(|end| if ticks == 0 { end - self.tick } else { end + self.tick * (ticks - 1) })
    }

    /// The deliveries that may leave now, from all routes in turns.
    pub fn take(&mut self, now: Instant) -> Vec<T> {
        let mut out = Vec::new();
        if self.buckets.is_empty() {
            return out;
        }
        self.begin_tick(now);
        while self.used < self.batch && !self.buckets.is_empty() {
            for waiting in self.buckets.values_mut() {
                if self.used < self.batch
                    && let Some((weight, delivery)) = waiting.deliveries.pop_front()
                {
                    waiting.weight -= weight;
                    self.used += weight;
                    out.push(delivery);
                }
            }
            self.buckets.retain(|_, waiting| !waiting.deliveries.is_empty());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_leave_at_the_rate() {
        let now = Instant::now();
        let mut limiter = Limiter::new(10, None);
        for i in 0..3 {
            limiter.add(None, 1, i).unwrap();
        }
        assert_eq!(limiter.take(now), [0]);
        assert_eq!(limiter.take(now + Duration::from_millis(99)), [0; 0]);
        assert_eq!(limiter.take(now + Duration::from_millis(100)), [1]);
        assert_eq!(limiter.next_due(), Some(now + Duration::from_millis(200)));
    }

    #[test]
    fn high_rates_leave_in_batches() {
        let now = Instant::now();
        let mut limiter = Limiter::new(2500, None);
        for i in 0..100 {
            limiter.add(None, 1, i).unwrap();
        }
        assert_eq!(limiter.take(now).len(), 63);
        assert_eq!(limiter.take(now + TICK).len(), 37);
        assert_eq!(limiter.take(now + TICK * 2).len(), 0);
        assert_eq!(limiter.next_due(), None);
    }

    #[test]
    fn what_exceeds_the_mark_of_a_route_is_dropped_and_counted() {
        let mut limiter = Limiter::new(10, Some(2));
        let route: Bucket = Some("r".into());
        assert_eq!([1, 2, 3].map(|i| limiter.add(route.clone(), 1, i)), [Ok(()), Ok(()), Err(Exceeded)]);
        assert_eq!(limiter.add(None, 1, 4), Ok(()));
        assert_eq!(limiter.dropped, 1);
    }

    #[test]
    fn routes_take_turns() {
        let now = Instant::now();
        let mut limiter = Limiter::new(160, None);
        let route: Bucket = Some("r".into());
        for i in 0..4 {
            limiter.add(None, 1, i).unwrap();
            limiter.add(route.clone(), 1, 10 + i).unwrap();
        }
        assert_eq!(limiter.take(now), [0, 10, 1, 11]);
    }

    #[test]
    fn what_the_rate_allows_leaves_at_once_and_counts() {
        let now = Instant::now();
        let mut limiter = Limiter::new(4000, None);
        assert!(limiter.admit(60, now));
        assert!(!limiter.admit(60, now));
        limiter.add(None, 1, 1).unwrap();
        assert!(!limiter.admit(1, now), "what comes later must not overtake what waits");
        assert_eq!(limiter.take(now), [1]);
        assert!(limiter.admit(39, now));
        assert!(!limiter.admit(1, now));
        assert!(limiter.admit(100, now + TICK));
    }

    #[test]
    fn a_delivery_of_several_blocks_uses_up_the_next_ticks() {
        let now = Instant::now();
        let mut limiter = Limiter::new(20, Some(100));
        for i in 0..3 {
            limiter.add(None, 10, i).unwrap();
        }
        assert_eq!(limiter.take(now), [0]);
        assert_eq!(limiter.next_due(), Some(now + Duration::from_millis(500)));
        assert_eq!(limiter.take(now + Duration::from_millis(450)), [0; 0]);
        assert_eq!(limiter.take(now + Duration::from_millis(500)), [1]);
        assert_eq!(limiter.take(now + Duration::from_millis(1000)), [2]);
    }

    #[test]
    fn the_mark_counts_blocks_but_lets_one_delivery_wait() {
        let mut limiter = Limiter::new(10, Some(5));
        assert_eq!(limiter.add(None, 9, 1), Ok(()));
        assert_eq!(limiter.add(None, 1, 2), Err(Exceeded));
        let route: Bucket = Some("r".into());
        assert_eq!([3, 2, 1].map(|weight| limiter.add(route.clone(), weight, 1)), [Ok(()), Ok(()), Err(Exceeded)]);
    }
}
