// SPDX-License-Identifier: AGPL-3.0-or-later
//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use crate::client::{Client, Kind};
use crate::news::{News, Published, To};
use crate::told::Mistakes;
use crate::trouble::{Deed, Event, Part};

/// Of those that went wrong, so many are told in full.
const EXAMPLES: usize = 20;

/// See the module.
pub struct Report {
    pub begin: Instant,
    pub events: Vec<Event>,
    pub clients: Vec<Client>,
    pub mistakes: Mistakes,
}

/// Clients of a kind.
#[derive(Default)]
struct Sum {
    clients: usize,
    closed: usize,
    comebacks: usize,
    away: Vec<u128>,
    lost: usize,
    missed: usize,
    repeated: usize,
    disordered: usize,
    deaf: usize,
}

impl Sum {
    fn add(&mut self, client: &Client) {
        let Client { kind, tally, hearing, answers, .. } = client;
        self.clients += 1;
        self.closed += tally.closed.len();
        self.comebacks += tally.comebacks;
        self.away.extend(&tally.away);
        self.lost += hearing.lost.len() + answers.lost.len();
        self.missed += hearing.missed;
        // A backend that is told twice answers twice.
        self.repeated += hearing.repeated + if *kind == Kind::OverHttp { 0 } else { answers.repeated };
        self.disordered += hearing.disordered + answers.disordered;
        self.deaf += tally.deaf + usize::from(!client.has_enough());
    }

    fn failures(&self) -> usize {
        self.closed + self.lost + self.repeated + self.disordered + self.deaf
    }
}

impl Report {
    /// What went wrong.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = self.clients.iter().flat_map(|client| client.tally.closed.clone()).collect();
        for client in &self.clients {
            let mut sum = Sum::default();
            sum.add(client);
            if sum.failures() > sum.closed {
                let (kind, index, lost, last) =
                    (client.kind, client.index, &client.hearing.lost, client.hearing.last());
                failures.push(format!(
                    "{kind:?} {index}: lost {lost:?} and answers {:?}, {} repeated, {} out of order, {} times deaf, last {last}, \
                     {} said, {} answered",
                    client.answers.lost, sum.repeated, sum.disordered, sum.deaf, client.said, client.answers.last(),
                ));
            }
        }
        let count = failures.len();
        failures.truncate(EXAMPLES);
        if count > EXAMPLES {
            failures.push(format!("and {} more", count - EXAMPLES));
        }
        let Mistakes { lost, repeated, .. } = self.mistakes;
        if lost + repeated > 0 {
            failures.push(format!("{lost} messages of clients were lost, {repeated} told twice without a mark"));
        }
        failures
    }

    /// From a moment until all clients of a kind that stay have the first message that was not acknowledged before, in ms.
    fn served_after(&self, published: &[Published], at: Instant, kind: Kind) -> Option<u128> {
        let number = published.iter().position(|published| published.acknowledged > at)?;
        let arrivals = self.clients.iter().filter(|client| client.kind == kind);
        let last = arrivals.filter_map(|client| *client.hearing.arrivals.get(number)?).max()?;
        u128::from(last).checked_sub(at.duration_since(self.begin).as_millis())
    }
}

/// Half of them, almost all, all.
fn spread(mut times: Vec<u128>) -> String {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return "-".into() };
    let ms = |share: usize| times[last * share / 100];
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(50), ms(99), ms(100))
}

fn count_published(f: &mut fmt::Formatter<'_>, news: &News) -> fmt::Result {
    let published = news.channel(To::Held).published();
    let again = published.iter().filter(|published| published.attempts > 1).count();
    let polls = news.channel(To::Polls).published().len();
    let times = published.iter().map(|one| one.acknowledged.duration_since(one.sent).as_millis()).collect();
    writeln!(
        f,
        "{} messages, {polls} of them for long-polls as well; {again} were sent more than once",
        published.len()
    )?;
    writeln!(f, "until one was acknowledged: {}", spread(times))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.clients.first() else { return Ok(()) };
        count_published(f, &first.news)?;
        let mut kinds = BTreeMap::<Kind, Sum>::new();
        self.clients.iter().for_each(|client| kinds.entry(client.kind).or_default().add(client));
        for (kind, sum) in kinds {
            let Sum { clients, closed, comebacks, lost, missed, repeated, disordered, deaf, .. } = sum;
            writeln!(
                f,
                "{kind:?}: {clients} clients, {closed} closed that had to stay, {comebacks} that had not, {lost} messages lost, \
                 {missed} missed between two connections, {repeated} repeated, {disordered} out of order, {deaf} times deaf"
            )?;
            if !sum.away.is_empty() {
                writeln!(f, "  from the end of a connection until it was served over another: {}", spread(sum.away))?;
            }
        }
        let Mistakes { lost, repeated, marked } = self.mistakes;
        writeln!(f, "messages of clients over HTTP: {lost} lost, {repeated} told twice, {marked} more with a mark")?;
        let mut deeds = BTreeMap::<_, Vec<&Event>>::new();
        self.events.iter().for_each(|event| deeds.entry((event.part, event.deed)).or_default().push(event));
        let published = first.news.channel(To::Held).published();
        for ((part, deed), events) in deeds {
            let times = events.iter().map(|event| event.runs.duration_since(event.at).as_millis()).collect();
            writeln!(f, "{deed:?} {part:?}: {} times; until it serves again: {}", events.len(), spread(times))?;
            if part == Part::Handler && deed != Deed::Stop {
                for (what, from) in [("the end", true), ("the start of a successor", false)] {
                    let from = |event: &&Event| if from { event.at } else { event.runs };
                    for kind in [Kind::Stream, Kind::OverHttp, Kind::Direct] {
                        let served = |event| self.served_after(&published, from(event), kind);
                        let times = events.iter().filter_map(served).collect();
                        writeln!(f, "  from {what} until every {kind:?} has the next message: {}", spread(times))?;
                    }
                }
            }
        }
        Ok(())
    }
}
