//! `message_rate` and `message_hwm`: how fast deliveries leave, when that is limited (publishing, limiter).
//!
//! Unset, which is our default, deliveries are not limited here: flow control of each client does that. Set, they mean
//! what they mean in Pushpin: deliveries a second, and deliveries that may wait for one route; what exceeds the latter is
//! dropped, counted and logged.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Deliveries that may wait for a route when `message_hwm` does not say.
const MAX_WAITING: usize = 1_000_000;
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
    buckets: BTreeMap<Bucket, VecDeque<T>>,
    /// The end of the current tick, and the deliveries that have left in it.
    tick_ends: Option<Instant>,
    used: usize,
    /// Deliveries dropped.
    pub dropped: u64,
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

    /// Whether as many deliveries may leave at once, all together, because nothing waits and the rate allows it. They
    /// count then. This keeps a limit that is far from being reached from costing anything.
    pub fn admit(&mut self, deliveries: usize, now: Instant) -> bool {
        self.begin_tick(now);
        let fits = self.buckets.is_empty() && self.used + deliveries <= self.batch;
        self.used += if fits { deliveries } else { 0 };
        fits
    }

    fn begin_tick(&mut self, now: Instant) {
        if self.tick_ends.is_none_or(|end| end <= now) {
            self.tick_ends = Some(now + self.tick);
            self.used = 0;
        }
    }

    /// Adds a delivery.
    ///
    /// # Errors
    /// As many as may wait for the route are waiting already.
    pub fn add(&mut self, bucket: Bucket, delivery: T) -> Result<(), Exceeded> {
        let waiting = self.buckets.entry(bucket).or_default();
        if waiting.len() >= self.high_water_mark {
            self.dropped += 1;
            return Err(Exceeded);
        }
        waiting.push_back(delivery);
        Ok(())
    }

    /// When deliveries that wait may leave; a time that may have passed.
    pub fn next_due(&self) -> Option<Instant> {
        if self.buckets.is_empty() {
            return None;
        }
        self.tick_ends.map(|end| if self.used < self.batch { end - self.tick } else { end })
    }

    /// The deliveries that may leave now, from all routes in turns.
    pub fn take(&mut self, now: Instant) -> Vec<T> {
        let mut out = Vec::new();
        if self.buckets.is_empty() {
            return out;
        }
        self.begin_tick(now);
        let room = self.batch - self.used;
        while out.len() < room && !self.buckets.is_empty() {
            for waiting in self.buckets.values_mut() {
                if out.len() < room {
                    out.extend(waiting.pop_front());
                }
            }
            self.buckets.retain(|_, waiting| !waiting.is_empty());
        }
        self.used += out.len();
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
            limiter.add(None, i).unwrap();
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
            limiter.add(None, i).unwrap();
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
        assert_eq!([1, 2, 3].map(|i| limiter.add(route.clone(), i)), [Ok(()), Ok(()), Err(Exceeded)]);
        assert_eq!(limiter.add(None, 4), Ok(()));
        assert_eq!(limiter.dropped, 1);
    }

    #[test]
    fn routes_take_turns() {
        let now = Instant::now();
        let mut limiter = Limiter::new(160, None);
        let route: Bucket = Some("r".into());
        for i in 0..4 {
            limiter.add(None, i).unwrap();
            limiter.add(route.clone(), 10 + i).unwrap();
        }
        assert_eq!(limiter.take(now), [0, 10, 1, 11]);
    }

    #[test]
    fn what_the_rate_allows_leaves_at_once_and_counts() {
        let now = Instant::now();
        let mut limiter = Limiter::new(4000, None);
        assert!(limiter.admit(60, now));
        assert!(!limiter.admit(60, now));
        limiter.add(None, 1).unwrap();
        assert!(!limiter.admit(1, now), "what comes later must not overtake what waits");
        assert_eq!(limiter.take(now), [1]);
        assert!(limiter.admit(39, now));
        assert!(!limiter.admit(1, now));
        assert!(limiter.admit(100, now + TICK));
    }
}
