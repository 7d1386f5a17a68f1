// SPDX-License-Identifier: AGPL-3.0-or-later
//! The pages of all processes, and the one that is made of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::catalogue::{METRICS, Metric, Scope, Type, find};
use crate::page::{Page, label};

/// A process tells something once a second. One that has been silent for so long hangs.
pub const FRESH: Duration = Duration::from_secs(5);

/// What was told last by a process.
struct Told {
    page: String,
    at: Instant,
}

/// See the module.
#[derive(Default)]
pub struct Suite {
    told: BTreeMap<String, Told>,
    /// What processes that have ended had counted for the suite: its numbers do not fall when one of several begins anew.
    past: BTreeMap<&'static str, u64>,
}

impl Suite {
    /// A process tells its values.
    pub fn tell(&mut self, process: &str, page: String, now: Instant) {
        self.told.insert(process.into(), Told { page, at: now });
    }

    /// A process has ended.
    pub fn end(&mut self, process: &str) {
        let Some(told) = self.told.remove(process) else { return };
        for (metric, line) in lines(&told.page) {
            if metric.scope == Scope::Suite && metric.kind == Type::Counter {
                *self.past.entry(metric.name).or_default() += value(line);
            }
        }
    }

    /// Whether a process answers; none if it has never told anything.
    pub fn is_fresh(&self, process: &str, now: Instant) -> Option<bool> {
        self.told.get(process).map(|told| told.is_fresh(now))
    }

    /// The sum of what a process told last of a metric; none if it does not have it, or has been silent.
    pub fn value(&self, process: &str, metric: &Metric, now: Instant) -> Option<u64> {
        let told = self.told.get(process).filter(|told| told.is_fresh(now))?;
        let of_metric = lines(&told.page).filter(|(other, _)| other.name == metric.name);
        of_metric.map(|(_, line)| value(line)).reduce(|sum, value| sum.saturating_add(value))
    }

    /// What all processes that answer have told last of a metric, by the value of its label; by an empty one if it has none.
    pub fn by_label(&self, metric: &Metric, now: Instant) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::<&str, u64>::new();
        let fresh = self.told.values().filter(|told| told.is_fresh(now));
        for (_, line) in fresh.flat_map(|told| lines(&told.page)).filter(|(other, _)| other.name == metric.name) {
            let quoted = line.split_once("=\"").and_then(|(_, rest)| rest.rsplit_once("\"} "));
            let sum = sums.entry(quoted.map_or("", |(label, _)| label)).or_default();
            *sum = sum.saturating_add(value(line));
        }
        sums
    }

    /// The text of all processes that answer, and of the runner, in the text format of Prometheus. Names begin with
    /// `prefix`; without one, those that Pushpin does not have begin with `pushpin_`.
    pub fn text(&self, prefix: &str, own: &Page, now: Instant) -> String {
        let mut samples = BTreeMap::<&str, Vec<(&str, &str)>>::new();
        let fresh = self.told.iter().filter(|(_, told)| told.is_fresh(now));
        let pages = fresh.map(|(process, told)| (process.as_str(), told.page.as_str()));
        for (process, page) in pages.chain([("", own.as_str())]) {
            for (metric, line) in lines(page) {
                samples.entry(metric.name).or_default().push((process, line));
            }
        }
        let mut text = String::new();
        for metric in METRICS {
            let samples = samples.get(metric.name).map_or(&[][..], Vec::as_slice);
            let prefix = match metric.scope {
                Scope::Suite => prefix,
                _ if prefix.is_empty() => "pushpin_",
                _ => prefix,
            };
            if samples.is_empty() && metric.scope != Scope::Suite {
                continue;
            }
            let (name, help) = (metric.name, metric.help);
            let kind = match metric.kind {
                Type::Counter => "counter",
                Type::Gauge => "gauge",
                Type::Histogram => "histogram",
            };
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n");
            if metric.scope == Scope::Suite {
                let _ = writeln!(text, "{prefix}{name} {}", self.total(metric, now));
                continue;
            }
            for (process, line) in samples {
                text.push_str(prefix);
                add(&mut text, process, line);
            }
        }
        text
    }

    /// Of a counter all that was ever told counts, of a gauge what is told now.
    pub fn total(&self, metric: &Metric, now: Instant) -> u64 {
        let is_counter = metric.kind == Type::Counter;
        let told = self.told.values().filter(|told| is_counter || told.is_fresh(now));
        let lines = told.flat_map(|told| lines(&told.page)).filter(|(other, _)| other.name == metric.name);
        lines.map(|(_, line)| value(line)).sum::<u64>() + self.past.get(metric.name).copied().unwrap_or_default()
    }
}

impl Told {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < FRESH
    }
}

/// The lines of a page with their metrics; what a newer program may have beyond the table is left out.
fn lines(page: &str) -> impl Iterator<Item = (&'static Metric, &str)> {
    page.lines().filter_map(|line| Some((find(line.split(['{', ' ']).next()?)?, line)))
}

fn value(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// Appends a line with the label `process`; without if that is empty.
fn add(text: &mut String, process: &str, line: &str) {
    let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
    text.push_str(name);
    match (process, rest.strip_prefix('{')) {
        ("", _) => text.push_str(rest),
        (_, Some(labels)) => {
            text.push('{');
            label(text, "process", process);
            text.push(',');
            text.push_str(labels);
        }
        (_, None) => {
            text.push('{');
            label(text, "process", process);
            text.push('}');
            text.push_str(rest);
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{CLIENTS, CLOSES, CONNECTION_CONNECTED, PROCESS_UP, REQUEST_RECEIVED};

    fn page(add: impl FnOnce(&mut Page)) -> String {
        let mut page = Page::default();
        add(&mut page);
        page.as_str().into()
    }

    fn has(suite: &Suite, prefix: &str, now: Instant, lines: &[&str]) {
        let mut own = Page::default();
        own.add(&PROCESS_UP, &["proxy"], 1);
        let text = suite.text(prefix, &own, now);
        for line in lines {
            assert!(text.lines().any(|other| other == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn one_page_has_the_samples_of_all_processes() {
        let (mut suite, now) = (Suite::default(), Instant::now());
        for process in ["frontend", "frontend-1"] {
            suite.tell(process, page(|page| page.add(&CLIENTS, &[], 3)), now);
        }
        suite.tell("proxy", page(|page| page.add(&CLOSES, &["server_fault"], 7)) + "not_known 5\n", now);
        let lines = [
            "# TYPE pushpin_clients gauge",
            "pushpin_clients{process=\"frontend\"} 3",
            "pushpin_clients{process=\"frontend-1\"} 3",
            "pushpin_closes_total{process=\"proxy\",reason=\"server_fault\"} 7",
            "pushpin_process_up{process=\"proxy\"} 1",
            "request_received 0",
        ];
        has(&suite, "", now, &lines);
        assert!(!suite.text("", &Page::default(), now).contains("not_known"));
        has(&suite, "p_", now, &["p_clients{process=\"frontend\"} 3", "p_request_received 0"]);
    }

    #[test]
    fn values_are_summed_up_by_label() {
        let (mut suite, now) = (Suite::default(), Instant::now());
        for (process, silent) in [("frontend", false), ("frontend-1", false), ("frontend-2", true)] {
            let page = page(|page| {
                page.add(&CLIENTS, &[], 3);
                page.add(&CLOSES, &["deadline"], 2);
                page.add(&CLOSES, &["refused"], 1);
            });
            suite.tell(process, page, if silent { now } else { now + FRESH });
        }
        assert_eq!(suite.by_label(&CLOSES, now + FRESH), BTreeMap::from([("deadline", 4), ("refused", 2)]));
        assert_eq!(suite.by_label(&CLIENTS, now + FRESH), BTreeMap::from([("", 6)]));
        assert_eq!(suite.by_label(&PROCESS_UP, now + FRESH), BTreeMap::new());
    }

    #[test]
    fn a_silent_process_costs_its_own_samples_only() {
        let (mut suite, now) = (Suite::default(), Instant::now());
        let told = || page(|page| page.add(&CLIENTS, &[], 3));
        suite.tell("frontend", told(), now);
        suite.tell("frontend-1", told(), now + FRESH);
        let text = suite.text("", &Page::default(), now + FRESH);
        assert!(!text.contains("process=\"frontend\"") && text.contains("process=\"frontend-1\""));
        assert_eq!(suite.is_fresh("frontend", now + FRESH), Some(false));
        assert_eq!(suite.is_fresh("proxy", now), None);
    }

    #[test]
    fn counters_of_the_suite_go_on_when_a_process_begins_anew() {
        let (mut suite, now) = (Suite::default(), Instant::now());
        let told = |requests, connections| {
            page(|page| {
                page.add(&REQUEST_RECEIVED, &[], requests);
                page.add(&CONNECTION_CONNECTED, &[], connections);
            })
        };
        suite.tell("proxy", told(5, 2), now);
        suite.tell("handler", told(0, 3), now);
        has(&suite, "", now, &["request_received 5", "connection_connected 5"]);
        suite.end("proxy");
        has(&suite, "", now, &["request_received 5", "connection_connected 3"]);
        suite.tell("proxy", told(1, 1), now);
        has(&suite, "", now, &["request_received 6", "connection_connected 4"]);
        // One that hangs has not unmade what it counted.
        has(&suite, "", now + FRESH, &["request_received 6", "connection_connected 0"]);
    }
}
