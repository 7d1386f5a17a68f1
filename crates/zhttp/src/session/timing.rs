// SPDX-License-Identifier: AGPL-3.0-or-later
//! When a session has heard from its peer, and when the peer is to hear of it again.
//!
//! Times are kept as counts of a tick since the session was opened, because there is a session at both ends of every
//! held connection: 24 bytes instead of 48.

use std::time::{Duration, Instant};

use crate::{EXPIRY, KEEP_ALIVE};

/// Keep-alives become due so long before [`KEEP_ALIVE`], so that an owner may let one wait for others and send them in
/// one packet.
pub const KEEP_ALIVE_SLACK: Duration = Duration::from_secs(5);
/// How long a session whose peer can not be told waits before it tries again to keep it alive.
const AGAIN: Duration = Duration::from_secs(5);

/// A tick is 2^24 ns (17 ms), so that counting them is a shift. The last one is two years after the beginning; it does
/// not pass, and so a session that old expires.
const TICK_BITS: u32 = 24;

/// The clock of one session. It is told the time, and never asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// Ticks count from here.
    opened: Instant,
    /// The last valid packet of the peer.
    heard: u32,
    /// The last keep-alive.
    kept_alive: u32,
}

impl Timing {
    /// A session that begins now; the packet that opens it counts as heard and as a keep-alive.
    pub(super) fn start(now: Instant) -> Self {
        Timing { opened: now, heard: 0, kept_alive: 0 }
    }

    /// Restores what [`Timing::ages`] gave.
    pub(super) fn restore(opened: Instant, heard: u32, kept_alive: u32) -> Self {
        Timing { opened, heard, kept_alive }
    }

    /// When the session was opened, and the ticks from then to the last packet of the peer and to the last keep-alive.
    pub(super) fn ages(&self) -> (Instant, u32, u32) {
        (self.opened, self.heard, self.kept_alive)
    }

    /// The tick of a time.
    pub(super) fn tick(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.opened);
        let nanos = age.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(age.subsec_nanos()));
        u32::try_from(nanos >> TICK_BITS).unwrap_or(u32::MAX)
    }

    /// The time of a tick; at most a tick before the time that it was made of.
    pub(super) fn time(&self, tick: u32) -> Instant {
        self.opened + Duration::from_nanos(u64::from(tick) << TICK_BITS)
    }

    /// A valid packet has come.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = self.tick(now);
    }

    /// A keep-alive leaves now.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        self.kept_alive = self.tick(now);
    }

    /// There is nobody to send a keep-alive to.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.kept_alive = self.tick(now + AGAIN).saturating_sub(self.tick(self.opened + KEEP_ALIVE - KEEP_ALIVE_SLACK));
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// When the session expires if nothing comes.
    pub(super) fn expires_at(&self) -> Instant {
        self.time(self.heard) + EXPIRY
    }

    /// When the next keep-alive may leave. It must within [`KEEP_ALIVE_SLACK`] after that.
    pub(super) fn keep_alive_at(&self) -> Instant {
        self.time(self.kept_alive) + (KEEP_ALIVE - KEEP_ALIVE_SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn times_are_exact_to_a_tick_and_never_late() {
        let start = Instant::now();
        let mut timing = Timing::start(start);
        assert_eq!((timing.expires_at(), timing.keep_alive_at()), (start + EXPIRY, start + 40 * SECOND));
        for ms in [1, 16, 17, 999, 86_400_000, 31_536_000_000] {
            let now = start + Duration::from_millis(ms);
            timing.hear(now);
            let early = (now + EXPIRY).duration_since(timing.expires_at());
            assert!(early < Duration::from_millis(17), "{ms}: {early:?}");
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_is_no_harm() {
        let start = Instant::now() + SECOND;
        let mut timing = Timing::start(start);
        timing.hear(start - SECOND);
        timing.keep_alive(start);
        assert_eq!(timing.expires_at(), start + EXPIRY);
    }

    #[test]
    fn a_session_that_is_older_than_all_ticks_expires() {
        let start = Instant::now();
        let mut timing = Timing::start(start);
        let late = start + 86_400 * 365 * 3 * SECOND;
        timing.hear(late);
        assert!(timing.expires_at() < late);
    }

    #[test]
    fn a_keep_alive_that_can_not_be_sent_is_due_again_soon() {
        let start = Instant::now();
        let mut timing = Timing::start(start);
        for seconds in [40, 45, 50] {
            let now = start + seconds * SECOND;
            assert!(timing.keep_alive_at() <= now);
            timing.postpone(now);
            let wait = timing.keep_alive_at().duration_since(now);
            assert!(wait <= AGAIN && wait > AGAIN - Duration::from_millis(40), "{wait:?}");
        }
    }
}
