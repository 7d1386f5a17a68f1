// SPDX-License-Identifier: AGPL-3.0-or-later
//! Ids of published items, so that no item is delivered twice (publishing, id cache).
//!
//! An id is remembered for `id_cache_ttl`, or until `id_cache_max` younger ones are there; the latter is counted, because
//! then a repeated item may pass.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What an id is to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// For the first time, or again after its time.
    New,
    /// As [`Seen::New`]; an older id was forgotten before its time to make room.
    NewInPlaceOfAnother,
    /// Within its time: the item is a repetition.
    Repeated,
}

/// The ids seen lately.
pub struct Dedup {
    ttl: Duration,
    max: usize,
    /// Channel and id in one, see [`key`].
    seen: HashSet<Rc<str>>,
    /// The same in the order in which they expire.
    expiry: VecDeque<(Instant, Rc<str>)>,
    /// Ids forgotten before their time.
    pub forgotten_early: u64,
}

impl Dedup {
    /// Remembers up to `max` ids for `ttl`; zero of either switches it off.
    pub fn new(ttl: Duration, max: usize) -> Self {
        Dedup { ttl, max, seen: HashSet::new(), expiry: VecDeque::new(), forgotten_early: 0 }
    }

    /// Notes an id of a channel. A repetition does not prolong its time.
    pub fn note(&mut self, channel: &str, id: &str, now: Instant) -> Seen {
        if self.ttl.is_zero() || self.max == 0 {
            return Seen::New;
        }
        while self.expiry.front().is_some_and(|(end, _)| *end <= now) {
            self.forget_oldest();
        }
        let key = key(channel, id);
        if self.seen.contains(&key) {
            return Seen::Repeated;
        }
        let full = self.expiry.len() >= self.max;
        if full {
            self.forget_oldest();
            self.forgotten_early += 1;
        }
        self.seen.insert(key.clone());
        self.expiry.push_back((now + self.ttl, key));
        if full { Seen::NewInPlaceOfAnother } else { Seen::New }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.expiry.pop_front() {
            self.seen.remove(&key);
        }
    }
}

/// No two pairs of channel and id have the same key, whatever bytes are in them.
fn key(channel: &str, id: &str) -> Rc<str> {
    format!("{}:{channel}{id}", channel.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn an_id_is_known_until_its_time_is_over() {
        let (mut dedup, now) = (Dedup::new(TTL, 10), Instant::now());
        assert_eq!(dedup.note("c", "1", now), Seen::New);
        assert_eq!(dedup.note("c", "1", now + TTL / 2), Seen::Repeated);
        assert_eq!(dedup.note("c", "1", now + TTL), Seen::New);
    }

    #[test]
    fn channels_are_apart_however_they_are_named() {
        let (mut dedup, now) = (Dedup::new(TTL, 10), Instant::now());
        for (channel, id) in [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("1:a", "bc"), ("1", ":abc")] {
            assert_eq!(dedup.note(channel, id, now), Seen::New, "{channel} {id}");
        }
    }

    #[test]
    fn an_id_that_is_forgotten_early_is_counted() {
        let (mut dedup, now) = (Dedup::new(TTL, 2), Instant::now());
        let seen = ["1", "2", "3", "2", "1"].map(|id| dedup.note("c", id, now));
        assert_eq!(seen, [Seen::New, Seen::New, Seen::NewInPlaceOfAnother, Seen::Repeated, Seen::NewInPlaceOfAnother]);
        assert_eq!(dedup.forgotten_early, 2);
    }

    #[test]
    fn without_a_time_nothing_is_a_repetition() {
        let (mut dedup, now) = (Dedup::new(Duration::ZERO, 10), Instant::now());
        assert_eq!([dedup.note("c", "1", now), dedup.note("c", "1", now)], [Seen::New, Seen::New]);
    }
}
