//! Servers that have gone: their sessions end at once, instead of when they would time out, or are kept for a successor that can
//! go on with them (`recovery`). WebSockets end one after the other (`spread`).
//!
//! The transport tells of a server's end when all that it sent through the ROUTER has been read, so the sessions of one
//! that answers through it end in the same turn. What an original has published may be on its way still, so there is a
//! moment between. A server whose connection only broke comes back under
//! its name; it has given up the sessions of that connection too, because packets of them may be lost. Then the table of exchanges is walked in steps of some thousand slots a turn: about 0.1 ms a step, and no
//! cost for anybody while all servers live.

use std::time::{Duration, Instant};

use transport::Reason;
use zhttp::PeerId;

use super::Worker;
use super::spread::Spread;
use crate::exchange::{Exchange, Sweep};

/// Between the end of a server that publishes its answers and that of its sessions.
const MOMENT: Duration = Duration::from_millis(100);
/// A server acknowledges a request within 10 ms. Requests that nobody has acknowledged for so long after a server went
/// were with that one.
const UNANSWERED: Duration = Duration::from_millis(800);
/// Slots looked at in a turn.
const STEP: usize = 4096;

/// What clients are told that have got nothing yet.
const GONE: Option<(u16, &str)> = Some((502, "The server of this request is gone.\n"));

/// Which sessions end.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// Those of this server.
    Of(PeerId),
    /// Those that no server has answered or taken over.
    Unanswered,
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
    /// The place of the server, if it has left records, the number of the departure, and how many sessions are kept.
    kept: Option<(usize, u32, usize)>,
}

/// A session that ends if nobody has taken it over when its time has come.
#[derive(Clone, Copy, Debug)]
struct Closing {
    exchange: u32,
    serial: u64,
    ends: Ends,
}

/// Servers whose sessions are being ended.
pub(super) struct Departures {
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

impl Ends {
    fn include(self, exchange: &Exchange) -> bool {
        match self {
            Ends::Of(peer) => exchange.is_served_by(peer) || exchange.is_pushed_by(peer),
            Ends::Unanswered => !exchange.has_server() && !exchange.is_orphan(),
            Ends::Orphans(departure) => exchange.kept.orphan == departure,
        }
    }
}

impl Departures {
    pub(super) fn new(now: Instant) -> Self {
        Departures { waiting: Vec::new(), closing: Spread::new(now), by_router: Vec::new(), count: 0 }
    }

    /// A packet of this server has come through the ROUTER.
    pub(super) fn on_answer(&mut self, peer: PeerId) {
        match self.by_router.get_mut(peer.index()) {
            Some(known) => *known = true,
            None => {
                self.by_router.resize(peer.index(), false);
                self.by_router.push(true);
            }
        }
    }

    fn wait_for(&self, peer: PeerId) -> Duration {
        if self.by_router.get(peer.index()) == Some(&true) { Duration::ZERO } else { MOMENT }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.iter().map(|departure| departure.due).chain(self.closing.next()).min()
    }
}

impl Worker {
    /// A server has gone.
    pub(super) fn on_left(&mut self, name: &[u8], reason: Reason, now: Instant) {
        let Some(peer) = self.core.links.peers.intern(name) else { return };
        let name = String::from_utf8_lossy(name).into_owned();
        tracing::debug!("{name} has left: {reason:?}");
        let before = self.core.exchanges.next_serial();
        let wait = self.departures.wait_for(peer);
        let places = &mut self.core.exchanges.places;
        places.forget(peer);
        let place = places.of(peer);
        self.departures.count += 1;
        let number = self.departures.count;
        // Requests to hold wait in the proxy for the successor.
        let unanswered = if place.is_some() { self.core.config.recover_wait.max(UNANSWERED) } else { UNANSWERED };
        for (ends, wait) in [(Ends::Of(peer), wait), (Ends::Unanswered, unanswered)] {
            let (name, due) = (name.clone(), now + wait);
            let keeps = matches!(ends, Ends::Of(_)) && !self.core.config.recover_wait.is_zero();
            let kept = place.filter(|_| keeps).map(|place| (place, number, 0));
            self.departures.waiting.push(Departure { name, ends, before, due, walk: None, ended: 0, kept });
        }
    }

    /// Ends a step's worth of sessions whose server has gone.
    pub(super) fn end_departed(&mut self, now: Instant) {
        self.close_due(now);
        let Some(at) = self.departures.waiting.iter().position(|departure| departure.due <= now) else { return };
        let mut departure = self.departures.waiting.swap_remove(at);
        let exchanges = &self.core.exchanges;
        let mut walk = departure.walk.take().unwrap_or_else(|| exchanges.sweep());
        match exchanges.sweep_on(&mut walk, STEP, |exchange| departure.includes(exchange)) {
            Some(slots) => {
                departure.walk = Some(walk);
                for slot in slots {
                    if let Ends::Of(peer) = departure.ends
                        && self.core.exchanges.get(slot).is_some_and(|exchange| exchange.is_pushed_by(peer))
                    {
                        self.lose_pushes(slot, now);
                        continue;
                    }
                    if let Some((place, number, kept)) = &mut departure.kept
                        && self.core.exchanges.orphan(slot, *place, *number)
                    {
                        *kept += 1;
                        continue;
                    }
                    departure.ended += 1;
                    self.counters.orphaned += 1;
                    self.lose_in_turn(slot, departure.ends, now);
                }
                self.departures.waiting.push(departure);
            }
            None => self.on_departed(departure, now),
        }
    }

    /// Ends a session whose server has gone: a WebSocket within a second, others at once.
    fn lose_in_turn(&mut self, exchange: u32, ends: Ends, now: Instant) {
        if let Some(serial) =
            self.core.exchanges.get(exchange).filter(|e| self.is_open_websocket(e)).map(Exchange::serial)
        {
            self.departures.closing.add(Closing { exchange, serial, ends }, serial, now);
        } else {
            self.lose(exchange, GONE, now);
        }
    }

    fn is_open_websocket(&self, exchange: &Exchange) -> bool {
        let client = exchange.client().and_then(|slot| self.clients.get(slot as usize));
        client.is_some_and(|client| client.http.is_open_websocket())
    }

    /// Closes a step's worth of WebSockets whose time has come.
    fn close_due(&mut self, now: Instant) {
        for _ in 0..STEP {
            let Some(Closing { exchange, serial, ends }) = self.departures.closing.pop(now) else { return };
            let is_left = |found: &&Exchange| found.serial() == serial && ends.include(found);
            if self.core.exchanges.get(exchange).filter(is_left).is_some() {
                self.lose(exchange, GONE, now);
            }
        }
    }

    /// All sessions of a server that has gone are ended, or kept for its successor.
    fn on_departed(&mut self, departure: Departure, now: Instant) {
        if departure.ended > 0 {
            let (name, ended) = (&departure.name, departure.ended);
            let which = match departure.ends {
                Ends::Of(_) => "sessions with it",
                Ends::Unanswered => "requests that it had not answered",
                Ends::Orphans(_) => "sessions that no successor has taken up",
            };
            tracing::warn!("{name} is gone: {ended} {which} are ended");
        }
        let Some((place, number, kept)) = departure.kept else { return };
        if kept > 0 {
            tracing::warn!("{} is gone: {kept} sessions are kept for its successor", departure.name);
            let due = now + self.core.config.recover_wait;
            let ends = Ends::Orphans(number);
            self.departures.waiting.push(Departure { ends, due, walk: None, ended: 0, kept: None, ..departure });
        }
        if let Some(place_of) = self.core.exchanges.places.get_mut(place) {
            place_of.is_vacant = true;
            if let Some(successor) = place_of.waits.take() {
                self.offer(place, successor, now);
            }
        }
    }

    /// Who pushed into a session has gone. The session goes on without it, as its own server says.
    fn lose_pushes(&mut self, exchange: u32, now: Instant) {
        let Some(client) = self.core.exchanges.get(exchange).and_then(|exchange| exchange.client()) else { return };
        if let Some(client) = self.clients.get_mut(client as usize) {
            client.http.on_pushes_lost(&mut self.core.context(&mut client.output, now));
        }
        if let Some(client) = self.core.exchanges.get(exchange).and_then(|exchange| exchange.client()) {
            self.touch(client as usize);
        }
    }
}
