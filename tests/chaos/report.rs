// SPDX-License-Identifier: AGPL-3.0-or-later
//! What came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::client::{Client, Kind};
use crate::limits::Limits;
use crate::news::{News, To};
use crate::recovery::{self, spread};
use crate::sum::{self, Sum};
use crate::told::Mistakes;
use crate::trouble::History;

/// Of those that went wrong, so many are told in full.
const EXAMPLES: usize = 20;

/// See the module.
pub struct Report {
    pub begin: Instant,
    pub news: Arc<News>,
    pub history: History,
    pub clients: Vec<Client>,
    pub mistakes: Mistakes,
}

impl Report {
    fn limits(&self) -> Limits<'_> {
        Limits::new(&self.news, &self.history)
    }

    /// What went wrong.
    pub fn failures(&self) -> Vec<String> {
        let limits = self.limits();
        let mut failures: Vec<String> =
            self.clients.iter().filter_map(|client| sum::failure(client, &limits, self.begin)).collect();
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
        let (mut kinds, limits) = (BTreeMap::<Kind, Sum>::new(), self.limits());
        self.clients.iter().for_each(|client| kinds.entry(client.kind).or_default().add(client, &limits));
        for (kind, sum) in kinds {
            write!(f, "{kind:?}: {sum}")?;
        }
        let Mistakes { lost, repeated, marked } = self.mistakes;
        writeln!(f, "messages of clients over HTTP: {lost} lost, {repeated} told twice, {marked} more with a mark")?;
        recovery::write(f, &self.history.events, &self.clients, &self.news, self.begin)
    }
}
