// SPDX-License-Identifier: AGPL-3.0-or-later
//! The values of one process at one moment, as lines of the text format of Prometheus without prefix.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::catalogue::{Metric, WARNINGS};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page(String);

impl Page {
    /// Adds a value; `labels` are the values of the metric's labels, in their order.
    pub fn add(&mut self, metric: &Metric, labels: &[&str], value: impl Display) {
        self.line(metric, "", labels, None, value);
    }

    /// Adds a value for each value of the metric's one label.
    pub fn add_each<'a>(&mut self, metric: &Metric, values: impl IntoIterator<Item = (&'a str, u64)>) {
        values.into_iter().for_each(|(label, value)| self.add(metric, &[label], value));
    }

    /// Adds how often each kind of warning occurred, as `collect` sums it up.
    pub fn add_warnings(&mut self, collect: impl FnOnce(&mut BTreeMap<&'static str, u64>)) {
        let mut totals = BTreeMap::new();
        collect(&mut totals);
        for (kind, total) in totals {
            self.add(&WARNINGS, &[kind], total);
        }
    }

    /// The same for a sample of a metric that has several: its name ends with `suffix`, and it has one more label.
    pub(crate) fn line(
        &mut self,
        metric: &Metric,
        suffix: &str,
        labels: &[&str],
        more: Option<(&str, &str)>,
        value: impl Display,
    ) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let Page(text) = self;
        text.push_str(metric.name);
        text.push_str(suffix);
        let labels = metric.labels.iter().zip(labels.iter().copied()).map(|(label, value)| {
            let known = || label.values.iter().any(|(known, _)| *known == value);
            debug_assert!(label.values.is_empty() || known(), "{} has no {value}", metric.name);
            (label.name, value)
        });
        for (number, (name, value)) in labels.chain(more).enumerate() {
            text.push(if number == 0 { '{' } else { ',' });
            label(text, name, value);
        }
        text.push_str(if metric.labels.is_empty() && more.is_none() { " " } else { "} " });
        // Writing to a string does not fail.
        let _ = writeln!(text, "{value}");
    }

    /// The lines.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Removes all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Appends `name="value"`.
pub(crate) fn label(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::CLIENTS;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.add(&CLIENTS, &[], 3);
        page.add(&WARNINGS, &["a \"b\"\\\n"], 1);
        assert_eq!(page.as_str(), "clients 3\nwarnings_total{kind=\"a \\\"b\\\"\\\\\\n\"} 1\n");
    }
}
