// SPDX-License-Identifier: AGPL-3.0-or-later
//! What clients may notice of what has happened to the processes, by the words of docs/reliability.md. All else is a failure.

use std::time::{Duration, Instant};

use crate::client::{Closing, Kind};
use crate::news::{News, To};
use crate::trouble::{Deed, Event, Part};

/// What is closed is closed within a second, and the last of it is read a little later.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Until a process that runs is connected, has subscribed, and knows what its predecessor has left.
const SETTLED: Duration = Duration::from_secs(2);
/// A handler that has just started waits so long for a proxy that is not there.
const ABSENCE: Duration = Duration::from_secs(6);
/// A proxy that runs so much later may not serve within that time.
const LATE: Duration = Duration::from_millis(4500);
/// A request that is to be held waits 8 s for a handler.
const UNHELD: Duration = Duration::from_secs(7);
/// What lay in the queues of a handler that had nothing to wait for is not older.
const QUEUED: Duration = Duration::from_secs(1);

type Span = (Instant, Instant);

fn overlap((from, until): Span, (start, end): Span) -> bool {
    from <= end && start <= until
}

/// See the module.
pub struct Limits<'a> {
    news: &'a News,
    events: &'a [Event],
    /// When what is sent over ZeroMQ may be lost with a handler.
    unanswered: Vec<Span>,
    /// When what is published to WebSockets may be lost with a handler and a proxy.
    unnamed: Vec<Span>,
}

impl<'a> Limits<'a> {
    /// What follows from events in the order in which they were.
    pub fn new(news: &'a News, events: &'a [Event]) -> Self {
        let mut limits = Limits { news, events, unanswered: Vec::new(), unnamed: Vec::new() };
        let queued = limits.ends(Part::Handler).map(|end| (limits.unread_since(end) - QUEUED, end.runs + SETTLED));
        limits.unanswered = queued.collect();
        let both = limits.ends(Part::Handler).flat_map(|handler| limits.dies_with_proxy(handler));
        limits.unnamed = both.collect();
        limits
    }

    fn of(&self, part: Part, deed: impl Fn(&Event) -> bool) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.part == part && deed(event))
    }

    fn ends(&self, part: Part) -> impl Iterator<Item = &'a Event> {
        self.of(part, Event::is_end)
    }

    fn stops(&self, part: Part) -> impl Iterator<Item = &'a Event> {
        self.of(part, |event| event.deed == Deed::Stop)
    }

    /// Since when a handler may not have read what was sent to it: while it was stopped, began, or waited for a proxy.
    fn unread_since(&self, end: &Event) -> Instant {
        let mut since = end.at;
        for event in self.events.iter().rev().filter(|event| event.at < end.at) {
            let busy = match (event.part, event.deed) {
                (Part::Handler, Deed::Stop) | (Part::Proxy, _) => SETTLED,
                (Part::Handler, _) => ABSENCE + SETTLED,
                _ => continue,
            };
            if event.over + busy > since {
                since = since.min(event.at);
            }
        }
        since
    }

    /// When messages may be lost because a proxy ends with this handler, before its successor has named its WebSockets.
    fn dies_with_proxy(&self, handler: &Event) -> Vec<Span> {
        let unsettled = |event: &Event| (event.at, event.runs + SETTLED);
        let proxies = self.ends(Part::Proxy).filter(|proxy| overlap(unsettled(proxy), unsettled(handler)));
        proxies.map(|proxy| (handler.at.min(proxy.at) - QUEUED, handler.runs.max(proxy.runs) + SETTLED)).collect()
    }

    /// Whether a message may have been lost without anybody's knowledge.
    pub fn may_be_lost(&self, kind: Kind, to: To, number: usize) -> bool {
        let Some(sent) = self.news.channel(to).sent(number) else { return false };
        let within = |spans: &[Span]| spans.iter().any(|(from, until)| (*from..*until).contains(&sent));
        (!to.is_acknowledged() && within(&self.unanswered)) || (kind.is_websocket() && within(&self.unnamed))
    }

    /// Why a connection, or a request, may have ended; `None`: it had to stay.
    pub fn may_end(&self, kind: Kind, closing: &Closing) -> Option<&'static str> {
        let is_after =
            |from: Instant, over: Instant| closing.since <= over && (from..over + AFTERMATH).contains(&closing.at);
        let ended = |part: Part| self.ends(part).any(|end| is_after(end.at, end.over));
        let unanswered = || self.unanswered_by_proxy().any(|(from, over)| is_after(from, over));
        match kind {
            Kind::Stream | Kind::TestStream => None,
            Kind::Poll if ended(Part::Proxy) => Some("their request was under way as a proxy ended"),
            Kind::Poll if closing.why.contains(" 502 ") && self.young().any(|end| is_after(end.at, end.over)) => {
                Some("a handler ended that had just started")
            }
            Kind::Poll if closing.why.contains(" 500 ") && self.unheld().any(|(from, over)| is_after(from, over)) => {
                Some("there was no handler for 8 s")
            }
            Kind::TestSocket if ended(Part::Proxy) => Some("the proxy ended"),
            Kind::Direct if ended(Part::Outbound) => Some("the outbound process ended"),
            Kind::Direct if self.unclaimed().any(|(from, over)| is_after(from, over)) => {
                Some("the proxy ended, and the outbound process was stopped")
            }
            Kind::OverHttp if self.was_just_opened(closing) => Some("the proxy ended as they had just been opened"),
            Kind::OverHttp | Kind::Direct | Kind::TestSocket if unanswered() => {
                Some("the handler ended, and the proxy did not answer its successor")
            }
            _ => None,
        }
    }

    /// Ends of handlers of which a frontend may never have heard.
    fn young(&self) -> impl Iterator<Item = &'a Event> {
        self.ends(Part::Handler).filter(move |end| {
            self.ends(Part::Handler).any(|before| (before.runs..before.over + SETTLED).contains(&end.at))
        })
    }

    /// When there was no handler, or none for longer than it takes to settle.
    fn unheld(&self) -> impl Iterator<Item = Span> {
        let mut absences: Vec<Span> = Vec::new();
        for end in self.ends(Part::Handler) {
            match absences.last_mut().filter(|(_, over)| end.at < *over + SETTLED) {
                Some((_, over)) => *over = end.over,
                None => absences.push((end.at, end.over)),
            }
        }
        absences.into_iter().filter(|(from, over)| *over - *from > UNHELD)
    }

    /// When a handler's successor asked for WebSockets, and the proxy was stopped, or was not there in time.
    fn unanswered_by_proxy(&self) -> impl Iterator<Item = Span> {
        self.ends(Part::Handler).flat_map(move |handler| {
            let asks = (handler.at, handler.runs + SETTLED);
            let stopped = self.stops(Part::Proxy).filter(move |proxy| overlap((proxy.at, proxy.runs), asks));
            let late = self
                .ends(Part::Proxy)
                .filter(move |proxy| proxy.at < handler.runs + ABSENCE && proxy.runs > handler.runs + LATE);
            let over = move |proxy: &Event| proxy.over.max(handler.over).max(handler.runs + ABSENCE);
            stopped.chain(late).map(move |proxy| (handler.at, over(proxy)))
        })
    }

    /// When a proxy's successor asked the outbound process for WebSockets that was stopped.
    fn unclaimed(&self) -> impl Iterator<Item = Span> {
        self.ends(Part::Proxy).flat_map(move |proxy| {
            let asks = (proxy.at, proxy.over + SETTLED);
            let stopped =
                self.stops(Part::Outbound).filter(move |outbound| overlap((outbound.at, outbound.runs), asks));
            stopped.map(|outbound| (proxy.at, proxy.over.max(outbound.over)))
        })
    }

    /// The backend had accepted it, and the handler may not have heard of it.
    fn was_just_opened(&self, closing: &Closing) -> bool {
        self.ends(Part::Proxy)
            .any(|end| (closing.since..closing.since + SETTLED).contains(&end.at) && closing.at < end.over + AFTERMATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By milliseconds.
    struct Run {
        begin: Instant,
        news: News,
        events: Vec<Event>,
    }

    impl Run {
        fn of(events: &[(Part, Deed, u64, u64)]) -> Self {
            let begin = Instant::now() + Duration::from_secs(100);
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let event = |(part, deed, from, over): &(Part, Deed, u64, u64)| Event {
                part: *part,
                deed: *deed,
                at: at(*from),
                runs: at(*over),
                over: at(*over),
            };
            Run { begin, news: News::default(), events: events.iter().map(event).collect() }
        }

        fn may_end(&self, kind: Kind, since: u64, at: u64, why: &str) -> bool {
            let [since, at] = [since, at].map(|ms| self.begin + Duration::from_millis(ms));
            let closing = Closing { since, at, why: why.into(), last: 1 };
            Limits::new(&self.news, &self.events).may_end(kind, &closing).is_some()
        }

        fn spans(&self, of: impl Fn(Limits<'_>) -> Vec<Span>) -> Vec<(i128, i128)> {
            let ms = |time: Instant| match time.checked_duration_since(self.begin) {
                Some(after) => after.as_millis() as i128,
                None => -(self.begin.duration_since(time).as_millis() as i128),
            };
            let spans = of(Limits::new(&self.news, &self.events));
            spans.into_iter().map(|(from, until)| (ms(from), ms(until))).collect()
        }
    }

    #[test]
    fn streams_have_to_stay_and_others_may_end_with_what_they_need() {
        let run = Run::of(&[(Part::Proxy, Deed::Kill, 5000, 5200), (Part::Outbound, Deed::Terminate, 20_000, 20_100)]);
        let ending = |at| Kind::ALL.into_iter().filter(|kind| run.may_end(*kind, 0, at, "")).collect::<Vec<_>>();
        assert_eq!(ending(5100), [Kind::Poll, Kind::TestSocket]);
        assert_eq!(ending(20_500), [Kind::Direct]);
        assert_eq!((ending(4900), ending(8300)), (vec![], vec![]));
        assert!(!run.may_end(Kind::TestSocket, 5300, 5400, "") && run.may_end(Kind::OverHttp, 4500, 5400, ""));
    }

    #[test]
    fn websockets_may_end_when_a_handler_finds_no_proxy_and_a_proxy_no_outbound_process() {
        let stopped = Run::of(&[(Part::Proxy, Deed::Stop, 5000, 6500), (Part::Handler, Deed::Kill, 5000, 5200)]);
        assert!(stopped.may_end(Kind::OverHttp, 0, 6600, "") && !stopped.may_end(Kind::OverHttp, 0, 4900, ""));
        let late = |runs| Run::of(&[(Part::Proxy, Deed::Kill, 5000, runs), (Part::Handler, Deed::Kill, 5000, 5200)]);
        assert!(late(10_100).may_end(Kind::OverHttp, 0, 11_500, ""));
        assert!(!late(8000).may_end(Kind::OverHttp, 0, 9000, ""));
        let outbound = Run::of(&[(Part::Outbound, Deed::Stop, 5000, 6500), (Part::Proxy, Deed::Kill, 5000, 5200)]);
        assert!(outbound.may_end(Kind::Direct, 0, 6600, "") && !outbound.may_end(Kind::OverHttp, 0, 6600, ""));
    }

    #[test]
    fn requests_that_no_handler_holds_get_an_error() {
        let young = Run::of(&[(Part::Handler, Deed::Kill, 5000, 5200), (Part::Handler, Deed::Kill, 5400, 5500)]);
        assert!(young.may_end(Kind::Poll, 5300, 6300, "answered with HTTP/1.1 502 Bad Gateway"));
        assert!(!young.may_end(Kind::Poll, 5300, 6300, "answered with HTTP/1.1 500 Internal Server Error"));
        assert!(!young.may_end(Kind::Poll, 5000, 5300, "answered with HTTP/1.1 502 Bad Gateway"));
        let absent = Run::of(&[(Part::Handler, Deed::Kill, 1000, 6000), (Part::Handler, Deed::Kill, 6500, 11_500)]);
        assert!(absent.may_end(Kind::Poll, 2000, 10_000, "answered with HTTP/1.1 500 Internal Server Error"));
    }

    #[test]
    fn messages_may_be_lost_with_a_handler_that_could_not_read_them_and_with_a_proxy_beside_it() {
        let run = Run::of(&[(Part::Proxy, Deed::Stop, 5000, 6500), (Part::Handler, Deed::Kill, 7000, 7200)]);
        assert_eq!(run.spans(|limits| limits.unanswered), [(4000, 9200)]);
        assert_eq!(run.spans(|limits| limits.unnamed), []);
        let later = Run::of(&[(Part::Proxy, Deed::Kill, 5000, 5200), (Part::Handler, Deed::Kill, 7300, 7500)]);
        assert_eq!(later.spans(|limits| limits.unanswered), [(6300, 9500)]);
        let first = Run::of(&[(Part::Handler, Deed::Kill, 5000, 5200), (Part::Proxy, Deed::Kill, 6000, 6200)]);
        assert_eq!(first.spans(|limits| limits.unnamed), [(4000, 8200)]);
    }
}
