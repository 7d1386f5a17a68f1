// SPDX-License-Identifier: AGPL-3.0-or-later
//! When publishers wait.
//!
//! They wait for links that are busy, so that what comes meanwhile is joined and nobody falls behind: a few packets
//! that a link has not taken are enough. But no link makes them wait for long: a link that takes nothing for a moment,
//! or is busy for too long, *lags* until it has caught up; what is for it waits in its queue and on its holds. Apart
//! from that publishers wait when all links together have too much to keep.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use transport::Load;

use crate::context::Address;

/// Packets that wait for a busy link, beyond what the kernel keeps for it. So few because what is published in the
/// meantime is then taken at once and joined: with 1000, deliveries to 10,000 streams are 0.6 as many a second.
pub(super) const BUSY: usize = 16;
/// A link that takes nothing for so long lags.
pub(super) const STALLED: Duration = Duration::from_millis(200);
/// A link that is busy for so long lags, whatever it takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// While publishers wait, it is looked again after this time.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What may be busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// A frontend's link.
    Frontend(Address),
    /// The link to the proxy, by which messages for WebSockets leave.
    Proxy,
}

/// See the module.
pub(super) struct Pressure {
    /// Bytes that may wait for all links together.
    budget: usize,
    busy: HashMap<Link, Busy, RandomState>,
}

#[derive(Clone, Copy)]
struct Busy {
    since: Instant,
    /// When something was taken last.
    progress: Instant,
    load: Load,
    lags: bool,
}

impl Pressure {
    pub(super) fn new(budget: usize) -> Self {
        Pressure { budget, busy: HashMap::default() }
    }

    /// Whether publishers are to wait, by what waits for each link that has something waiting.
    pub(super) fn must_wait(&mut self, links: impl Iterator<Item = (Link, Load)>, now: Instant) -> bool {
        let before = std::mem::take(&mut self.busy);
        let mut bytes = 0;
        for (link, load) in links {
            bytes += load.bytes;
            if load.messages <= BUSY {
                continue;
            }
            let known = before.get(&link).copied();
            let mut busy = known.unwrap_or(Busy { since: now, progress: now, load, lags: false });
            if load.bytes < busy.load.bytes {
                busy.progress = now;
            }
            busy.load = load;
            busy.lags |= now.duration_since(busy.progress) >= STALLED || now.duration_since(busy.since) >= PATIENCE;
            self.busy.insert(link, busy);
        }
        bytes > self.budget || self.busy.values().any(|busy| !busy.lags)
    }

    /// Whether a link lags.
    pub(super) fn lags(&self, link: Link) -> bool {
        self.busy.get(&link).is_some_and(|busy| busy.lags)
    }

    /// How many links lag.
    pub(super) fn lagging(&self) -> usize {
        self.busy.values().filter(|busy| busy.lags).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Test {
        pressure: Pressure,
        links: [Link; 2],
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            let mut peers = zhttp::Peers::default();
            let links = ["a", "b"].map(|name| {
                let peer = peers.intern(name.as_bytes()).unwrap();
                Link::Frontend(Address { peer, by_router: true })
            });
            Test { pressure: Pressure::new(1_000_000), links, now: Instant::now() }
        }

        /// Looks after some ms, with so many packets of 1000 bytes waiting for each link.
        fn after(&mut self, ms: u64, waiting: [usize; 2]) -> bool {
            self.now += Duration::from_millis(ms);
            let loads = waiting.map(|messages| Load { messages, bytes: messages * 1000 });
            self.pressure.must_wait(self.links.into_iter().zip(loads), self.now)
        }
    }

    #[test]
    fn publishers_wait_for_a_busy_link_until_it_has_caught_up() {
        let mut test = Test::new();
        assert!(!test.after(0, [16, 0]));
        assert!(test.after(0, [100, 0]));
        for left in (17..100).rev().step_by(20) {
            assert!(test.after(190, [left, 0]));
        }
        assert!(!test.after(190, [10, 0]));
    }

    #[test]
    fn a_link_that_takes_nothing_holds_nobody_up_for_long() {
        let mut test = Test::new();
        assert!(test.after(0, [100, 0]));
        assert!(test.after(199, [100, 0]));
        assert!(!test.after(1, [100, 0]));
        assert_eq!(test.pressure.lagging(), 1);
        // Another one is still waited for.
        assert!(test.after(1, [200, 17]));
        assert!(!test.after(1, [200, 16]));
    }

    #[test]
    fn a_link_that_takes_little_lags_until_it_has_caught_up() {
        let mut test = Test::new();
        let mut waited = 0;
        for left in (500..600).rev() {
            waited += u64::from(test.after(100, [left, 0])) * 100;
        }
        assert!((1900..=2100).contains(&waited), "{waited} ms");
        assert!(!test.after(100, [20, 0]));
        assert!(!test.after(100, [0, 0]));
        assert!(test.after(100, [20, 0]));
    }

    #[test]
    fn publishers_wait_when_all_links_together_have_too_much() {
        let mut test = Test::new();
        test.after(0, [400, 400]);
        assert!(!test.after(200, [400, 400]));
        assert!(test.after(0, [600, 600]));
    }
}
