// SPDX-License-Identifier: AGPL-3.0-or-later
//! Rates, from the snapshots of the last seconds.
//!
//! Processes tell their numbers once a second and are looked at once a second, so that two snapshots may have the numbers of one
//! second or of three between them. Over a few seconds that evens out.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::snapshot::usage::Usage;
use crate::snapshot::{Counters, Snapshot};

/// The time that rates are of.
const WINDOW: Duration = Duration::from_secs(5);
/// Snapshots that are kept, should they come faster than they do.
const MAX_SAMPLES: usize = 16;

/// What is kept of a snapshot.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    counters: Counters,
    losses: BTreeMap<(String, String), u64>,
    usage: BTreeMap<String, Usage>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Sample>);

impl History {
    /// Keeps what counts of a snapshot that came now.
    pub fn add(&mut self, snapshot: &Snapshot, now: Instant) {
        let losses = snapshot.losses.iter().map(|loss| ((loss.kind.clone(), loss.reason.clone()), loss.count));
        self.0.push_back(Sample {
            at: now,
            counters: snapshot.counters.clone(),
            losses: losses.collect(),
            usage: snapshot.usage.clone(),
        });
        let is_old = |sample: &Sample| now.saturating_duration_since(sample.at) > WINDOW;
        while self.0.len() > MAX_SAMPLES || self.0.len() > 2 && self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }

    /// How often a second this was counted. A counter that begins anew has no rate for a moment.
    pub fn rate(&self, counter: impl Fn(&Counters) -> u64) -> f64 {
        self.slope(|sample| Some(counter(&sample.counters) as f64)).unwrap_or_default()
    }

    /// The same for a loss. One that was not there before was at zero.
    pub fn loss(&self, kind: &str, reason: &str) -> f64 {
        let key = (kind.to_owned(), reason.to_owned());
        self.slope(|sample| Some(sample.losses.get(&key).copied().unwrap_or_default() as f64)).unwrap_or_default()
    }

    /// Which part of one processor this process takes; none if it has just been started.
    pub fn processor(&self, process: &str) -> Option<f64> {
        let pid = self.0.back()?.usage.get(process)?.pid;
        self.slope(|sample| sample.usage.get(process).filter(|usage| usage.pid == pid).map(|usage| usage.cpu_seconds))
    }

    /// By how much a value grows in a second, from the first sample that has it to the last.
    fn slope(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let last = self.0.back()?;
        let (first, before) = self.0.iter().find_map(|sample| Some((sample, value(sample)?)))?;
        let time = last.at.saturating_duration_since(first.at).as_secs_f64();
        (time > 0.0).then(|| (value(last).unwrap_or(before) - before).max(0.0) / time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::tests::snapshot;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let (mut history, start) = (History::default(), Instant::now());
        for second in 0..100 {
            let mut snapshot = snapshot();
            // Thirty seconds with ten each, then nothing.
            snapshot.counters.published = 10 * second.min(30);
            history.add(&snapshot, start + Duration::from_secs(second));
            let expected = match second {
                0 => 0.0,
                1..=30 => 10.0,
                36.. => 0.0,
                _ => continue,
            };
            assert_eq!(history.rate(|counters| counters.published), expected, "{second}");
        }
        assert!(history.0.len() <= 7);
    }

    #[test]
    fn what_begins_anew_has_no_negative_rate_and_what_is_new_began_at_zero() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut snapshot = snapshot();
        history.add(&snapshot, start);
        snapshot.counters.deliveries = 0;
        snapshot.losses[0].reason = "rate".into();
        snapshot.losses[0].count = 4;
        history.add(&snapshot, start + Duration::from_secs(2));
        assert_eq!(history.rate(|counters| counters.deliveries), 0.0);
        assert_eq!(history.loss("dropped", "rate"), 2.0);
        assert_eq!(history.loss("dropped", "never"), 0.0);
    }

    #[test]
    fn the_successor_of_a_process_is_measured_from_its_own_start() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut snapshot = snapshot();
        let mut look = |pid, cpu_seconds, second| {
            snapshot.usage.insert("proxy".into(), Usage { pid, cpu_seconds, memory_bytes: 0 });
            history.add(&snapshot, start + Duration::from_secs(second));
            history.processor("proxy")
        };
        assert_eq!(look(1, 100.0, 0), None);
        assert_eq!(look(1, 101.0, 2), Some(0.5));
        assert_eq!(look(2, 0.25, 3), None);
        assert_eq!(look(2, 1.25, 4), Some(1.0));
        assert_eq!(history.processor("nobody"), None);
    }
}
