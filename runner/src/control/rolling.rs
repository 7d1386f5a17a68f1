// SPDX-License-Identifier: AGPL-3.0-or-later
//! A restart of several processes, one after the other: each has to serve, and to know what it must, before the next is ended.
//!
//! A step ends a process and then starts its successor, since most processes have sockets of which there can be one only. Of those
//! that can stand beside their successor, that is started first, and they end when they have finished their work.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a process may take to end before it is killed.
const END: Duration = Duration::from_secs(4);
/// How long its successor may take to serve.
const START: Duration = Duration::from_secs(15);

/// What the others had of the one before, its successor learns from them in the meantime. If one of them is ended earlier, what only it knew
/// is lost.
const SETTLE: Duration = Duration::from_secs(2);

/// What happens to processes, known by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// One has ended.
    Ended(usize),
    /// One serves, beside the one before it if that could be.
    Serves(usize),
    /// One that was started beside another has ended. The other has not.
    Spared(usize),
    /// The deadline may have passed.
    Time,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask it to end.
    End(usize),
    /// End it by force.
    Kill(usize),
    /// Start its successor.
    Start(usize),
    /// Start its successor beside it.
    StartBeside(usize),
    /// Its successor serves.
    Replaced(usize),
    /// The successor has ended, or does not serve in time. Those that remain are left alone.
    Failed(usize, Failure),
    /// The same for a successor that was started beside it: it is to be dropped, and the one before goes on.
    Spared(usize, Failure),
    /// All have been replaced.
    Done,
}

/// What a successor did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It ended before it served.
    Ended,
    /// It does not serve after so long.
    Late(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ending,
    Killed,
    Starting,
    /// The same beside the one before.
    Beside,
    /// Its successor serves, and learns what it must know before the next is ended.
    Settling,
}

/// One that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its number.
    pub process: usize,
    /// Its successor can be started while it runs.
    pub beside: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Rolling {
    waiting: VecDeque<Turn>,
    current: Option<(usize, Phase, Instant)>,
}

impl Rolling {
    /// A restart of these, in this order. The actions are its first.
    pub fn new(processes: impl IntoIterator<Item = Turn>, now: Instant) -> (Self, Vec<Action>) {
        let mut rolling = Self { waiting: processes.into_iter().collect(), current: None };
        let actions = rolling.next(now);
        (rolling, actions)
    }

    /// When [`Event::Time`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.current.filter(|(_, phase, _)| *phase != Phase::Killed).map(|(_, _, deadline)| deadline)
    }

    /// Whether this process is being ended for its successor's sake.
    pub fn is_ending(&self, process: usize) -> bool {
        matches!(self.current, Some((current, Phase::Ending | Phase::Killed, _)) if current == process)
    }

    /// What to do now that this has happened.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let Some((process, phase, deadline)) = self.current else { return Vec::new() };
        match (event, phase) {
            (Event::Ended(ended), Phase::Ending | Phase::Killed) if ended == process => {
                self.current = Some((process, Phase::Starting, now + START));
                vec![Action::Start(process)]
            }
            (Event::Ended(ended), Phase::Starting) if ended == process => self.fail(process, Failure::Ended),
            (Event::Serves(served), Phase::Starting | Phase::Beside) if served == process => {
                let mut actions = vec![Action::Replaced(process)];
                if phase == Phase::Starting && !self.waiting.is_empty() {
                    self.current = Some((process, Phase::Settling, now + SETTLE));
                } else {
                    actions.extend(self.next(now));
                }
                actions
            }
            (Event::Time, Phase::Settling) if now >= deadline => self.next(now),
            (Event::Time, Phase::Ending) if now >= deadline => {
                self.current = Some((process, Phase::Killed, deadline));
                vec![Action::Kill(process)]
            }
            (Event::Spared(ended), Phase::Beside) if ended == process => {
                self.current = None;
                vec![Action::Spared(process, Failure::Ended)]
            }
            (Event::Time, Phase::Beside) if now >= deadline => {
                self.current = None;
                vec![Action::Spared(process, Failure::Late(START))]
            }
            (Event::Time, Phase::Starting) if now >= deadline => self.fail(process, Failure::Late(START)),
            _ => Vec::new(),
        }
    }

    fn next(&mut self, now: Instant) -> Vec<Action> {
        let next = self.waiting.pop_front();
        self.current = next.map(|Turn { process, beside }| match beside {
            true => (process, Phase::Beside, now + START),
            false => (process, Phase::Ending, now + END),
        });
        vec![match next {
            Some(Turn { process, beside: true }) => Action::StartBeside(process),
            Some(Turn { process, beside: false }) => Action::End(process),
            None => Action::Done,
        }]
    }

    fn fail(&mut self, process: usize, failure: Failure) -> Vec<Action> {
        self.current = None;
        vec![Action::Failed(process, failure)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns<const N: usize>(processes: [usize; N]) -> [Turn; N] {
        processes.map(|process| Turn { process, beside: false })
    }

    #[test]
    fn one_that_can_stand_beside_its_successor_is_not_ended() {
        let now = Instant::now();
        let both = [Turn { process: 1, beside: true }, Turn { process: 0, beside: false }];
        let (mut rolling, first) = Rolling::new(both, now);
        assert_eq!(first, [Action::StartBeside(1)]);
        assert!(!rolling.is_ending(1));
        assert_eq!(rolling.handle(Event::Serves(1), now), [Action::Replaced(1), Action::End(0)]);
    }

    #[test]
    fn those_behind_one_whose_successor_fails_beside_it_are_left_alone() {
        let now = Instant::now();
        for (event, failure) in [(Event::Spared(1), Failure::Ended), (Event::Time, Failure::Late(START))] {
            let both = [Turn { process: 1, beside: true }, Turn { process: 0, beside: false }];
            let (mut rolling, _) = Rolling::new(both, now);
            assert_eq!(rolling.handle(event, now + START), [Action::Spared(1, failure)]);
            assert_eq!(rolling.handle(Event::Serves(1), now + START), []);
        }
    }

    #[test]
    fn the_next_is_ended_a_while_after_the_successor_of_the_one_before_serves() {
        let now = Instant::now();
        let (mut rolling, first) = Rolling::new(turns([2, 0]), now);
        assert_eq!(first, [Action::End(2)]);
        assert!(rolling.is_ending(2) && !rolling.is_ending(0));
        assert_eq!(rolling.handle(Event::Ended(2), now), [Action::Start(2)]);
        assert!(!rolling.is_ending(2));
        assert_eq!(rolling.handle(Event::Serves(2), now), [Action::Replaced(2)]);
        assert_eq!(rolling.deadline(), Some(now + SETTLE));
        assert_eq!(rolling.handle(Event::Time, now), []);
        assert!(!rolling.is_ending(0));
        assert_eq!(rolling.handle(Event::Time, now + SETTLE), [Action::End(0)]);
        assert_eq!(rolling.handle(Event::Ended(0), now), [Action::Start(0)]);
        assert_eq!(rolling.handle(Event::Serves(0), now), [Action::Replaced(0), Action::Done]);
        assert_eq!(rolling.deadline(), None);
    }

    #[test]
    fn what_happens_to_others_changes_nothing() {
        let now = Instant::now();
        let (mut rolling, _) = Rolling::new(turns([1]), now);
        for event in [Event::Ended(0), Event::Serves(0), Event::Serves(1), Event::Time] {
            assert_eq!(rolling.handle(event, now), []);
        }
        assert_eq!(rolling.handle(Event::Ended(1), now), [Action::Start(1)]);
        assert_eq!(rolling.handle(Event::Ended(0), now), []);
    }

    #[test]
    fn one_that_does_not_end_is_killed_once() {
        let now = Instant::now();
        let (mut rolling, _) = Rolling::new(turns([0]), now);
        let late = rolling.deadline().unwrap();
        assert_eq!(rolling.handle(Event::Time, late), [Action::Kill(0)]);
        assert_eq!(rolling.handle(Event::Time, late + END), []);
        assert_eq!(rolling.deadline(), None);
        assert_eq!(rolling.handle(Event::Ended(0), late), [Action::Start(0)]);
    }

    #[test]
    fn those_behind_a_successor_that_fails_are_left_alone() {
        let now = Instant::now();
        for late in [false, true] {
            let (mut rolling, _) = Rolling::new(turns([0, 1]), now);
            rolling.handle(Event::Ended(0), now);
            let (event, failure) =
                if late { (Event::Time, Failure::Late(START)) } else { (Event::Ended(0), Failure::Ended) };
            assert_eq!(rolling.handle(event, now + START), [Action::Failed(0, failure)]);
            assert_eq!(rolling.handle(Event::Serves(0), now + START), []);
        }
    }

    #[test]
    fn nothing_to_replace_is_done_at_once() {
        assert_eq!(Rolling::new([], Instant::now()).1, [Action::Done]);
    }
}
