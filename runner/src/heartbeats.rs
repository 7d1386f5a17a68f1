// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which processes hang: each of ours says every half second, from its work loop, that the loop goes round.
//!
//! Silence is counted in ticks of the runner's own loop, and not by a clock. A runner that did not run itself, on a machine that
//! was suspended or has too much to do, thus blames nobody.

use std::time::Duration;

pub use process::HEARTBEAT as TICK;

/// Silence that the log tells of, though it may end.
const NOTICED: Duration = Duration::from_secs(3);

/// What a silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The process has been silent for so long.
    Silent(Duration),
    /// It has been silent for the limit, and is given up.
    Hangs(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Heartbeats {
    /// Zero: silence means nothing.
    limit: Duration,
    /// Ticks without a heartbeat, of processes that serve.
    silences: Vec<Option<u32>>,
}

impl Heartbeats {
    /// Of so many processes, none of which serves yet.
    pub fn new(processes: usize, limit: Duration) -> Self {
        Self { limit, silences: vec![None; processes] }
    }

    /// Changes how long a process may be silent.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// A process serves, and will be heard of from now on.
    pub fn begin(&mut self, process: usize) {
        self.set(process, Some(0));
    }

    /// It has said something.
    pub fn heard(&mut self, process: usize) {
        if let Some(Some(ticks)) = self.silences.get_mut(process) {
            *ticks = 0;
        }
    }

    /// It has ended, or is told to end: it says nothing any more.
    pub fn end(&mut self, process: usize) {
        self.set(process, None);
    }

    /// Half a second has passed in which the runner could hear.
    pub fn tick(&mut self) -> Vec<(usize, Finding)> {
        let mut findings = Vec::new();
        if self.limit.is_zero() {
            return findings;
        }
        for (process, silence) in self.silences.iter_mut().enumerate() {
            let Some(ticks) = silence else { continue };
            *ticks = ticks.saturating_add(1);
            let silent = TICK * *ticks;
            if silent >= self.limit {
                findings.push((process, Finding::Hangs(self.limit)));
                *silence = None;
            } else if silent == NOTICED {
                findings.push((process, Finding::Silent(NOTICED)));
            }
        }
        findings
    }

    fn set(&mut self, process: usize, silence: Option<u32>) {
        if let Some(place) = self.silences.get_mut(process) {
            *place = silence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// What is found in the ticks of so long.
    fn wait(heartbeats: &mut Heartbeats, time: Duration) -> Vec<(usize, Finding)> {
        let ticks = time.as_millis() / TICK.as_millis();
        (0..ticks).flat_map(|_| heartbeats.tick()).collect()
    }

    #[test]
    fn a_silent_process_is_told_of_and_then_given_up_once() {
        let mut heartbeats = Heartbeats::new(2, LIMIT);
        heartbeats.begin(0);
        heartbeats.begin(1);
        for _ in 0..3 {
            assert_eq!(wait(&mut heartbeats, NOTICED - TICK), []);
            heartbeats.heard(0);
            heartbeats.heard(1);
        }
        assert_eq!(wait(&mut heartbeats, NOTICED - TICK), []);
        heartbeats.heard(0);
        assert_eq!(heartbeats.tick(), [(1, Finding::Silent(NOTICED))]);
        heartbeats.end(0);
        assert_eq!(wait(&mut heartbeats, LIMIT - NOTICED - TICK), []);
        assert_eq!(heartbeats.tick(), [(1, Finding::Hangs(LIMIT))]);
        assert_eq!(wait(&mut heartbeats, LIMIT * 2), []);
    }

    #[test]
    fn one_that_is_heard_in_time_was_never_silent() {
        let mut heartbeats = Heartbeats::new(1, LIMIT);
        heartbeats.begin(0);
        assert_eq!(wait(&mut heartbeats, LIMIT - TICK).len(), 1);
        heartbeats.heard(0);
        assert_eq!(wait(&mut heartbeats, LIMIT - TICK).len(), 1);
    }

    #[test]
    fn those_that_do_not_serve_are_not_waited_for() {
        let mut heartbeats = Heartbeats::new(1, LIMIT);
        heartbeats.heard(0);
        assert_eq!(wait(&mut heartbeats, LIMIT * 2), []);
        heartbeats.begin(0);
        heartbeats.end(0);
        assert_eq!(wait(&mut heartbeats, LIMIT * 2), []);
    }

    #[test]
    fn a_short_limit_counts_before_anything_is_told_and_none_never() {
        let mut heartbeats = Heartbeats::new(1, Duration::from_secs(2));
        heartbeats.begin(0);
        assert_eq!(wait(&mut heartbeats, LIMIT), [(0, Finding::Hangs(Duration::from_secs(2)))]);
        heartbeats.set_limit(Duration::ZERO);
        heartbeats.begin(0);
        assert_eq!(wait(&mut heartbeats, LIMIT * 100), []);
    }
}
