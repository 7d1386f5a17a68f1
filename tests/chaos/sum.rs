// SPDX-License-Identifier: AGPL-3.0-or-later
//! What came of clients of a kind, or of one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use crate::client::{Client, Closing, Kind};
use crate::hearing::Hearing;
use crate::limits::Limits;
use crate::news::To;
use crate::recovery::spread;

/// See the module.
#[derive(Default)]
pub struct Sum {
    pub clients: usize,
    /// Had to stay, and was closed, or was answered wrongly.
    pub closed: usize,
    /// Might end, and why.
    ended: BTreeMap<&'static str, usize>,
    away: Vec<u128>,
    lost: usize,
    /// Gone without anybody's knowledge, as it may be.
    unknown: usize,
    missed: usize,
    repeated: usize,
    disordered: usize,
    deaf: usize,
}

impl Sum {
    /// Adds what came of a client.
    pub fn add(&mut self, client: &Client, limits: &Limits<'_>) {
        let Client { kind, tally, answers, .. } = client;
        self.clients += 1;
        for closing in &tally.closings {
            match limits.may_end(*kind, closing) {
                Some(why) => *self.ended.entry(why).or_default() += 1,
                None => self.closed += 1,
            }
        }
        self.away.extend(&tally.away);
        for to in kind.hears() {
            let Hearing { lost, missed, repeated, disordered, .. } = client.hearing(*to);
            let unknown = lost.iter().filter(|number| limits.may_be_lost(*kind, *to, **number)).count();
            self.unknown += unknown;
            self.lost += lost.len() - unknown;
            self.missed += missed;
            self.repeated += repeated.len();
            self.disordered += disordered.len();
        }
        self.lost += answers.lost.len();
        // A backend that is told twice answers twice.
        self.repeated += if *kind == Kind::OverHttp { 0 } else { answers.repeated.len() };
        self.disordered += answers.disordered.len();
        self.deaf += tally.deaf + usize::from(!client.has_enough());
    }

    fn has_failed(&self) -> bool {
        self.closed + self.lost + self.repeated + self.disordered + self.deaf > 0
    }
}

/// What is to be known of a client that had to hear everything, and did not, or was closed. None if all is well.
pub fn failure(client: &Client, limits: &Limits<'_>, begin: Instant) -> Option<String> {
    let mut sum = Sum::default();
    sum.add(client, limits);
    if !sum.has_failed() {
        return None;
    }
    let Client { kind, index, answers, tally, .. } = client;
    let closed = tally.closings.iter().filter(|closing| limits.may_end(*kind, closing).is_none());
    let closed = closed.map(|Closing { since, at, why, last }| {
        let [since, at] = [since, at].map(|time| time.duration_since(begin).as_millis());
        format!("closed after {at} ms, of which it was open since {since} ms, and message {last}: {why}; ")
    });
    let rows = kind.hears().iter().map(|to| row(client, *to, limits, begin));
    Some(format!(
        "{kind:?} {index}: {}{}answers: lost {:?}, {} said, {} answered; {} times deaf",
        closed.collect::<String>(),
        rows.collect::<String>(),
        answers.lost,
        client.said,
        answers.last(),
        sum.deaf,
    ))
}

fn row(client: &Client, to: To, limits: &Limits<'_>, begin: Instant) -> String {
    let hearing = client.hearing(to);
    let lost: Vec<_> =
        hearing.lost.iter().copied().filter(|number| !limits.may_be_lost(client.kind, to, *number)).collect();
    let ms = |number| client.news.channel(to).sent(number).map(|sent| sent.duration_since(begin).as_millis());
    // Rows of them, with the times at which the first and the last of each were sent, and when the next one came.
    let rows = lost.chunk_by(|a, b| a + 1 == *b).filter_map(|row| {
        let (first, last) = (*row.first()?, *row.last()?);
        let next = hearing.arrivals.get(last).copied().flatten();
        Some(format!(
            "{first} to {last}, sent at {:?} to {:?} ms, before what came at {next:?} ms",
            ms(first),
            ms(last)
        ))
    });
    let (lost, last) = (rows.collect::<Vec<_>>(), hearing.last());
    let Hearing { repeated, disordered, .. } = hearing;
    format!("{to:?}: lost {lost:?}, repeated {repeated:?}, out of order {disordered:?}, last {last}; ")
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { clients, closed, lost, unknown, missed, repeated, disordered, deaf, .. } = self;
        writeln!(
            f,
            "{clients} clients, {closed} closed that had to stay, {lost} messages lost, {repeated} repeated, {disordered} out of order, \
             {deaf} times deaf; {unknown} gone whose publishers could not know, {missed} missed between two connections"
        )?;
        for (why, count) in &self.ended {
            writeln!(f, "  {count} ended because {why}")?;
        }
        if !self.away.is_empty() {
            writeln!(
                f,
                "  from the end of a connection until it was served over another: {}",
                spread(self.away.clone())
            )?;
        }
        Ok(())
    }
}
