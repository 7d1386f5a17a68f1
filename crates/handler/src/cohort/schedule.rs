// SPDX-License-Identifier: AGPL-3.0-or-later
//! When backends are asked again: not all holds at once, because all that a channel has may want it at the same moment.
//!
//! So many a second, with a short wait before the first, and holds with different links take turns (GRIP, updates).

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::subscribe::channels::{CohortKey, HoldKey};

/// Time before the first batch, and between batches.
const TICK: Duration = Duration::from_millis(100);
/// Requests of one batch.
const BATCH: usize = 100;

/// Who is to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// A cohort, with the number that tells it from others at its index.
    Cohort(CohortKey, u64),
    /// A long-poll that is in none, with its birth.
    Poll(HoldKey, u64),
}

/// See the module.
#[derive(Default)]
pub struct Schedule {
    turns: VecDeque<Rc<str>>,
    waiting: HashMap<Rc<str>, VecDeque<Update>>,
    next_at: Option<Instant>,
}

impl Schedule {
    /// Adds one. Those with the same `link` share their turns; long-polls have an empty one.
    pub fn add(&mut self, link: &str, update: Update, now: Instant) {
        match self.waiting.get_mut(link) {
            Some(waiting) => waiting.push_back(update),
            None => {
                let link: Rc<str> = link.into();
                self.turns.push_back(link.clone());
                self.waiting.insert(link, VecDeque::from([update]));
            }
        }
        self.next_at.get_or_insert(now + TICK);
    }

    /// The next batch, if it is due.
    pub fn take(&mut self, now: Instant) -> Vec<Update> {
        if self.next_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let Some(link) = self.turns.pop_front() else { return Vec::new() };
        let waiting = self.waiting.entry(link.clone()).or_default();
        let batch = waiting.drain(..waiting.len().min(BATCH)).collect();
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&link)),
            false => self.turns.push_back(link),
        }
        self.next_at = (!self.turns.is_empty()).then(|| now + TICK);
        batch
    }

    /// When [`Schedule::take`] gives something.
    pub fn next_due(&self) -> Option<Instant> {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_take_turns_and_batches_have_a_size() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        (0..150).for_each(|i| schedule.add("a", Update::Poll(i, 0), start));
        schedule.add("b", Update::Poll(7, 7), start);
        assert_eq!(schedule.take(start), []);
        let mut now = start;
        let sizes: Vec<usize> = std::iter::from_fn(|| {
            now = schedule.next_due()?;
            Some(schedule.take(now).len())
        })
        .collect();
        assert_eq!(sizes, [100, 1, 50]);
        assert_eq!(now, start + 3 * TICK);
        assert!(schedule.waiting.is_empty());
    }
}
