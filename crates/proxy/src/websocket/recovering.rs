// SPDX-License-Identifier: AGPL-3.0-or-later
//! After a start, frontends are asked for the WebSockets of a predecessor. The handler is told of none before all have answered, or
//! for a second.

use std::time::{Duration, Instant};

use zhttp::PeerId;
use zhttp::inquiry::{Change, Inquiry};
use zhttp::recovery::{Message, PROXY};

/// How long frontends are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Recovering {
    /// Until then frontends are waited for; none when they are not any more.
    until: Option<Instant>,
    inquiry: Inquiry,
}

impl Recovering {
    /// So many frontends are waited for; none: nobody is asked.
    pub fn new(frontends: usize, now: Instant) -> Self {
        Recovering { until: (frontends > 0).then(|| now + PATIENCE), inquiry: Inquiry::new(frontends) }
    }

    /// The question to those that [`on_change`](Self::on_change) names.
    pub fn question() -> Vec<u8> {
        Message::Recover(PROXY).encode()
    }

    /// A frontend has come or gone. Whether it is to be asked now.
    pub fn on_change(&mut self, frontend: PeerId, change: Change) -> bool {
        self.inquiry.on_change(frontend, change) && self.inquiry.is_wanted()
    }

    /// A frontend has told all.
    pub fn on_done(&mut self, frontend: PeerId) {
        self.inquiry.on_done(frontend);
    }

    /// Whether frontends are still waited for.
    pub fn waits(&mut self, now: Instant) -> bool {
        if self.inquiry.is_complete() || self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until.is_some()
    }

    /// When they are waited for no longer.
    pub fn next_due(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use zhttp::Peers;

    use super::*;

    #[test]
    fn each_frontend_is_asked_once_a_link_and_waited_for_until_the_last_has_told_all() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let [a, b] = [b"a", b"b"].map(|name| peers.intern(name).unwrap());
        let mut recovering = Recovering::new(2, now);
        let asks = [Change::Able, Change::Linked, Change::Linked, Change::Lost, Change::Linked]
            .map(|change| recovering.on_change(a, change));
        assert_eq!(asks, [false, true, false, false, true]);
        assert!(!recovering.on_change(b, Change::Linked) && recovering.on_change(b, Change::Able));
        recovering.on_done(a);
        assert!(recovering.waits(now));
        recovering.on_done(b);
        assert!(!recovering.waits(now));
        let mut late = Recovering::new(1, now);
        assert!(late.waits(now) && !late.waits(now + PATIENCE));
        assert!(!Recovering::new(0, now).waits(now));
    }
}
