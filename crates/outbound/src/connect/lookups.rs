// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which names are looked up next, so that those which hang leave threads to the others.
//!
//! A lookup holds a thread until the system answers, which no deadline can shorten. So threads are kept back: names that were
//! slow the last time share half of them, names that nothing is known about three quarters.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A lookup that takes longer is slow.
pub const SLOW: Duration = Duration::from_secs(1);
/// Names whose speed is remembered.
const MAX_REMEMBERED: usize = 4096;

/// What is known about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Speed {
    Quick,
    Unknown,
    Slow,
}

/// Names that are being looked up, and those that wait.
#[derive(Debug)]
pub struct Lookups {
    threads: usize,
    /// Names that may wait for their turn.
    queue: usize,
    running: HashMap<Box<str>, (Speed, Instant)>,
    waiting: VecDeque<(Box<str>, Speed)>,
    remembered: HashMap<Box<str>, Speed>,
}

impl Lookups {
    /// None yet. At least two `threads`, so that some can be kept back; `queue` names may wait for one.
    pub fn new(threads: usize, queue: usize) -> Self {
        let threads = threads.max(2);
        Lookups { threads, queue, running: HashMap::new(), waiting: VecDeque::new(), remembered: HashMap::new() }
    }

    /// Queues a name that is neither running nor waiting; `false` if too many wait.
    #[must_use]
    pub fn ask(&mut self, host: &str) -> bool {
        let has_room = self.waiting.len() < self.queue;
        if has_room {
            let speed = self.remembered.get(host).copied().unwrap_or(Speed::Unknown);
            self.waiting.push_back((host.into(), speed));
        }
        has_room
    }

    /// Nobody wants to know a name any more. `false` if a thread is at it already, which nothing can stop.
    pub fn withdraw(&mut self, host: &str) -> bool {
        let at = self.waiting.iter().position(|(other, _)| **other == *host);
        at.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// The name to look up next, if there is a thread for it. Call until there is none.
    pub fn start(&mut self, now: Instant) -> Option<Box<str>> {
        for (speed, since) in self.running.values_mut() {
            if now.duration_since(*since) > SLOW {
                *speed = Speed::Slow;
            }
        }
        let at = self.waiting.iter().position(|(_, speed)| self.has_thread(*speed))?;
        let (host, speed) = self.waiting.remove(at)?;
        self.running.insert(host.clone(), (speed, now));
        Some(host)
    }

    /// A name has been looked up.
    pub fn finished(&mut self, host: &str, now: Instant) {
        let Some((host, (_, since))) = self.running.remove_entry(host) else { return };
        let speed = if now.duration_since(since) > SLOW { Speed::Slow } else { Speed::Quick };
        if self.remembered.len() >= MAX_REMEMBERED && !self.remembered.contains_key(&host) {
            self.remembered.clear();
        }
        self.remembered.insert(host, speed);
    }

    /// Whether one more of this speed may run: it, and those that are at least as slow, have their share.
    fn has_thread(&self, speed: Speed) -> bool {
        let share = |speed| match speed {
            Speed::Quick => self.threads,
            Speed::Unknown => (self.threads * 3 / 4).max(1),
            Speed::Slow => self.threads / 2,
        };
        let running = |least: Speed| self.running.values().filter(|(speed, _)| *speed >= least).count();
        self.running.len() < self.threads && running(speed) < share(speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(lookups: &mut Lookups, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| lookups.start(now)).map(String::from).collect()
    }

    #[test]
    fn names_that_hang_leave_threads_to_others() {
        let now = Instant::now();
        let mut lookups = Lookups::new(4, 16);
        assert!(lookups.ask("good"));
        assert_eq!(started(&mut lookups, now), ["good"]);
        lookups.finished("good", now);
        for host in ["hangs-1", "hangs-2", "hangs-3", "hangs-4"] {
            assert!(lookups.ask(host));
        }
        assert_eq!(started(&mut lookups, now), ["hangs-1", "hangs-2", "hangs-3"]);
        // The fourth thread is for a name that was quick before, though another waits in front of it.
        assert!(lookups.ask("good"));
        assert_eq!(started(&mut lookups, now), ["good"]);
        lookups.finished("good", now);
        assert_eq!(started(&mut lookups, now), [""; 0]);
    }

    #[test]
    fn names_known_to_be_slow_have_half_of_the_threads() {
        let now = Instant::now();
        let mut lookups = Lookups::new(4, 16);
        let slow = ["slow-1", "slow-2", "slow-3"];
        assert!(slow.iter().all(|host| lookups.ask(host)));
        assert_eq!(started(&mut lookups, now), slow);
        let later = now + 2 * SLOW;
        slow.iter().for_each(|host| lookups.finished(host, later));
        assert!(slow.iter().all(|host| lookups.ask(host)));
        assert!(lookups.ask("new"));
        assert_eq!(started(&mut lookups, later), ["slow-1", "slow-2", "new"]);
        // One that answers in time again is slow no longer.
        lookups.finished("slow-1", later);
        assert!(lookups.ask("slow-1"));
        assert_eq!(started(&mut lookups, later), ["slow-3", "slow-1"]);
    }

    #[test]
    fn the_queue_has_an_end_and_names_that_nobody_wants_leave_it() {
        let now = Instant::now();
        let mut lookups = Lookups::new(2, 3);
        assert!(lookups.ask("runs"));
        assert_eq!(started(&mut lookups, now), ["runs"]);
        assert!(["a", "b", "c"].iter().all(|host| lookups.ask(host)));
        assert!(!lookups.ask("d"));
        assert!(lookups.withdraw("b"));
        assert!(lookups.ask("d"));
        assert!(!lookups.withdraw("runs"));
        lookups.finished("runs", now);
        assert_eq!(started(&mut lookups, now), ["a"]);
    }
}
