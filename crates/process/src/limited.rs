//! Warnings about bad input, at most one a second of a kind: whoever sends garbage must not fill the disk with it.

use std::fmt::Display;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Counts warnings by kind and lets one a second through.
#[derive(Debug, Default)]
pub struct Limited {
    /// A handful of kinds; searching them costs less than hashing.
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

    /// Whether one may be logged now; if so, how many were not since the last.
    fn admit(&mut self, name: &'static str, now: Instant) -> Option<u64> {
        let Some(kind) = self.kinds.iter_mut().find(|k| k.name == name) else {
            self.kinds.push(Kind { name, last: now, suppressed: 0, total: 1 });
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

    /// How often a kind occurred.
    pub fn total(&self, name: &str) -> u64 {
        self.kinds.iter().find(|k| k.name == name).map_or(0, |k| k.total)
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
    }
}
