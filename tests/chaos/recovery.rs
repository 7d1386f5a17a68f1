// SPDX-License-Identifier: AGPL-3.0-or-later
//! How long it took until clients had their next message.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use crate::client::{Client, Kind};
use crate::news::News;
use crate::trouble::{Deed, Event, Part};

/// Half of them, almost all, all: in milliseconds.
pub fn spread(mut times: Vec<u128>) -> String {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return "-".into() };
    let ms = |share: usize| times[last * share / 100];
    format!("p50 {} ms, p99 {} ms, max {} ms", ms(50), ms(99), ms(100))
}

/// For each client, from a moment until it had the first message that was not acknowledged before.
fn times<'a>(
    clients: impl Iterator<Item = &'a Client>,
    news: &News,
    begin: Instant,
    at: Instant,
) -> impl Iterator<Item = u128> {
    clients.filter_map(move |client| {
        let number = news.channel(client.main()).first_after(at)?;
        let mut arrivals = client.hearing(client.main()).arrivals.get(number - 1..)?.iter();
        let from = at.duration_since(begin).as_millis();
        arrivals.find_map(|arrival| u128::from((*arrival)?).checked_sub(from))
    })
}

/// By what has happened and by kind of client.
pub fn write(
    f: &mut fmt::Formatter<'_>,
    events: &[Event],
    clients: &[Client],
    news: &News,
    begin: Instant,
) -> fmt::Result {
    let mut deeds = BTreeMap::<(Part, Deed), Vec<&Event>>::new();
    events.iter().for_each(|event| deeds.entry((event.part, event.deed)).or_default().push(event));
    for ((part, deed), events) in deeds {
        let served = events.iter().map(|event| event.runs.duration_since(event.at).as_millis()).collect();
        writeln!(f, "{deed:?} {part:?}: {} times, until it runs again: {}", events.len(), spread(served))?;
        if deed == Deed::Stop {
            continue;
        }
        for kind in Kind::ALL {
            let of_kind = || clients.iter().filter(|client| client.kind == kind);
            let times = events.iter().flat_map(|event| times(of_kind(), news, begin, event.at)).collect();
            writeln!(f, "  until a {kind:?} has its next message: {}", spread(times))?;
        }
    }
    Ok(())
}
