// SPDX-License-Identifier: AGPL-3.0-or-later
//! Servers that have gone: their sessions end at once, instead of when they would time out, or are kept for a successor that can
//! go on with them ([`offer`](crate::keep::offer)). WebSockets end one after the other ([`spread`]).
//!
//! The transport tells of a server's end when all that it sent through the ROUTER has been read, so the sessions of one
//! that answers through it end in the same turn. What an original has published may be on its way still, so there is a
//! moment between. A server whose connection only broke comes back under its name; it has given up the sessions of that
//! connection too, because packets of them may be lost. Then the table of exchanges is walked in steps of some thousand
//! slots a turn: about 0.1 ms a step, and no cost for anybody while all servers live.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub(crate) mod spread;

use std::fmt;
use std::time::{Duration, Instant};

use zhttp::PeerId;
use zhttp::recovery::PROXY;

use self::spread::Spread;
use crate::exchange::{Exchange, Exchanges, Sweep};

/// Between the end of a server that publishes its answers and that of its sessions.
const MOMENT: Duration = Duration::from_millis(100);
/// A server acknowledges a request within 10 ms. Requests that nobody has acknowledged for so long after a server went
/// were with that one.
const UNANSWERED: Duration = Duration::from_millis(800);
/// The last WebSocket is closed so long after the first.
const SPREAD: Duration = Duration::from_secs(1);
/// The end of a link may be noticed before the last answers to what went by it have been read.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Slots looked at in a step.
const STEP: usize = 4096;

/// Which sessions end.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// Those of this server.
    Of(PeerId),
    /// Those that no server has answered or taken over.
    Unanswered,
    /// Those of them that can be sent again.
    Unread,
    /// Those of them that this server was giving away.
    LeftBy(PeerId),
    /// Those that this departure has orphaned and no successor has taken up.
    Orphans(u32),
}

#[derive(Debug)]
struct Departure {
    name: String,
    ends: Ends,
    /// Only exchanges with lower numbers: the server may be back and have new ones.
    before: u64,
    due: Instant,
    walk: Option<Sweep>,
    ended: usize,
    again: usize,
    /// The place of the server, if it has left records, the number of the departure, and how many sessions are kept.
    kept: Option<(usize, u32, usize)>,
}

/// What a session is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A request.
    Request,
    /// A WebSocket on which nobody has closed.
    WebSocket,
    /// The same, in the middle of a message to the client, which only its proxy could have finished.
    TornWebSocket,
}

/// A session that ends if nobody has taken it over when its time has come.
#[derive(Clone, Copy, Debug)]
struct Closing {
    exchange: u32,
    serial: u64,
    ends: Ends,
}

/// What a step has found.
#[derive(Debug, Default)]
pub struct Step {
    /// Slots of exchanges that end now.
    pub ended: Vec<u32>,
    /// Slots of exchanges whose request goes to another proxy.
    pub again: Vec<u32>,
    /// Slots of exchanges that lose the server that has pushed into them, and go on.
    pub unpushed: Vec<u32>,
    /// Sessions that have been found to be without their server. WebSockets among them end later.
    pub orphaned: usize,
    /// The place whose sessions are to be offered now, and to whom.
    pub offer: Option<(usize, PeerId)>,
    /// What people are told.
    pub news: Vec<News>,
}

/// What has become of the sessions of a server that is gone.
#[derive(Debug)]
pub struct News {
    name: String,
    count: usize,
    what: &'static str,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let News { name, count, what } = self;
        write!(f, "{name} is gone: {count} {what}")
    }
}

/// Servers whose sessions are being ended.
pub struct Departures {
    /// How long sessions are kept for a successor; zero: not at all.
    recover_wait: Duration,
    waiting: Vec<Departure>,
    /// WebSockets of those servers, one entry for each.
    closing: Spread<Closing>,
    /// By the number of a server: whether it answers through the ROUTER.
    by_router: Vec<bool>,
    /// Departures so far.
    count: u32,
}

impl Departure {
    fn includes(&self, exchange: &Exchange) -> bool {
        exchange.serial() < self.before && self.ends.include(exchange)
    }
}

impl Departure {
    /// One of whose sessions none has been looked at.
    fn new(name: String, ends: Ends, before: u64, due: Instant, kept: Option<(usize, u32, usize)>) -> Self {
        Departure { name, ends, before, due, walk: None, ended: 0, again: 0, kept }
    }
}

impl Ends {
    fn include(self, exchange: &Exchange) -> bool {
        match self {
            Ends::Of(peer) => exchange.is_served_by(peer) || exchange.is_pushed_by(peer),
            Ends::Unanswered => !exchange.has_server() && !exchange.is_orphan() && !exchange.waits(),
            Ends::Unread => exchange.may_be_sent_again() && Ends::Unanswered.include(exchange),
            Ends::LeftBy(peer) => exchange.may_be_sent_again() && exchange.is_left_by(peer),
            Ends::Orphans(departure) => exchange.kept.orphan == departure,
        }
    }
}

impl Departures {
    /// Nobody has gone yet.
    pub fn new(recover_wait: Duration, now: Instant) -> Self {
        Departures {
            recover_wait,
            waiting: Vec::new(),
            closing: Spread::over(SPREAD, now),
            by_router: Vec::new(),
            count: 0,
        }
    }

    /// A packet of this server has come through the ROUTER.
    pub fn on_answer(&mut self, peer: PeerId) {
        match self.by_router.get_mut(peer.index()) {
            Some(known) => *known = true,
            None => {
                self.by_router.resize(peer.index(), false);
                self.by_router.push(true);
            }
        }
    }

    fn wait_for(&self, peer: PeerId) -> Duration {
        if self.is_by_router(peer) { Duration::ZERO } else { MOMENT }
    }

    /// Whether no server's end has to be attended to: all that have gone have been looked after, and nobody waits for a successor.
    pub(crate) fn is_idle(&self, exchanges: &Exchanges) -> bool {
        let is_over = |departure: &Departure| {
            let waits = matches!(departure.ends, Ends::Unanswered | Ends::Orphans(_)) && departure.walk.is_none();
            waits && !exchanges.any(|exchange| departure.includes(exchange))
        };
        self.closing.next().is_none() && self.waiting.iter().all(is_over)
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Goes on counting where another process has stopped.
    pub(crate) fn count_from(&mut self, count: u32) {
        self.count = count;
    }

    /// Whether packets of this server come through the ROUTER.
    pub(crate) fn is_by_router(&self, peer: PeerId) -> bool {
        self.by_router.get(peer.index()) == Some(&true)
    }

    /// When the next step is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().map(|departure| departure.due).chain(self.closing.next()).min()
    }

    /// A server has gone.
    pub fn on_left(&mut self, peer: PeerId, name: &[u8], exchanges: &mut Exchanges, now: Instant) {
        let name = String::from_utf8_lossy(name).into_owned();
        let before = exchanges.next_serial();
        let wait = self.wait_for(peer);
        exchanges.places.forget(peer);
        let place = exchanges.places.of(peer);
        self.count += 1;
        let number = self.count;
        // Requests to hold wait in the proxy for a handler's successor.
        let of_handler = place.and_then(|place| exchanges.places.get(place)).is_some_and(|place| *place.name != *PROXY);
        let unanswered = if of_handler { self.recover_wait.max(UNANSWERED) } else { UNANSWERED };
        // Whoever has got what was being given away may not have been heard yet.
        let left = (Ends::LeftBy(peer), LAST_WORDS);
        for (ends, wait) in [(Ends::Of(peer), wait), left, (Ends::Unanswered, unanswered)] {
            let (name, due) = (name.clone(), now + wait);
            let keeps = matches!(ends, Ends::Of(_)) && !self.recover_wait.is_zero();
            let kept = place.filter(|_| keeps).map(|place| (place, number, 0));
            self.waiting.push(Departure::new(name, ends, before, due, kept));
        }
    }

    /// A link by which requests went has ended: what has been sent may not have been read.
    pub fn on_requests_lost(&mut self, exchanges: &Exchanges, now: Instant) {
        let (name, before) = ("a proxy".to_owned(), exchanges.next_serial());
        self.waiting.push(Departure::new(name, Ends::Unread, before, now + LAST_WORDS, None));
    }

    /// Looks at some of the sessions whose server has gone. WebSockets end one after the other.
    pub fn step(&mut self, exchanges: &mut Exchanges, nature: impl Fn(&Exchange) -> Nature, now: Instant) -> Step {
        let mut step = Step { ended: self.close_due(exchanges, now), ..Step::default() };
        // In the order in which they are due, however late that is: what can be sent again is looked for before the others end.
        let waiting = self.waiting.iter().enumerate().filter(|(_, departure)| departure.due <= now);
        let Some((at, _)) = waiting.min_by_key(|(_, departure)| departure.due) else { return step };
        let mut departure = self.waiting.swap_remove(at);
        let mut walk = departure.walk.take().unwrap_or_else(|| exchanges.sweep());
        let place = departure.kept.map(|(place, ..)| place);
        let is_given = |exchange: &Exchange| place.is_some_and(|place| exchanges.is_given_by(exchange, place));
        let found = exchanges.sweep_on(&mut walk, STEP, |exchange| departure.includes(exchange) || is_given(exchange));
        let Some(slots) = found else {
            self.on_departed(departure, exchanges, &mut step, now);
            return step;
        };
        departure.walk = Some(walk);
        for slot in slots {
            let Some(exchange) = exchanges.get(slot) else { continue };
            if let Ends::Of(peer) = departure.ends
                && exchange.is_pushed_by(peer)
            {
                step.unpushed.push(slot);
                continue;
            }
            let (serial, nature) = (exchange.serial(), nature(exchange));
            let again = !matches!(departure.ends, Ends::Unanswered) && exchange.may_be_sent_again();
            if let Some((place, number, kept)) = &mut departure.kept
                && nature != Nature::TornWebSocket
                && exchanges.orphan(slot, *place, *number)
            {
                *kept += 1;
                continue;
            }
            if again {
                departure.again += 1;
                step.again.push(slot);
                continue;
            }
            departure.ended += 1;
            match nature {
                Nature::WebSocket | Nature::TornWebSocket => {
                    self.closing.add(Closing { exchange: slot, serial, ends: departure.ends }, serial, now)
                }
                Nature::Request => step.ended.push(slot),
            }
            step.orphaned += 1;
        }
        self.waiting.push(departure);
        step
    }

    /// A step's worth of WebSockets whose time has come.
    fn close_due(&mut self, exchanges: &Exchanges, now: Instant) -> Vec<u32> {
        let due = std::iter::from_fn(|| self.closing.pop(now)).take(STEP);
        let is_left = |closing: &Closing| {
            let exchange = exchanges.get(closing.exchange).filter(|exchange| exchange.serial() == closing.serial);
            exchange.is_some_and(|exchange| closing.ends.include(exchange))
        };
        due.filter(is_left).map(|closing| closing.exchange).collect()
    }

    /// All sessions of a server that has gone are ended, or kept for its successor.
    fn on_departed(&mut self, departure: Departure, exchanges: &mut Exchanges, step: &mut Step, now: Instant) {
        if departure.again > 0 {
            let what = "requests of it go to the next proxy";
            step.news.push(News { name: departure.name.clone(), count: departure.again, what });
        }
        if departure.ended > 0 {
            let what = match departure.ends {
                Ends::Of(_) => "sessions with it are ended",
                Ends::Unanswered | Ends::Unread | Ends::LeftBy(_) => "requests that it had not answered are ended",
                Ends::Orphans(_) => "sessions that no successor has taken up are ended",
            };
            step.news.push(News { name: departure.name.clone(), count: departure.ended, what });
        }
        let Some((place, number, kept)) = departure.kept else { return };
        if kept > 0 {
            let what = "sessions are kept for its successor";
            step.news.push(News { name: departure.name.clone(), count: kept, what });
            let due = now + self.recover_wait;
            let ends = Ends::Orphans(number);
            self.waiting.push(Departure::new(departure.name, ends, departure.before, due, None));
        }
        if let Some(vacant) = exchanges.places.get_mut(place) {
            vacant.is_vacant = true;
            step.offer = vacant.waits.take().map(|successor| (place, successor));
        }
    }
}

#[cfg(test)]
mod tests {
    use zhttp::{Ext, Kind, Packet, Peers, Record};

    use super::*;
    use crate::exchange::opened::{Nowhere, open_for};

    /// A long-poll whose handler gives it back to the proxy: the next server's packet has number 2.
    fn given(exchanges: &mut Exchanges, handler: PeerId, now: Instant) -> u32 {
        let slot = open_for(exchanges, 1, false, now);
        let keep = Some(Record { owner: b"h0", content: b"all" });
        let held = Packet { kind: Kind::KeepAlive, ext: Ext { keep, ..Ext::MULTI }, ..Packet::default() };
        let gives = Packet { kind: Kind::HandoffStart, ..Packet::default() };
        for (seq, packet) in [(0, held), (1, gives)] {
            say(exchanges, slot, &packet, handler, seq, now);
        }
        slot
    }

    fn say(exchanges: &mut Exchanges, slot: u32, packet: &Packet<'_>, from: PeerId, seq: u32, now: Instant) {
        let exchange = exchanges.get_mut(slot).unwrap();
        let id = exchange.id();
        exchange.receive(packet, Some(from), Some(seq), now, &mut Nowhere).unwrap();
        exchanges.keep(id.as_bytes(), packet, Some(from), now);
    }

    fn keep_alive() -> Packet<'static> {
        Packet { kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() }
    }

    #[test]
    fn what_a_handler_was_giving_back_when_it_ended_is_for_its_successor_unless_the_proxy_has_spoken() {
        for is_taken in [false, true] {
            let (now, mut peers, mut exchanges) = (Instant::now(), Peers::default(), Exchanges::for_clients(10));
            let [handler, next, proxy] = [b"h", b"n", b"p"].map(|name| peers.intern(name).unwrap());
            let slot = given(&mut exchanges, handler, now);
            if is_taken {
                say(&mut exchanges, slot, &keep_alive(), proxy, 2, now);
            }
            let mut departures = Departures::new(Duration::from_secs(10), now);
            departures.on_answer(handler);
            departures.on_left(handler, b"h", &mut exchanges, now);
            for _ in 0..9 {
                assert!(departures.step(&mut exchanges, |_| Nature::Request, now).ended.is_empty());
            }
            assert_eq!(exchanges.orphans_of(0).len(), usize::from(!is_taken));
            let exchange = exchanges.get(slot).unwrap();
            assert_eq!((exchange.is_orphan(), exchange.is_of_another(next)), (!is_taken, is_taken));
            if !is_taken {
                say(&mut exchanges, slot, &keep_alive(), next, 2, now);
                let exchange = exchanges.get(slot).unwrap();
                assert!(exchange.is_served_by(next) && exchange.is_of_another(proxy) && !exchange.is_orphan());
                // Nor does it end with the next handler.
                exchanges.places.take(0, next);
                departures.on_answer(next);
                departures.on_left(next, b"n", &mut exchanges, now);
                (0..9).for_each(|_| drop(departures.step(&mut exchanges, |_| Nature::Request, now)));
                assert_eq!(exchanges.orphans_of(0).len(), 1);
            }
        }
    }
}
