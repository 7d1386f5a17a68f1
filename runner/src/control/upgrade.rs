// SPDX-License-Identifier: AGPL-3.0-or-later
//! An upgrade under way: which processes have been replaced, which have to go back if one fails, and the report.

use std::fmt;
use std::time::{Duration, Instant};

use crate::table;

/// A process of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Its version, when it has told it.
    pub version: Option<String>,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
}

/// A service in an upgrade.
#[derive(Debug)]
struct Step {
    process: usize,
    name: String,
    before: Version,
    /// What serves in its place.
    after: Option<Version>,
    begun: Option<Instant>,
    took: Option<Duration>,
    /// Clients that have moved from one to the other.
    moved: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Upgrade {
    steps: Vec<Step>,
    /// Why it goes back, if it does.
    reason: Option<String>,
}

impl Upgrade {
    /// One more service takes part, whose turn comes after those before.
    pub fn add(&mut self, process: usize, name: String, before: Version) {
        self.steps.push(Step { process, name, before, after: None, begun: None, took: None, moved: None });
    }

    /// A process is about to be replaced.
    pub fn begin(&mut self, process: usize, now: Instant) {
        if let Some(step) = self.step(process) {
            (step.begun, step.took) = (Some(now), None);
        }
    }

    /// A successor serves.
    pub fn replaced(&mut self, process: usize, pid: Option<u32>, now: Instant) {
        if let Some(step) = self.step(process) {
            step.after = Some(Version { version: None, pid });
            step.took = step.begun.map(|begun| now.saturating_duration_since(begun));
        }
    }

    /// A successor has told its version, and how many clients have moved to it if it has any.
    pub fn told(&mut self, process: usize, version: Option<String>, moved: Option<u64>) {
        if let Some(step) = self.step(process) {
            step.moved = moved;
            if let Some(after) = &mut step.after {
                after.version = version;
            }
        }
    }

    /// Those that have been replaced.
    pub fn done(&self) -> Vec<usize> {
        self.steps.iter().filter(|step| step.after.is_some()).map(|step| step.process).collect()
    }

    /// All that take part.
    pub fn processes(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().map(|step| step.process)
    }

    /// The upgrade has failed for this reason: those that have to go back, in that order. The one that failed is the first, because
    /// nobody serves in its place, unless it was `spared` and its predecessor goes on. The others follow, the last one first.
    pub fn way_back(&mut self, failed: usize, spared: bool, reason: String) -> Vec<usize> {
        self.reason = Some(reason);
        let first = (!spared).then_some(failed);
        first.into_iter().chain(self.done().into_iter().rev()).collect()
    }

    /// Why it goes back, if it does.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn step(&mut self, process: usize) -> Option<&mut Step> {
        self.steps.iter_mut().find(|step| step.process == process)
    }
}

const HEADINGS: [&str; 5] = ["PROCESS", "VERSION", "PID", "TIME", "MOVED"];

impl fmt::Display for Upgrade {
    /// A table of what ran and what runs now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = std::iter::once(HEADINGS.map(String::from)).chain(self.steps.iter().map(row)).collect();
        f.write_str(&table::lines(&rows).join("\n"))
    }
}

fn row(step: &Step) -> [String; 5] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let version = |of: &Version| or_dash(of.version.clone());
    let pid = |of: &Version| or_dash(of.pid.map(|pid| pid.to_string()));
    let both = |text: &dyn Fn(&Version) -> String| match &step.after {
        Some(after) => format!("{} -> {}", text(&step.before), text(after)),
        None => text(&step.before),
    };
    [
        step.name.clone(),
        both(&version),
        both(&pid),
        or_dash(step.took.map(|took| format!("{} ms", took.as_millis()))),
        or_dash(step.moved.map(|moved| moved.to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn upgrade(now: Instant) -> Upgrade {
        let mut upgrade = Upgrade::default();
        for (process, name) in [(1, "outbound"), (3, "handler"), (0, "frontend")] {
            upgrade.add(process, name.into(), Version { version: Some("1".into()), pid: Some(process as u32 + 10) });
        }
        upgrade.begin(1, now);
        upgrade.replaced(1, Some(21), now + 40 * MS);
        upgrade
    }

    #[test]
    fn the_report_says_what_ran_and_what_runs() {
        let now = Instant::now();
        let mut upgrade = upgrade(now);
        upgrade.begin(0, now + 50 * MS);
        upgrade.replaced(0, Some(20), now + 150 * MS);
        upgrade.told(0, Some("2".into()), Some(1204));
        let expected = "\
PROCESS   VERSION  PID       TIME    MOVED
outbound  1 -> -   11 -> 21  40 ms   -
handler   1        13        -       -
frontend  1 -> 2   10 -> 20  100 ms  1204";
        assert_eq!(upgrade.to_string(), expected);
    }

    #[test]
    fn the_one_that_fails_goes_back_first_and_the_others_in_the_other_direction() {
        let now = Instant::now();
        let mut upgrade = upgrade(now);
        upgrade.begin(3, now);
        assert_eq!(upgrade.way_back(3, false, "why".into()), [3, 1]);
        assert_eq!(upgrade.reason(), Some("why"));
    }

    #[test]
    fn one_whose_predecessor_goes_on_has_no_way_back() {
        let now = Instant::now();
        let mut upgrade = upgrade(now);
        upgrade.begin(3, now);
        upgrade.replaced(3, Some(23), now);
        upgrade.begin(0, now);
        assert_eq!(upgrade.way_back(0, true, String::new()), [3, 1]);
    }
}
