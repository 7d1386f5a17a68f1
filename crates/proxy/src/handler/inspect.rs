// SPDX-License-Identifier: AGPL-3.0-or-later
//! Asking the handler about a request before it is proxied (internal RPC, inspect), and when not to.

use std::time::{Duration, Instant};

use rpc::inspect::Inspected;

use super::TIMEOUT;

/// Bytes of the body that the handler gets to see.
pub const PREFETCH: usize = 10_000;
/// How often a handler that does not answer is tried.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The values of `Grip-Last`: the last message that the client has seen on each channel.
pub fn grip_last(inspected: &Inspected<'_>) -> Vec<Vec<u8>> {
    inspected.last_ids.iter().map(|(channel, id)| [&**channel, b"; last-id=", &**id].concat()).collect()
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Ask, and wait for the answer.
    Wait,
    /// Ask to learn whether the handler is there again; do not wait.
    Probe,
    /// Do not ask.
    No,
}

/// Whether the handler answers, and whether it wants to be asked at all.
#[derive(Debug)]
pub struct Availability {
    available: bool,
    /// When silence means absence.
    countdown: Option<Instant>,
    /// Questions whose answers are waited for.
    outstanding: usize,
    /// The handler has said that it need not be asked until then.
    quiet_until: Option<Instant>,
    /// The one that answered last does not say when it is to be asked again, as one of ours does.
    is_foreign: bool,
    next_probe: Option<Instant>,
}

impl Default for Availability {
    fn default() -> Self {
        Availability {
            available: true,
            countdown: None,
            outstanding: 0,
            quiet_until: None,
            is_foreign: false,
            next_probe: None,
        }
    }
}

impl Availability {
    /// Decides about a request. `needed`: the answer is wanted even from a handler that said it has none to give.
    pub fn decide(&mut self, needed: bool, now: Instant) -> Ask {
        if self.countdown.is_some_and(|end| now >= end) {
            self.countdown = None;
            self.available = false;
        }
        if self.available && (needed || self.quiet_until.is_none()) {
            return Ask::Wait;
        }
        let quiet = self.quiet_until.is_some_and(|end| now < end);
        if (self.available && quiet) || self.next_probe.is_some_and(|next| now < next) {
            return Ask::No;
        }
        self.next_probe = Some(now + PROBE_INTERVAL);
        Ask::Probe
    }

    /// A question was sent whose answer is waited for.
    pub fn asked(&mut self, now: Instant) {
        self.outstanding += 1;
        self.countdown.get_or_insert(now + TIMEOUT);
    }

    /// An answer has come, of any sort. `again` is what the handler says about being asked again: zero if it wants to be asked
    /// each time.
    pub fn answered(&mut self, again: Option<Duration>, now: Instant) {
        self.available = true;
        self.quiet_until = again.filter(|again| !again.is_zero()).map(|again| now + again);
        self.is_foreign = again.is_none();
        self.next_probe = None;
        self.countdown = (self.outstanding > 0).then(|| now + TIMEOUT);
    }

    /// Whether the handler is Pushpin's. It takes `Content-Encoding` away from what it is given.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// An answer is not waited for any more: it has come, or its request is gone.
    pub fn done_waiting(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.countdown = None;
        }
    }

    /// No answer has come in time.
    pub fn timed_out(&mut self) {
        self.done_waiting();
        if self.outstanding == 0 {
            self.available = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_ids_become_grip_last_headers() {
        let answer = tnetstring::split(b"42:8:no-proxy,5:false!8:last-ids,9:1:c,2:42,}}").unwrap().0;
        assert_eq!(grip_last(&tnetstring::from_item(answer).unwrap()), [b"c; last-id=42"]);
    }

    #[test]
    fn a_handler_that_answers_is_asked_and_waited_for() {
        let mut availability = Availability::default();
        let now = Instant::now();
        for (again, foreign) in [(None, true), (Some(Duration::ZERO), false), (None, true)] {
            assert_eq!(availability.decide(false, now), Ask::Wait);
            availability.asked(now);
            availability.done_waiting();
            availability.answered(again, now);
            assert_eq!(availability.is_foreign(), foreign);
        }
        assert_eq!(availability.decide(false, now), Ask::Wait);
    }

    #[test]
    fn a_handler_that_said_so_is_left_alone_and_then_probed_once() {
        let mut availability = Availability::default();
        let now = Instant::now();
        availability.answered(Some(Duration::from_secs(60)), now);
        assert_eq!(availability.decide(false, now + Duration::from_secs(59)), Ask::No);
        assert_eq!(availability.decide(true, now + Duration::from_secs(59)), Ask::Wait);
        let later = now + Duration::from_secs(60);
        assert_eq!(availability.decide(false, later), Ask::Probe);
        assert_eq!(availability.decide(false, later), Ask::No);
        availability.answered(Some(Duration::from_secs(60)), later);
        assert_eq!(availability.decide(false, later + Duration::from_secs(2)), Ask::No);
    }

    #[test]
    fn after_a_silence_of_eight_seconds_nobody_waits_until_an_answer_comes() {
        let mut availability = Availability::default();
        let now = Instant::now();
        availability.asked(now);
        availability.asked(now);
        let later = now + TIMEOUT;
        assert_eq!(availability.decide(false, later), Ask::Probe);
        assert_eq!(availability.decide(false, later), Ask::No);
        assert_eq!(availability.decide(false, later + PROBE_INTERVAL), Ask::Probe);
        availability.answered(None, later + PROBE_INTERVAL);
        assert_eq!(availability.decide(false, later + PROBE_INTERVAL), Ask::Wait);
    }
}
