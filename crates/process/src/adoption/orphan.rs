// SPDX-License-Identifier: AGPL-3.0-or-later
//! When a process ends whose runner has: after its time of grace, unless another runner takes it over before.

use std::time::{Duration, Instant};

/// An orderly end that takes longer than this is cut short, since nobody else would.
const END: Duration = Duration::from_secs(5);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The runner is gone.
    Lost,
    /// Another one has taken this process over.
    Adopted,
    /// The deadline may have passed.
    Time,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// End in order.
    End,
    /// End at once.
    Kill,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Orphan {
    grace: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is a runner.
    Kept,
    /// There is none; the end begins then.
    Alone(Instant),
    /// The end has begun, and has to be over then.
    Ending(Instant),
    Killed,
}

impl Orphan {
    /// One that goes on for so long without runner.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, state: State::Kept }
    }

    /// When [`Event::Time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Alone(deadline) | State::Ending(deadline) => Some(deadline),
            State::Kept | State::Killed => None,
        }
    }

    /// Whether the end has begun, so that it is too late for another runner.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending(_) | State::Killed)
    }

    /// What to do now that this has happened.
    pub(super) fn handle(&mut self, event: Event, now: Instant) -> Option<Action> {
        let (state, action) = match (event, self.state) {
            (Event::Lost, State::Kept) => (State::Alone(now + self.grace), None),
            (Event::Adopted, State::Alone(_)) => (State::Kept, None),
            (Event::Time, State::Alone(deadline)) if now >= deadline => (State::Ending(now + END), Some(Action::End)),
            (Event::Time, State::Ending(deadline)) if now >= deadline => (State::Killed, Some(Action::Kill)),
            (_, state) => (state, None),
        };
        self.state = state;
        action
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_ends_in_order_after_its_grace_and_by_force_if_that_takes_too_long() {
        let now = Instant::now();
        let mut orphan = Orphan::new(GRACE);
        assert_eq!((orphan.deadline(), orphan.handle(Event::Time, now + GRACE)), (None, None));
        assert_eq!(orphan.handle(Event::Lost, now), None);
        assert_eq!(orphan.deadline(), Some(now + GRACE));
        assert_eq!(orphan.handle(Event::Time, now + GRACE - MS), None);
        assert!(!orphan.is_ending());
        assert_eq!(orphan.handle(Event::Time, now + GRACE), Some(Action::End));
        assert!(orphan.is_ending());
        assert_eq!(orphan.handle(Event::Time, now + GRACE + END - MS), None);
        assert_eq!(orphan.handle(Event::Time, now + GRACE + END), Some(Action::Kill));
        assert_eq!((orphan.deadline(), orphan.handle(Event::Time, now + GRACE * 9)), (None, None));
    }

    #[test]
    fn one_that_is_taken_over_stays_and_has_its_whole_grace_again() {
        let now = Instant::now();
        let mut orphan = Orphan::new(GRACE);
        orphan.handle(Event::Lost, now);
        assert_eq!(orphan.handle(Event::Adopted, now + GRACE - MS), None);
        assert_eq!((orphan.deadline(), orphan.handle(Event::Time, now + GRACE)), (None, None));
        orphan.handle(Event::Lost, now + GRACE);
        assert_eq!(orphan.deadline(), Some(now + GRACE * 2));
    }

    #[test]
    fn whoever_comes_after_the_end_has_begun_comes_too_late() {
        let now = Instant::now();
        let mut orphan = Orphan::new(Duration::ZERO);
        orphan.handle(Event::Lost, now);
        assert_eq!(orphan.handle(Event::Time, now), Some(Action::End));
        assert_eq!(orphan.handle(Event::Adopted, now), None);
        assert!(orphan.is_ending());
        assert_eq!(orphan.handle(Event::Time, now + END), Some(Action::Kill));
    }
}
