// SPDX-License-Identifier: AGPL-3.0-or-later
//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{Client, Kind};
use crate::hearing::Hearing;
use crate::news::{News, Published, To};
use crate::told::Mistakes;
use crate::trouble::{Deed, Event, Part};

/// Of those that went wrong, so many are told in full.
const EXAMPLES: usize = 20;

/// See the module.
pub struct Report {
    pub begin: Instant,
    pub news: Arc<News>,
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
    /// Gone without anybody's knowledge, as it may be.
    unknown: usize,
    missed: usize,
    repeated: usize,
    disordered: usize,
    deaf: usize,
}

impl Sum {
    fn add(&mut self, client: &Client, unknown: &Unknown) {
        let Client { kind, tally, answers, .. } = client;
        self.clients += 1;
        self.closed += tally.closed.len();
        self.comebacks += tally.comebacks;
        self.away.extend(&tally.away);
        for to in kind.hears() {
            let hearing = client.hearing(*to);
            let unknown = hearing.lost.iter().filter(|number| unknown.contains(*kind, *to, **number)).count();
            self.unknown += unknown;
            self.lost += hearing.lost.len() - unknown;
            self.missed += hearing.missed;
            self.repeated += hearing.repeated.len();
            self.disordered += hearing.disordered.len();
        }
        self.lost += answers.lost.len();
        // A backend that is told twice answers twice.
        self.repeated += if *kind == Kind::OverHttp { 0 } else { answers.repeated.len() };
        self.disordered += answers.disordered.len();
        self.deaf += tally.deaf + usize::from(!client.has_enough());
    }

    fn failures(&self) -> usize {
        self.closed + self.lost + self.repeated + self.disordered + self.deaf
    }
}

/// When messages may be gone without anybody's knowledge, as docs/reliability.md says.
struct Unknown<'a> {
    news: &'a News,
    /// Around the ends of handlers, what is published over ZeroMQ.
    unanswered: Vec<(Instant, Instant)>,
    /// From the end of a proxy until its successor has named its WebSockets, if a handler ends in that time: what is published to
    /// WebSockets.
    unnamed: Vec<(Instant, Instant)>,
}

impl Unknown<'_> {
    /// What lay in the queues of a handler when it ended.
    const BEFORE: Duration = Duration::from_secs(1);
    /// So long a handler that has just started may wait for a proxy, and take nothing out of its queues.
    const WAIT: Duration = Duration::from_secs(7);
    /// Until the successor of a handler is connected again and has subscribed, or that of a proxy has named all.
    const BEHIND: Duration = Duration::from_secs(2);

    fn contains(&self, kind: Kind, to: To, number: usize) -> bool {
        let published = self.news.channel(to).published();
        let Some(sent) = published.get(number - 1).map(|published| published.sent) else { return false };
        let within = |times: &[(Instant, Instant)]| times.iter().any(|(from, until)| (*from..*until).contains(&sent));
        (!to.is_acknowledged() && within(&self.unanswered)) || (kind.is_websocket() && within(&self.unnamed))
    }
}

impl Report {
    fn unknown(&self) -> Unknown<'_> {
        let ends = |part: Part| self.events.iter().filter(move |event| event.part == part && event.deed != Deed::Stop);
        let mut unanswered: Vec<(Instant, Instant)> = Vec::new();
        for end in ends(Part::Handler) {
            let (from, until) = (end.at - Unknown::BEFORE, end.runs + Unknown::BEHIND);
            match unanswered.last_mut().filter(|(_, last)| end.at < *last + Unknown::WAIT - Unknown::BEHIND) {
                Some((_, last)) => *last = until,
                None => unanswered.push((from, until)),
            }
        }
        let of_proxies = ends(Part::Proxy).map(|end| (end.at, end.runs + Unknown::BEHIND));
        let with_handler =
            |(from, until): &(Instant, Instant)| ends(Part::Handler).any(|end| (*from..*until).contains(&end.at));
        Unknown { news: &self.news, unanswered, unnamed: of_proxies.filter(with_handler).collect() }
    }

    /// What went wrong.
    pub fn failures(&self) -> Vec<String> {
        let unknown = self.unknown();
        let mut failures: Vec<String> = self.clients.iter().flat_map(|client| client.tally.closed.clone()).collect();
        for client in &self.clients {
            let mut sum = Sum::default();
            sum.add(client, &unknown);
            if sum.failures() > sum.closed {
                let rows = client.kind.hears().iter().map(|to| {
                    let hearing = client.hearing(*to);
                    let lost: Vec<_> = hearing
                        .lost
                        .iter()
                        .filter(|number| !unknown.contains(client.kind, *to, **number))
                        .take(EXAMPLES)
                        .collect();
                    let Hearing { repeated, disordered, .. } = hearing;
                    format!(
                        "{to:?}: lost {lost:?}, repeated {repeated:?}, out of order {disordered:?}, last {}",
                        hearing.last()
                    )
                });
                failures.push(format!(
                    "{:?} {}: {}; answers: lost {:?}, {} said, {} answered; {} times deaf",
                    client.kind,
                    client.index,
                    rows.collect::<Vec<_>>().join("; "),
                    client.answers.lost,
                    client.said,
                    client.answers.last(),
                    sum.deaf,
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
        let last = arrivals.filter_map(|client| *client.hearing(To::Held).arrivals.get(number)?).max()?;
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
    let [pushed, subscribed] = [To::Pushed, To::Subscribed].map(|to| news.channel(to).published().len());
    writeln!(
        f,
        "{} messages over HTTP, {polls} of them for long-polls as well; {again} were sent more than once; \
         {pushed} over PUSH, {subscribed} over PUB",
        published.len()
    )?;
    writeln!(f, "until one was acknowledged: {}", spread(times))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        count_published(f, &self.news)?;
        let (mut kinds, unknown) = (BTreeMap::<Kind, Sum>::new(), self.unknown());
        self.clients.iter().for_each(|client| kinds.entry(client.kind).or_default().add(client, &unknown));
        for (kind, sum) in kinds {
            let Sum { clients, closed, comebacks, lost, unknown, missed, repeated, disordered, deaf, .. } = sum;
            writeln!(
                f,
                "{kind:?}: {clients} clients, {closed} closed that had to stay, {comebacks} that had not, {lost} messages lost, \
                 {unknown} gone whose publishers could not know, {missed} missed between two connections, {repeated} repeated, {disordered} out of order, {deaf} times deaf"
            )?;
            if !sum.away.is_empty() {
                writeln!(f, "  from the end of a connection until it was served over another: {}", spread(sum.away))?;
            }
        }
        let Mistakes { lost, repeated, marked } = self.mistakes;
        writeln!(f, "messages of clients over HTTP: {lost} lost, {repeated} told twice, {marked} more with a mark")?;
        let mut deeds = BTreeMap::<_, Vec<&Event>>::new();
        self.events.iter().for_each(|event| deeds.entry((event.part, event.deed)).or_default().push(event));
        let published = self.news.channel(To::Held).published();
        for ((part, deed), events) in deeds {
            let times = events.iter().map(|event| event.runs.duration_since(event.at).as_millis()).collect();
            writeln!(f, "{deed:?} {part:?}: {} times; until it serves again: {}", events.len(), spread(times))?;
            if part == Part::Handler && deed != Deed::Stop {
                for (what, from) in [("the end", true), ("the start of a successor", false)] {
                    let from = |event: &&Event| if from { event.at } else { event.runs };
                    for kind in [Kind::Stream, Kind::TestStream, Kind::OverHttp, Kind::Direct, Kind::TestSocket] {
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
