// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many connections others have, as they say, where each is not told of (control, conn-max).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rpc::stats::ConnMax;

/// Routes times proxies; further ones are not counted.
const MAX: usize = 100_000;

/// A number that holds until then.
struct Maximum {
    connections: u32,
    until: Instant,
}

/// See the module.
#[derive(Default)]
pub struct Maxima {
    /// By route, where none has no text, and instance.
    known: HashMap<(Box<str>, Box<str>), Maximum>,
}

/// What has changed for a route.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The route, or no text.
    pub route: Box<str>,
    /// What was counted for it so far.
    pub before: u32,
    /// What counts now.
    pub after: u32,
}

impl Maxima {
    /// Takes in a number; `None` if there are too many.
    pub fn set(&mut self, packet: &ConnMax, now: Instant) -> Option<Change> {
        let route: Box<str> = packet.route.as_deref().unwrap_or_default().into();
        let key = (route.clone(), packet.from.as_str().into());
        if self.known.len() >= MAX && !self.known.contains_key(&key) {
            return None;
        }
        let until = now + Duration::from_secs(packet.ttl.into());
        let before = self.known.insert(key, Maximum { connections: packet.max, until });
        Some(Change { route, before: before.map_or(0, |before| before.connections), after: packet.max })
    }

    /// Forgets numbers that nobody has repeated.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let over = self.known.extract_if(|_, maximum| maximum.until <= now);
        over.map(|((route, _), maximum)| Change { route, before: maximum.connections, after: 0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_holds_for_its_time_and_for_its_instance_and_route() {
        let (mut maxima, now) = (Maxima::default(), Instant::now());
        let packet = |from: &str, max| ConnMax { from: from.into(), max, ttl: 60, ..ConnMax::default() };
        let change = |before, after| Change { route: "".into(), before, after };
        assert_eq!(maxima.set(&packet("p", 3), now), Some(change(0, 3)));
        assert_eq!(maxima.set(&packet("q", 1), now), Some(change(0, 1)));
        let later = now + Duration::from_secs(30);
        assert_eq!(maxima.set(&packet("p", 2), later), Some(change(3, 2)));
        assert_eq!(maxima.expire(now + Duration::from_secs(60)), [change(1, 0)]);
        assert_eq!(maxima.expire(later + Duration::from_secs(60)), [change(2, 0)]);
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut maxima, now) = (Maxima::default(), Instant::now());
        let mut packet = ConnMax { max: 1, ttl: 60, ..ConnMax::default() };
        for number in 0..MAX {
            packet.from = number.to_string();
            assert!(maxima.set(&packet, now).is_some());
        }
        assert!(maxima.set(&packet, now).is_some(), "it is known");
        packet.from = "one more".into();
        assert_eq!(maxima.set(&packet, now), None);
    }
}
