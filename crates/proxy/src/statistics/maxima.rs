// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many connections each route has at most at a time, for handlers that are not told of each (control, conn-max).
//!
//! The handler adds what it holds itself. So that none is counted twice or not at all, a connection that is offered to it is
//! taken off in the same message.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rpc::stats::ConnMax;

/// Changes of so long are told together.
const CHANGES: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Route {
    /// Now, without those that are offered to the handler.
    here: u32,
    /// At most, since it was told last.
    peak: u32,
    /// Something else was told last, then.
    stale_since: Option<Instant>,
    told_at: Option<Instant>,
}

impl Route {
    fn set(&mut self, here: u32, now: Instant) {
        self.here = here;
        self.peak = self.peak.max(here);
        self.stale_since.get_or_insert(now);
    }

    fn due(&self, ttl: Duration) -> Option<Instant> {
        let repeat = self.told_at.filter(|_| self.here > 0).map(|told| told + ttl * 3 / 4);
        self.stale_since.map(|since| since + CHANGES).or(repeat)
    }

    /// The most that there were, if there are fewer now, and those that there are.
    fn take(&mut self, now: Instant) -> impl Iterator<Item = u32> {
        let peak = std::mem::replace(&mut self.peak, self.here);
        (self.stale_since, self.told_at) = (None, Some(now));
        [(peak > self.here).then_some(peak), Some(self.here)].into_iter().flatten()
    }
}

/// See the module.
pub struct Maxima {
    ttl: Duration,
    /// Those without an id are one, of the empty text. No more than there are routes.
    routes: BTreeMap<Box<str>, Route>,
}

impl Maxima {
    /// A number holds for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Maxima { ttl, routes: BTreeMap::new() }
    }

    /// A connection is here.
    pub fn add(&mut self, route: &str, now: Instant) {
        let entry = self.routes.entry(route.into()).or_default();
        entry.set(entry.here.saturating_add(1), now);
    }

    /// A connection is not here any more.
    pub fn subtract(&mut self, route: &str, now: Instant) {
        if let Some(entry) = self.routes.get_mut(route) {
            entry.set(entry.here.saturating_sub(1), now);
        }
    }

    /// What to tell of a route now.
    pub fn tell(&mut self, name: &str, from: &str, now: Instant) -> Vec<ConnMax> {
        let ttl = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        let numbers = self.routes.get_mut(name).map(|route| route.take(now));
        let packet = |max| ConnMax {
            from: from.into(),
            route: (!name.is_empty()).then(|| name.into()),
            max,
            ttl,
            retry_seq: None,
        };
        numbers.into_iter().flatten().map(packet).collect()
    }

    /// What is to be told or repeated.
    pub fn take(&mut self, from: &str, now: Instant) -> Vec<ConnMax> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due = self.routes.iter().filter(|(_, route)| route.due(self.ttl).is_some_and(|due| due <= now));
        let due: Vec<Box<str>> = due.map(|(name, _)| name.clone()).collect();
        let packets = due.iter().flat_map(|name| self.tell(name, from, now)).collect();
        self.routes.retain(|_, route| route.due(self.ttl).is_some());
        packets
    }

    /// When [`Maxima::take`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        self.routes.values().filter_map(|route| route.due(self.ttl)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(packets: Vec<ConnMax>) -> Vec<(Option<String>, u32)> {
        packets.into_iter().map(|packet| (packet.route, packet.max)).collect()
    }

    #[test]
    fn changes_of_a_moment_are_told_together_with_the_most_there_were() {
        let (mut maxima, now) = (Maxima::new(Duration::from_secs(60)), Instant::now());
        assert_eq!(maxima.next_due(), None);
        maxima.add("", now);
        maxima.add("", now);
        maxima.add("r", now);
        maxima.subtract("", now);
        assert_eq!(maxima.next_due(), Some(now + CHANGES));
        assert_eq!(maxima.take("p", now), []);
        let told = maxima.take("p", now + CHANGES);
        assert!(told.iter().all(|packet| packet.from == "p" && packet.ttl == 60));
        assert_eq!(numbers(told), [(None, 2), (None, 1), (Some("r".into()), 1)]);
    }

    #[test]
    fn a_number_is_repeated_before_its_time_is_over_and_none_is_told_once() {
        let (mut maxima, now) = (Maxima::new(Duration::from_secs(60)), Instant::now());
        maxima.add("", now);
        maxima.take("p", now + CHANGES);
        let repeated = now + CHANGES + Duration::from_secs(45);
        assert_eq!(maxima.next_due(), Some(repeated));
        assert_eq!(numbers(maxima.take("p", repeated)), [(None, 1)]);
        maxima.subtract("", repeated);
        assert_eq!(numbers(maxima.take("p", repeated + CHANGES)), [(None, 1), (None, 0)]);
        assert!(maxima.routes.is_empty());
    }

    #[test]
    fn connections_that_are_offered_one_after_the_other_are_each_taken_off_once() {
        let (mut maxima, now) = (Maxima::new(Duration::from_secs(60)), Instant::now());
        maxima.add("", now);
        maxima.add("", now);
        maxima.subtract("", now);
        assert_eq!(numbers(maxima.tell("", "p", now)), [(None, 2), (None, 1)]);
        maxima.subtract("", now);
        assert_eq!(numbers(maxima.tell("", "p", now)), [(None, 1), (None, 0)]);
    }
}
