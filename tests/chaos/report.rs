// SPDX-License-Identifier: AGPL-3.0-or-later
//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::clients::Ending;
use crate::news::Published;
use crate::trouble::{Deed, Event, Part};

/// See the module.
pub struct Report {
    pub published: Vec<Published>,
    pub events: Vec<Event>,
    pub endings: Vec<Ending>,
}

impl Report {
    /// What went wrong, by client.
    pub fn failures(&self) -> Vec<String> {
        self.endings.iter().filter_map(|ending| ending.error.clone()).collect()
    }

    /// From a moment until all clients of a kind that stay have the first message that was not acknowledged before.
    fn served_after(&self, at: Instant, kind: &str) -> Option<Duration> {
        let number = self.published.iter().position(|published| published.acknowledged > at)?;
        let clients = self.endings.iter().filter(|ending| ending.kind == kind);
        clients.filter_map(|ending| (*ending.arrivals.get(number)?)?.checked_duration_since(at)).max()
    }
}

/// Half of them, almost all, all.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return "-".into() };
    let ms = |share: usize| times[last * share / 100].as_millis();
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(50), ms(99), ms(100))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeated = self.published.iter().filter(|published| published.attempts > 1).count();
        writeln!(f, "{} messages, of which {repeated} were sent more than once", self.published.len())?;
        let times = self.published.iter().map(|p| p.acknowledged.duration_since(p.sent)).collect();
        writeln!(f, "until one was acknowledged: {}", spread(times))?;
        let mut kinds = BTreeMap::<_, Vec<&Ending>>::new();
        self.endings.iter().for_each(|ending| kinds.entry(ending.kind).or_default().push(ending));
        for (kind, endings) in kinds {
            let comebacks: usize = endings.iter().map(|ending| ending.comebacks).sum();
            let broken: usize = endings.iter().map(|ending| ending.broken).sum();
            let failed = endings.iter().filter(|ending| ending.error.is_some()).count();
            writeln!(
                f,
                "{kind}: {} clients, {failed} failed, {comebacks} times one had to come back, {broken} connections broken off",
                endings.len()
            )?;
        }
        let mut deeds = BTreeMap::<_, Vec<&Event>>::new();
        self.events.iter().for_each(|event| deeds.entry((event.part, event.deed)).or_default().push(event));
        for ((part, deed), events) in deeds {
            writeln!(f, "{deed:?} {part:?}: {} times", events.len())?;
            if part == Part::Handler && deed != Deed::Stop {
                for (what, from) in [("the end", true), ("the start of a successor", false)] {
                    let from = |event: &&Event| if from { event.at } else { event.runs };
                    for kind in ["stream", "WebSocket"] {
                        let times = events.iter().filter_map(|event| self.served_after(from(event), kind)).collect();
                        writeln!(f, "  from {what} until every {kind} has the next message: {}", spread(times))?;
                    }
                }
            }
        }
        Ok(())
    }
}
