// SPDX-License-Identifier: AGPL-3.0-or-later
//! `docs/metrics.md`, written from the table of metrics.

use crate::catalogue::{METRICS, Metric, Scope, Type};

/// Text of the page.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for (title, about, belongs) in SECTIONS {
        page.push_str(&format!("\n## {title}\n\n{about}\n\n"));
        page.push_str("| Name | Type | Labels | What it says |\n|---|---|---|---|\n");
        METRICS.iter().filter(|metric| belongs(metric)).for_each(|metric| page.push_str(&row(metric)));
        METRICS.iter().filter(|metric| belongs(metric)).for_each(|metric| page.push_str(&values(metric)));
    }
    page
}

type Section = (&'static str, &'static str, fn(&Metric) -> bool);

const SECTIONS: [Section; 6] = [
    (
        "Pushpin's",
        "One value for the suite. They begin with `prometheus_prefix` as it is, and go on when a process is started again.",
        |metric| metric.scope == Scope::Suite,
    ),
    ("Of the runner", "About the suite and each process.", |metric| {
        matches!(metric.scope, Scope::Runner | Scope::Process("each"))
    }),
    ("Of the frontend", "Clients.", |metric| metric.scope == Scope::Process("frontend")),
    ("Of the proxy", "Requests.", |metric| metric.scope == Scope::Process("proxy")),
    ("Of the handler", "Holds, channels and messages.", |metric| metric.scope == Scope::Process("handler")),
    ("Of the outbound process", "Backends.", |metric| metric.scope == Scope::Process("outbound")),
];

const INTRODUCTION: &str = "\
# Metrics and health

(Written by `cargo run -p metrics --example metrics > docs/metrics.md` from the table in `crates/metrics/src/catalogue.rs`; a test
fails when it is out of date, and another one when a scrape has something else.)

`prometheus_port=9100` in `[handler]` (or `[proxy]`) has the runner serve metrics in the text format of Prometheus, whatever the path:
one scrape shows the whole suite. A port alone is open to this machine only; `*:9100` is open to all, `ipc:///path` is a Unix socket.

Each process counts for itself and tells the runner once a second. A process that hangs or is being started again has no samples
after 5 seconds, `process_up` is 0, and all else is there. Nothing waits for it.

Names begin with `prometheus_prefix`; without it, those that Pushpin does not have begin with `pushpin_`. Samples of a process have the
label `process`: `frontend`, `frontend-1`, `proxy`, `handler`, `outbound`.

`health_port` in `[runner]` serves `/healthz`, which is 200 while the runner works, and `/readyz`, which is 200 when all processes
serve and have answered within 5 seconds, else 503 with what is missing, a line each.

[examples/monitoring](../examples/monitoring) has rules for alerts and a dashboard for Grafana.
";

fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Type::Counter => "counter",
        Type::Gauge => "gauge",
        Type::Histogram => "histogram",
    };
    let process = matches!(metric.scope, Scope::Process(_)).then_some("process");
    let labels: Vec<_> =
        process.iter().chain(metric.labels.iter().map(|label| &label.name)).map(|label| format!("`{label}`")).collect();
    format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help)
}

/// What the values of its labels mean.
fn values(metric: &Metric) -> String {
    let mut text = String::new();
    for label in metric.labels.iter().filter(|label| !label.values.is_empty()) {
        text.push_str(&format!("\n`{}` by `{}`:\n\n| Value | What it says |\n|---|---|\n", metric.name, label.name));
        label.values.iter().for_each(|(value, help)| text.push_str(&format!("| `{value}` | {help} |\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == markdown(), "write it again with `cargo run -p metrics --example metrics`");
    }

    #[test]
    fn every_metric_is_in_one_section() {
        for metric in METRICS {
            let rows = ["counter", "gauge", "histogram"].map(|kind| format!("| `{}` | {kind} |", metric.name));
            let count: usize = rows.iter().map(|row| markdown().matches(row).count()).sum();
            assert_eq!(count, 1, "{}", metric.name);
        }
    }

    /// Metrics that count what the table in docs/architecture.md lists.
    fn counted() -> impl Iterator<Item = (&'static str, &'static str)> {
        let of = |metric: &'static Metric| metric.labels.iter().map(move |label| (metric, label));
        let labels = METRICS.iter().flat_map(of).filter(|(_, label)| label.name == "reason");
        labels.flat_map(|(metric, label)| label.values.iter().map(move |(value, _)| (metric.name, *value)))
    }

    #[test]
    fn what_may_be_dropped_by_design_is_counted_and_what_is_counted_is_by_design() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let (_, table) = page.split_once("dropped or ended, by design\n").unwrap_or_default();
        let (table, _) = table.split_once("\n## ").unwrap_or_default();
        // Between the braces of `drops_total{reason="rate"}`.
        let mentioned: Vec<_> =
            table.split('`').filter_map(|text| text.strip_suffix("\"}")?.split_once("{reason=\"")).collect();
        let unknown: Vec<_> = mentioned.iter().filter(|sample| !counted().any(|known| known == **sample)).collect();
        assert!(unknown.is_empty(), "not counted: {unknown:?}");
        let missing: Vec<_> = counted().filter(|sample| !mentioned.contains(sample)).collect();
        assert!(missing.is_empty(), "not in the table: {missing:?}");
    }
}
