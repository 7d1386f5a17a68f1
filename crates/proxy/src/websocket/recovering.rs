// SPDX-License-Identifier: AGPL-3.0-or-later
//! After a start, frontends are asked for the WebSockets of a predecessor. The handler is told of none before all have answered, or
//! for a second. A handler that comes later is told which there are behind all that its predecessor has said about them: that has
//! come by a link of its own.

use std::time::{Duration, Instant};

use zhttp::PeerId;
use zhttp::inquiry::{Change, Inquiry};
use zhttp::recovery::{Message, PROXY};

/// How long frontends are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the link may take to end by which a handler that has gone has spoken about WebSockets.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub struct Recovering {
    /// Until then frontends are waited for; none when they are not any more.
    until: Option<Instant>,
    inquiry: Inquiry,
    /// When the handler came that is not told yet which WebSockets there are.
    handler: Option<Instant>,
}

impl Recovering {
    /// So many frontends are waited for; none: nobody is asked.
    pub fn new(frontends: usize, now: Instant) -> Self {
        Recovering { until: (frontends > 0).then(|| now + PATIENCE), inquiry: Inquiry::new(frontends), handler: None }
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

    /// A handler has come.
    pub fn on_handler_joined(&mut self, now: Instant) {
        self.handler = Some(now);
    }

    /// The handler has gone.
    pub fn on_handler_left(&mut self) {
        self.handler = None;
    }

    /// Whether a handler that has come is to be told now which WebSockets there are. `has_heard`: the links by which its
    /// predecessors spoke have ended.
    pub fn tells(&mut self, has_heard: bool, now: Instant) -> bool {
        let waits = self.waits(now);
        self.handler.take_if(|joined| !waits && (has_heard || now >= *joined + LAST_WORDS)).is_some()
    }

    /// Whether frontends are still waited for.
    fn waits(&mut self, now: Instant) -> bool {
        if self.inquiry.is_complete() || self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until.is_some()
    }

    /// When something that is waited for is waited for no longer.
    pub fn next_due(&self) -> Option<Instant> {
        self.until.or(self.handler.map(|joined| joined + LAST_WORDS))
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

    #[test]
    fn a_handler_is_told_behind_its_predecessors_last_words_and_behind_what_frontends_tell() {
        let now = Instant::now();
        let mut recovering = Recovering::new(1, now);
        assert!(!recovering.tells(true, now));
        recovering.on_handler_joined(now);
        // Nothing can be done before, so the worker does not look for it.
        assert_eq!(recovering.next_due(), Some(now + PATIENCE));
        assert!(!recovering.tells(true, now + LAST_WORDS));
        assert!(recovering.tells(true, now + PATIENCE) && !recovering.tells(true, now + PATIENCE));
        assert_eq!(recovering.next_due(), None);

        recovering.on_handler_joined(now);
        assert_eq!(recovering.next_due(), Some(now + LAST_WORDS));
        assert!(!recovering.tells(false, now) && recovering.tells(false, now + LAST_WORDS));
        recovering.on_handler_joined(now);
        recovering.on_handler_left();
        assert!(!recovering.tells(true, now));
    }
}
