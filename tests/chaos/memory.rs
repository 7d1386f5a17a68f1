// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the memory of processes that live long has grown.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::site::Site;
use crate::trouble::Part;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// A process fills its buffers and tables in this time.
const WARM: Duration = Duration::from_secs(60);
/// Slopes over less time say little.
const LONG: Duration = Duration::from_secs(120);

/// Resident memory of each process in KB, by the seconds since the first look.
#[derive(Default)]
pub struct Memory {
    begin: Option<Instant>,
    last: Option<Instant>,
    processes: BTreeMap<(Part, i32), Vec<(f64, f64)>>,
}

impl Memory {
    /// Looks at all processes, unless that was just done.
    pub fn look(&mut self, site: &Site) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + EVERY) {
            return;
        }
        self.last = Some(now);
        let since = now.duration_since(*self.begin.get_or_insert(now)).as_secs_f64();
        for part in Part::ALL {
            for pid in site.pids(part) {
                if let Some(resident) = resident(pid) {
                    self.processes.entry((part, pid)).or_default().push((since, resident));
                }
            }
        }
    }

    /// A line for each process that has lived long.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.processes.iter().filter_map(|((part, pid), looks)| {
            let (began, _) = looks.first()?;
            let warm: Vec<_> = looks.iter().copied().filter(|(at, _)| *at >= began + WARM.as_secs_f64()).collect();
            let ((from, first), (until, last)) = (*warm.first()?, *warm.last()?);
            let time = until - from;
            (time >= LONG.as_secs_f64()).then(|| {
                let slope = slope(&warm) * 60.0;
                format!("{part:?} {pid}: {first:.0} KB, {time:.0} s later {last:.0} KB, slope {slope:.1} KB a minute")
            })
        });
        lines.collect()
    }
}

fn resident(pid: i32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

/// Of the line through points that has the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    both / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_slope_is_that_of_the_line() {
        let slope = super::slope(&[(0.0, 1.0), (1.0, 2.0), (2.0, 6.0), (3.0, 7.0)]);
        assert!((slope - 2.2).abs() < 1e-9, "{slope}");
    }
}
