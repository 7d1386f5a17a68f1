// SPDX-License-Identifier: AGPL-3.0-or-later
//! Warnings about bad input, at most one a second of a kind: whoever sends garbage must not fill the disk with it.
//!
//! The time comes from the caller. Kinds are literals in the code, so the table is as small as the code makes it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts events by kind and lets one a second of each kind into the log.
#[derive(Debug, Default)]
pub struct Limited {
    /// A handful; searching them costs less than hashing.
    kinds: Vec<Kind>,
}

#[derive(Debug)]
struct Kind {
    name: &'static str,
    last: Instant,
    suppressed: u64,
    total: u64,
}

impl Limited {
    /// Logs a warning, with the number of those of the same kind that were left out since the last one.
    pub fn warn(&mut self, kind: &'static str, now: Instant, text: impl Display) {
        match self.admit(kind, now) {
            None => {}
            Some(0) => tracing::warn!("{text}"),
            Some(n) => tracing::warn!("{text} (and {n} more of this kind)"),
        }
    }

    /// Counts one. `Some` when it may be logged now, with the number left out since the last one that was.
    pub fn admit(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let Some(kind) = self.kinds.iter_mut().find(|k| k.name == kind) else {
            self.kinds.push(Kind { name: kind, last: now, suppressed: 0, total: 1 });
            return Some(0);
        };
        kind.total += 1;
        if now.saturating_duration_since(kind.last) < INTERVAL {
            kind.suppressed += 1;
            return None;
        }
        kind.last = now;
        Some(std::mem::take(&mut kind.suppressed))
    }

    /// Adds how often each kind occurred.
    pub fn add_to(&self, totals: &mut BTreeMap<&'static str, u64>) {
        for kind in &self.kinds {
            *totals.entry(kind.name).or_default() += kind.total;
        }
    }

    /// How often a kind occurred.
    pub fn total(&self, kind: &str) -> u64 {
        self.kinds.iter().find(|k| k.name == kind).map_or(0, |k| k.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes_and_tells_how_many_did_not() {
        let mut limited = Limited::default();
        let start = Instant::now();
        assert_eq!(limited.admit("a", start), Some(0));
        assert_eq!(limited.admit("a", start), None);
        assert_eq!(limited.admit("a", start), None);
        assert_eq!(limited.admit("b", start), Some(0));
        assert_eq!(limited.admit("a", start + INTERVAL), Some(2));
        assert_eq!(limited.admit("a", start + INTERVAL * 3), Some(0));
        assert_eq!(limited.total("a"), 5);
        let mut totals = BTreeMap::from([("a", 1)]);
        limited.add_to(&mut totals);
        assert_eq!(totals, BTreeMap::from([("a", 6), ("b", 1)]));
    }
}
