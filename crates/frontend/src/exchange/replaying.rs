// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges whose request goes to another proxy, or waits for one.

use std::time::Instant;

use zhttp::session::Protocol;
use zhttp::session::client::{Outcome, Session};
use zhttp::{Ids, Packet, PeerId};

use super::{Exchange, Exchanges};
use crate::replay::{Replays, Terms};
use crate::uplink::Uplink;

impl Exchange {
    /// Whether its request may be sent again, though a proxy may have got it.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.may_be_sent_again())
    }

    /// Whether this proxy was giving it away, and nobody has said that he has got it.
    pub(crate) fn is_left_by(&self, proxy: PeerId) -> bool {
        !self.has_server() && self.request.as_ref().is_some_and(|request| request.is_with(proxy))
    }

    /// Whether its request is with no proxy.
    pub(crate) fn waits(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.waits)
    }

    /// Whether its server has not got yet what another has got of the request.
    pub(super) fn is_behind(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.is_behind())
    }

    /// A packet has come: forgets the request when it can not be sent again any more.
    pub(super) fn note_outcome(&mut self, outcome: Outcome, offers: bool) {
        let Some(request) = &mut self.request else { return };
        let keeps = match outcome {
            Outcome::Alive => request.on_answer(self.session.server(), offers),
            Outcome::HandOff(_) => true,
            Outcome::Data | Outcome::Control | Outcome::Ended => false,
        };
        if !keeps {
            self.request = None;
        }
    }

    /// Gives the server what another has got of the request's body, within the credits.
    pub(super) fn catch_up(&mut self, up: &mut dyn Uplink) {
        let Some(mut request) = self.request.take_if(|request| request.is_behind()) else { return };
        while self.session.server().is_some()
            && let Some((body, more)) = request.next(self.session.credits() as usize)
            && let Some(to) = self.session.send_body(body.len())
        {
            self.send(to, Packet { body, more, ..Packet::default() }, up);
        }
        self.request = Some(request);
    }

    /// Begins a new session for the same request, which no packet of the former can be mistaken for.
    fn renew(&mut self, serial: u64, counts: bool, now: Instant) {
        let Some(request) = &mut self.request else { return };
        request.begin_again(counts);
        request.waits = true;
        let first = request.first();
        let is_http = first.as_ref().is_some_and(|packet| packet.stream);
        let protocol = if is_http { Protocol::Http } else { Protocol::WebSocket };
        self.session = Session::start(protocol, first.and_then(|packet| packet.credits).unwrap_or(0), now);
        self.serial = serial;
    }

    /// Sends the request to a proxy.
    fn send_first(&mut self, up: &mut dyn Uplink) {
        let id = self.id();
        let Some(request) = &mut self.request else { return };
        request.waits = false;
        if let Some(packet) = request.first() {
            up.open(&Packet { ids: Ids::One(id.as_bytes(), Some(0)), ..packet });
        }
    }
}

impl Exchanges {
    /// Keeps requests for as long as they can be sent again.
    pub fn replaying(mut self, terms: Terms) -> Self {
        self.replays = Replays::new(terms);
        self
    }

    /// Bytes that are kept of requests.
    pub fn kept_bytes(&self) -> usize {
        self.replays.bytes()
    }

    /// The proxy that had the request is gone: it goes to another one, or waits for it, if it may.
    pub fn send_again(&mut self, slot: u32, now: Instant, up: &mut dyn Uplink) -> bool {
        let may = self.get(slot).is_some_and(Exchange::may_be_sent_again);
        if may {
            self.replays.again += 1;
            self.renew(slot, true, now, up);
        }
        may
    }

    /// No proxy has got anything of the request: it waits for one, or goes to another. `false` if it is not kept.
    pub fn take_back(&mut self, slot: u32, now: Instant, up: &mut dyn Uplink) -> bool {
        let is_kept = self.get(slot).is_some_and(|exchange| exchange.request.is_some());
        if is_kept {
            self.renew(slot, false, now, up);
        }
        is_kept
    }

    fn renew(&mut self, slot: u32, counts: bool, now: Instant, up: &mut dyn Uplink) {
        let Some(exchange) = self.begin_again(slot, counts, now) else { return };
        match up.is_connected() {
            true => exchange.send_first(up),
            false => {
                let serial = exchange.serial;
                self.replays.wait(slot, serial, now);
            }
        }
    }

    /// The number of the new session is a new one: departures tell by it what was sent when.
    fn begin_again(&mut self, slot: u32, counts: bool, now: Instant) -> Option<&mut Exchange> {
        let serial = self.next_serial();
        let exchange = self.slots.get_mut(slot as usize)?;
        self.serials += 1;
        exchange.renew(serial, counts, now);
        Some(exchange)
    }

    /// A proxy takes requests: sends the one that has waited longest. `false` if none waits.
    pub fn send_waiting(&mut self, now: Instant, up: &mut dyn Uplink) -> bool {
        let Some((slot, serial)) = self.replays.take_first(None) else { return false };
        if self.get(slot).is_some_and(|exchange| exchange.serial == serial)
            && let Some(exchange) = self.begin_again(slot, false, now)
        {
            exchange.send_first(up);
        }
        true
    }

    /// When the next request has waited for a proxy for long enough.
    pub fn next_given_up_at(&self) -> Option<Instant> {
        self.replays.next_due()
    }

    /// A request for which no proxy has come in time.
    pub fn next_given_up(&mut self, now: Instant) -> Option<u32> {
        loop {
            let (slot, serial) = self.replays.take_first(Some(now))?;
            if self.get(slot).is_some_and(|exchange| exchange.serial == serial) {
                return Some(slot);
            }
        }
    }
}
