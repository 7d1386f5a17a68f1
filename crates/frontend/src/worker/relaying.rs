// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets for clients that have stayed with a predecessor, both ways.

use std::time::Instant;

use transport::Reason;
use zhttp::{Ids, Packet};

use super::{FIRST_CLIENT, Worker};
use crate::transplant::relay::{Down, Predecessors, Up};

/// Tokens of the relays to predecessors, and of that to the successor.
pub(super) const FIRST_RELAY: usize = FIRST_CLIENT - 16;
pub(super) const UPSTREAM: usize = FIRST_CLIENT - 4;

/// A session and its number in a packet.
type Addressee<'a> = (&'a [u8], Option<u32>);

impl Worker {
    /// A relay can be read or written; `false` if the token is not that of one.
    pub(super) fn on_relay(&mut self, token: usize, now: Instant) -> bool {
        if token == UPSTREAM {
            self.take_from_successor(now);
            return true;
        }
        match token.checked_sub(FIRST_RELAY).filter(|place| *place < Predecessors::MAX) {
            Some(place) => self.take_from_predecessor(place),
            None => return false,
        }
        true
    }

    fn take_from_successor(&mut self, now: Instant) {
        if let Some(relay) = &mut self.core.links.relay {
            relay.flush();
        }
        while let Some(down) = self.core.links.relay.as_mut().and_then(|relay| relay.receive()) {
            match down {
                Down::Packet { packet, by_router } => {
                    if let Some(from) = self.take_packet(&packet, by_router, now)
                        && by_router
                    {
                        self.departures.on_answer(from);
                    }
                }
                Down::Refused(packet) => self.core.links.on_refused(&packet),
                Down::Left(name) => self.on_left(&name, Reason::Closed, now),
                Down::ProxyLost => self.departures.on_requests_lost(&self.core.exchanges, now),
            }
        }
    }

    fn take_from_predecessor(&mut self, place: usize) {
        if let Some(relay) = self.predecessors.get(place) {
            relay.flush();
        }
        while let Some(up) = self.predecessors.get(place).and_then(|relay| relay.receive()) {
            let (packet, taken) = match up {
                Up::Open(packet) => {
                    if let Some((id, _)) = Packet::decode(&packet).ok().and_then(|packet| packet.ids.single()) {
                        self.predecessors.opened(place, id);
                    }
                    let taken = self.core.links.requests.send(&packet).is_ok();
                    (packet, taken)
                }
                Up::Send(to, packet) => {
                    let taken = self.core.links.stream.send(&to, &packet).is_ok();
                    (packet, taken)
                }
            };
            if !taken && let Some(relay) = self.predecessors.get(place) {
                relay.send(&Down::Refused(packet));
            }
        }
    }

    /// Passes a packet on to the predecessors whose sessions it is for too.
    pub(super) fn pass_down(&mut self, packet: &Packet<'_>, ids: &[(usize, Addressee<'_>)], by_router: bool) {
        for place in 0..Predecessors::MAX {
            let own = || ids.iter().filter(move |(owner, _)| *owner == place).map(|(_, addressee)| *addressee);
            let numbered: Vec<(&[u8], u32)> = own().filter_map(|(id, seq)| Some((id, seq?))).collect();
            let unnumbered = own().filter(|(_, seq)| seq.is_none()).map(|(id, _)| Ids::One(id, None));
            let all = match numbered.as_slice() {
                [] => None,
                [(id, seq)] => Some(Ids::One(id, Some(*seq))),
                many => Some(Ids::Many(many)),
            };
            for ids in all.into_iter().chain(unnumbered) {
                let packet = Packet { ids, ..*packet }.encode(None, &mut self.writer).to_vec();
                if let Some(relay) = self.predecessors.get(place) {
                    relay.send(&Down::Packet { packet, by_router });
                }
            }
        }
    }

    /// Ends what has to end because the other end of a relay is gone.
    pub(super) fn look_for_lost_relays(&mut self) {
        if !self.predecessors.is_empty() {
            self.predecessors.bury(self.reactor.registry());
        }
        if let Some(relay) = self.core.links.relay.take_if(|relay| relay.is_over) {
            relay.deregister(self.reactor.registry());
            tracing::error!("the successor is gone, and with it the way to proxies and handlers");
            self.end_drain();
        }
    }
}
