// SPDX-License-Identifier: AGPL-3.0-or-later
//! What clients may notice of what has happened to the processes, by the words of docs/reliability.md. All else is a failure.

use std::time::{Duration, Instant};

use crate::client::{Closing, Kind};
use crate::news::{News, To};
use crate::trouble::{Deed, Event, History, Part};

/// The end of a connection is read a little later.
const AFTERMATH: Duration = Duration::from_secs(1);
/// A handler that has just started waits 6 s for a proxy that is not there, or rather so long for one that has to start as well.
const LATE: Duration = Duration::from_millis(4500);
/// A request that is to be held waits 8 s for a handler.
const UNHELD: Duration = Duration::from_secs(7);
/// The successor of a frontend waits 8 s for sessions that wait themselves for the successor of a server.
const UNMOVED: Duration = Duration::from_secs(8);
/// What lies in queues when all is well is not older.
const QUEUED: Duration = Duration::from_secs(1);

/// See the module.
pub struct Limits<'a> {
    news: &'a News,
    spells: Vec<Spell<'a>>,
}

/// What has happened before clients had recovered from the first of it.
struct Spell<'a> {
    events: &'a [Event],
    begin: Instant,
    /// When they had recovered from all of it.
    over: Instant,
}

impl<'a> Limits<'a> {
    /// What follows from what has happened.
    pub fn new(news: &'a News, history: &'a History) -> Self {
        let spells = history.events.chunk_by(|a, b| a.spell == b.spell);
        let spells = spells.filter_map(|events| {
            let (first, last) = (events.first()?, events.last()?);
            // If they had not when the run ended, nothing has happened since.
            let over = history.recoveries.get(first.spell).copied().unwrap_or(last.runs + Duration::from_secs(3600));
            Some(Spell { events, begin: first.at, over })
        });
        Limits { news, spells: spells.collect() }
    }

    /// Whether a message may have been lost without anybody's knowledge.
    pub fn may_be_lost(&self, kind: Kind, to: To, number: usize) -> bool {
        let Some(sent) = self.news.channel(to).sent(number) else { return false };
        let mut spells = self.spells.iter().filter(|spell| (spell.begin - QUEUED..spell.over).contains(&sent));
        spells.any(|spell| {
            // A handler has what is sent over ZeroMQ in its queues, and may have read none of it before it ends.
            let unanswered = !to.is_acknowledged() && spell.has_end(Part::Handler);
            unanswered || (kind.is_websocket() && spell.has_end(Part::Handler) && spell.has_end(Part::Proxy))
        })
    }

    /// Why a connection, or a request, may have ended; `None`: it had to stay.
    pub fn may_end(&self, kind: Kind, closing: &Closing) -> Option<&'static str> {
        let mut spells = self
            .spells
            .iter()
            .filter(|spell| closing.since <= spell.over && (spell.begin..spell.over + AFTERMATH).contains(&closing.at));
        spells.find_map(|spell| spell.may_end(kind, closing))
    }
}

impl Spell<'_> {
    fn ends(&self, part: Part) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.part == part && event.is_end())
    }

    fn has_end(&self, part: Part) -> bool {
        self.ends(part).next().is_some()
    }

    fn has_stop(&self, part: Part) -> bool {
        self.events.iter().any(|event| event.part == part && event.deed == Deed::Stop)
    }

    fn may_end(&self, kind: Kind, closing: &Closing) -> Option<&'static str> {
        let (handler, proxy, outbound) =
            (self.has_end(Part::Handler), self.has_end(Part::Proxy), self.has_end(Part::Outbound));
        if self.has_left_clients() {
            return Some("a frontend was replaced without them, since they waited for a server for more than 8 s");
        }
        match kind {
            Kind::Stream | Kind::TestStream => None,
            Kind::Poll if proxy => Some("their request was under way as a proxy ended"),
            Kind::Poll if closing.why.contains(" 502 ") && self.ends(Part::Handler).count() > 1 => {
                Some("a handler ended that had just started")
            }
            Kind::Poll if closing.why.contains(" 500 ") && self.is_unheld() => Some("there was no handler for 8 s"),
            Kind::TestSocket if proxy => Some("the proxy ended"),
            Kind::Direct if outbound => Some("the outbound process ended"),
            Kind::Direct if proxy && self.has_stop(Part::Outbound) => {
                Some("the proxy ended, and the outbound process was stopped")
            }
            Kind::OverHttp if proxy && closing.since > self.begin => {
                Some("the proxy ended as they had just been opened")
            }
            Kind::OverHttp | Kind::Direct | Kind::TestSocket if handler && self.is_unanswered_by_proxy() => {
                Some("the handler ended, and the proxy did not answer its successor")
            }
            _ => None,
        }
    }

    /// A frontend was replaced that has left its clients where they were, and a handler or proxy ended.
    fn has_left_clients(&self) -> bool {
        let waits = self.has_end(Part::Handler) || self.has_end(Part::Proxy);
        waits && self.events.iter().any(|event| event.deed == Deed::Replace && event.runs - event.at > UNMOVED)
    }

    fn is_unheld(&self) -> bool {
        let ends = || self.ends(Part::Handler);
        let times = ends().map(|end| end.at).min().zip(ends().map(|end| end.runs).max());
        times.is_some_and(|(from, until)| until - from > UNHELD)
    }

    /// The proxy was stopped, or was not there in time, as a handler's successor asked it for WebSockets.
    fn is_unanswered_by_proxy(&self) -> bool {
        let is_late = |proxy: &Event| self.ends(Part::Handler).any(|handler| proxy.runs > handler.runs + LATE);
        self.has_stop(Part::Proxy) || self.ends(Part::Proxy).any(is_late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: u64 = 20_000;

    fn at(begin: Instant, ms: u64) -> Instant {
        begin + Duration::from_millis(ms)
    }

    /// A spell of these, with the milliseconds from which to which a part did not run, that was over at [`OVER`].
    fn history(begin: Instant, events: &[(Part, Deed, u64, u64)]) -> History {
        let event = |(part, deed, from, runs): &(Part, Deed, u64, u64)| Event {
            part: *part,
            deed: *deed,
            at: at(begin, *from),
            runs: at(begin, *runs),
            spell: 0,
        };
        History { events: events.iter().map(event).collect(), recoveries: vec![at(begin, OVER)] }
    }

    /// Which kinds may have been closed so long after something had happened.
    fn ending(events: &[(Part, Deed, u64, u64)], ms: u64, why: &str) -> Vec<Kind> {
        let begin = Instant::now();
        let (news, history) = (News::default(), history(begin, events));
        let closing = Closing { since: begin, at: at(begin, ms), why: why.into(), last: 1 };
        let limits = Limits::new(&news, &history);
        Kind::ALL.into_iter().filter(|kind| limits.may_end(*kind, &closing).is_some()).collect()
    }

    #[test]
    fn streams_have_to_stay_and_others_may_end_with_what_they_need() {
        let proxy = [(Part::Proxy, Deed::Kill, 5000, 5200)];
        assert_eq!(ending(&proxy, 5100, ""), [Kind::Poll, Kind::TestSocket]);
        assert_eq!((ending(&proxy, 4900, ""), ending(&proxy, OVER + 1500, "")), (vec![], vec![]));
        assert_eq!(ending(&[(Part::Outbound, Deed::Terminate, 5000, 5200)], 5100, ""), [Kind::Direct]);
        assert_eq!(ending(&[(Part::Outbound, Deed::Stop, 5000, 6000)], 5100, ""), []);
    }

    #[test]
    fn websockets_may_end_when_a_handler_finds_no_proxy_and_a_proxy_no_outbound_process() {
        let sockets = [Kind::OverHttp, Kind::Direct, Kind::TestSocket];
        let handler = (Part::Handler, Deed::Kill, 5000, 5200);
        assert_eq!(ending(&[handler], 6600, ""), []);
        assert_eq!(ending(&[(Part::Proxy, Deed::Stop, 4000, 6500), handler], 6600, ""), sockets);
        assert!(ending(&[(Part::Proxy, Deed::Kill, 5000, 10_100), handler], 11_500, "").contains(&Kind::OverHttp));
        assert!(!ending(&[(Part::Proxy, Deed::Kill, 5000, 8000), handler], 9000, "").contains(&Kind::OverHttp));
        let outbound = (Part::Outbound, Deed::Stop, 5000, 6500);
        let direct = ending(&[outbound, (Part::Proxy, Deed::Kill, 5100, 5200)], 6600, "");
        assert_eq!(direct, [Kind::Poll, Kind::Direct, Kind::TestSocket]);
    }

    #[test]
    fn everybody_may_end_with_a_frontend_that_was_replaced_while_a_server_was_away_for_long() {
        let handler = (Part::Handler, Deed::Kill, 5000, 10_000);
        for (runs, all) in [(14_500, 6), (12_500, 0)] {
            let replaced = (Part::Frontend, Deed::Replace, 6000, runs);
            assert_eq!(ending(&[handler, replaced], 15_000, "").len(), all);
        }
    }

    #[test]
    fn requests_that_no_handler_holds_get_an_error() {
        let (first, second) = ((Part::Handler, Deed::Kill, 5000, 5200), (Part::Handler, Deed::Kill, 5400, 5500));
        let bad_gateway = "answered with HTTP/1.1 502 Bad Gateway";
        assert_eq!(ending(&[first, second], 6300, bad_gateway), [Kind::Poll]);
        assert_eq!((ending(&[first], 6300, bad_gateway), ending(&[first, second], 6300, "")), (vec![], vec![]));
        let late = (Part::Handler, Deed::Kill, 7000, 12_500);
        assert_eq!(ending(&[first, late], 13_000, "answered with HTTP/1.1 500 Internal Server Error"), [Kind::Poll]);
    }
}
