// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a child tells its parent: its status now and then, and a report at the end.
//!
//! Each line is a word and values separated by blanks.

use std::fmt::Write;
use std::ops::AddAssign;
use std::sync::atomic::Ordering::Relaxed;

use crate::receivers::{add_receipts, Progress, Receipt, Tally};

/// Counts so far.
#[derive(Default, Clone, Copy, Debug, PartialEq)]
pub struct Status {
    pub held: u64,
    pub failed: u64,
    /// Connections that ended after they were held.
    pub closed: u64,
    pub warmed: u64,
    pub delivered: u64,
}

impl Status {
    pub fn of(progress: &Progress) -> Self {
        Status {
            held: progress.held.load(Relaxed) as u64,
            failed: progress.failed.load(Relaxed) as u64,
            closed: progress.closed.load(Relaxed) as u64,
            warmed: progress.warmed.load(Relaxed) as u64,
            delivered: progress.delivered.load(Relaxed),
        }
    }

    pub fn line(&self) -> String {
        let Status { held, failed, closed, warmed, delivered } = self;
        format!("status {held} {failed} {closed} {warmed} {delivered}\n")
    }

    /// The status in a line, if that is what the line has.
    pub fn parse(line: &str) -> Option<Self> {
        let [held, failed, closed, warmed, delivered] = numbers(line.strip_prefix("status ")?)?;
        Some(Status { held, failed, closed, warmed, delivered })
    }

    /// Connections held now.
    pub fn open(&self) -> u64 {
        self.held.saturating_sub(self.closed)
    }
}

impl AddAssign for Status {
    fn add_assign(&mut self, other: Status) {
        self.held += other.held;
        self.failed += other.failed;
        self.closed += other.closed;
        self.warmed += other.warmed;
        self.delivered += other.delivered;
    }
}

/// What receivers saw from beginning to end.
#[derive(Default, Clone, Debug, PartialEq)]
pub struct Report {
    /// By sequence number.
    pub receipts: Vec<Receipt>,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    pub malformed: u64,
    pub closed: u64,
    pub first_error: Option<String>,
}

impl Report {
    pub fn of(tally: Tally, published: u32) -> Self {
        Report {
            lost: tally.lost(published),
            duplicated: tally.faults.duplicated,
            out_of_order: tally.faults.out_of_order,
            malformed: tally.malformed,
            closed: tally.closed,
            receipts: tally.receipts,
            first_error: tally.first_error,
        }
    }

    pub fn lines(&self) -> String {
        let Report { lost, duplicated, out_of_order, malformed, closed, .. } = self;
        let mut out = format!("faults {lost} {duplicated} {out_of_order} {malformed} {closed}\n");
        for Receipt { sent_ns, first_ns, last_ns } in &self.receipts {
            let _ = writeln!(out, "receipt {sent_ns} {first_ns} {last_ns}");
        }
        if let Some(error) = &self.first_error {
            let _ = writeln!(out, "error {error}");
        }
        out
    }

    /// Takes in one line of a report; returns whether it was one.
    pub fn take_line(&mut self, line: &str) -> bool {
        let Some((word, values)) = line.split_once(' ') else { return false };
        match word {
            "faults" => numbers(values).is_some_and(|[lost, duplicated, out_of_order, malformed, closed]| {
                let receipts = std::mem::take(&mut self.receipts);
                let first_error = self.first_error.take();
                *self = Report { receipts, lost, duplicated, out_of_order, malformed, closed, first_error };
                true
            }),
            "receipt" => numbers(values).is_some_and(|[sent_ns, first_ns, last_ns]| {
                self.receipts.push(Receipt { sent_ns, first_ns, last_ns });
                true
            }),
            "error" => {
                self.first_error = Some(values.to_string());
                true
            }
            _ => false,
        }
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Report) {
        add_receipts(&mut self.receipts, &other.receipts);
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.malformed += other.malformed;
        self.closed += other.closed;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Exactly `N` numbers.
fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let values: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    values?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back() {
        let status = Status { held: 5, failed: 1, closed: 2, warmed: 4, delivered: 99 };
        assert_eq!(Status::parse(status.line().trim_end()), Some(status));
        assert_eq!(Status::parse("status 1 2 3"), None);
        assert_eq!(Status::parse("faults 1 2 3 4 5"), None);
    }

    #[test]
    fn a_report_reads_back() {
        let receipts = vec![Receipt { sent_ns: 1, first_ns: 2, last_ns: 3 }, Receipt::default()];
        let first_error = Some("closed by the server".to_string());
        let report = Report { receipts, lost: 1, duplicated: 2, out_of_order: 3, malformed: 4, closed: 5, first_error };
        let mut read = Report::default();
        assert!(report.lines().lines().all(|line| read.take_line(line)));
        assert_eq!(read, report);
        assert!(!read.take_line("receipt 1 2"));
    }

    #[test]
    fn reports_add_up() {
        let receipt = |first_ns, last_ns| Receipt { sent_ns: 1, first_ns, last_ns };
        let mut sum = Report { receipts: vec![receipt(5, 6)], lost: 1, ..Report::default() };
        sum += Report { receipts: vec![receipt(4, 5), receipt(7, 9)], lost: 2, ..Report::default() };
        assert_eq!(sum.receipts, [receipt(4, 6), receipt(7, 9)]);
        assert_eq!(sum.lost, 3);
    }
}
