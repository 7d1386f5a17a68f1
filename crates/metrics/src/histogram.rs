// SPDX-License-Identifier: AGPL-3.0-or-later
//! How long things took, counted by length.

use std::time::Duration;

use crate::catalogue::Metric;
use crate::page::Page;

/// Upper bounds in seconds: from a frame on this machine to a backend that makes clients wait.
const BOUNDS: [(u64, &str); 12] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
    (60_000_000, "60"),
];

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By the first bound that is not exceeded.
    counts: [u64; BOUNDS.len()],
    longer: u64,
    micros: u64,
}

impl Histogram {
    /// Counts so many that took this time each.
    pub fn observe(&mut self, time: Duration, count: u64) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match BOUNDS.iter().position(|(bound, _)| micros <= *bound) {
            Some(place) => self.counts[place] += count,
            None => self.longer += count,
        }
        self.micros = self.micros.saturating_add(micros.saturating_mul(count));
    }

    /// Writes it down.
    pub fn write(&self, page: &mut Page, metric: &Metric, labels: &[&str]) {
        let mut sum = 0;
        for (count, (_, bound)) in self.counts.iter().zip(BOUNDS) {
            sum += count;
            page.line(metric, "_bucket", labels, Some(("le", bound)), sum);
        }
        sum += self.longer;
        page.line(metric, "_bucket", labels, Some(("le", "+Inf")), sum);
        page.line(metric, "_sum", labels, None, self.micros as f64 / 1e6);
        page.line(metric, "_count", labels, None, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::BACKEND_RESPONSE;

    #[test]
    fn counts_add_up() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 3, 70_000] {
            histogram.observe(Duration::from_millis(millis), 1);
        }
        let mut page = Page::default();
        histogram.write(&mut page, &BACKEND_RESPONSE, &[]);
        let value = |start: &str| {
            let line = page.as_str().lines().find(|line| line.contains(start)).unwrap();
            line.rsplit(' ').next().unwrap().to_string()
        };
        assert_eq!(value("le=\"0.0005\""), "1");
        assert_eq!(value("le=\"0.001\""), "2");
        assert_eq!(value("le=\"60\""), "3");
        assert_eq!(value("le=\"+Inf\""), "4");
        assert_eq!(value("_sum"), "70.004");
        assert_eq!(value("_count"), "4");
    }
}
