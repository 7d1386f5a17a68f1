// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of exchanges, found by the slot that stands in their ids.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use metrics::Histogram;
use slab::Slab;
use wire::request_id::RequestIds;
use zhttp::budget::Budget;
use zhttp::recovery::{MAX_RECORD, PROXY};
use zhttp::{Ext, Id, Kind, Packet, PeerId};

use super::{Audience, ENDING, Event, Exchange, Opening};
use crate::keep::Hand;
use crate::keep::places::Places;
use crate::keep::records::{RecordKey, Records};
use crate::keep::underway::Underway;
use crate::replay::{Replays, Terms};
use crate::uplink::Uplink;

/// In which times of exchanges are kept: a fifth of the shortest that is told apart.
const TICK: Duration = Duration::from_micros(100);

/// All exchanges of a worker: those that a client waits for, and those whose server has not ended them yet.
pub struct Exchanges {
    pub(super) slots: Slab<Exchange>,
    pub(super) serials: u64,
    /// Exchanges without a client, and how many there may be.
    pub(super) unheard: usize,
    max_unheard: usize,
    /// Records of the exchanges.
    pub(crate) records: Records,
    /// Whose they are.
    pub(crate) places: Places,
    /// What is kept of WebSockets for the successors of proxies.
    pub(super) recovery: Budget,
    /// Requests that can be sent again.
    pub(crate) replays: Replays,
    /// Names for requests that come without.
    names: Option<RequestIds>,
    /// Times of records and of requests count from here; set by the first.
    pub(super) origin: Option<Instant>,
    /// From request to response.
    response_times: Histogram,
}

/// A walk over the table in steps, so that it never takes long.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    next: usize,
    end: usize,
}

impl Exchanges {
    /// For so many clients. Memory is reserved at once, because a table that grows moves all of its entries; the system
    /// gives it only what is used.
    pub fn for_clients(clients: usize) -> Self {
        Exchanges {
            slots: Slab::with_capacity(2 * clients),
            serials: 0,
            unheard: 0,
            max_unheard: clients,
            records: Records::default(),
            places: Places::default(),
            recovery: Budget::new(usize::MAX),
            replays: Replays::new(Terms::OFF),
            names: None,
            origin: None,
            response_times: Histogram::default(),
        }
    }

    /// Gives names to requests that come without.
    pub fn naming(mut self, names: Option<RequestIds>) -> Self {
        self.names = names;
        self
    }

    /// Keeps at most so many bytes of WebSockets for the successors of proxies.
    pub fn recovering(mut self, most: usize) -> Self {
        self.recovery = Budget::new(most);
        self
    }

    /// Bytes that are kept of them.
    pub fn recovery_bytes(&self) -> usize {
        self.recovery.used()
    }

    /// Opens a session for a request; gives the slot of its exchange.
    pub fn open(&mut self, opening: &Opening<'_>, now: Instant, up: &mut dyn Uplink) -> u32 {
        let begun = self.tick(now);
        let entry = self.slots.vacant_entry();
        let slot = entry.key() as u32;
        let serial = self.serials;
        self.serials += 1;
        let name = self.names.map(|names| names.name(serial));
        let mut exchange = Exchange::open(slot, serial, opening, name.as_deref(), &mut self.replays, now, up);
        exchange.begun = Some(begun);
        entry.insert(exchange);
        slot
    }

    /// The exchange with this id, if it is one of ours and lives.
    pub fn find(&mut self, id: &[u8]) -> Option<&mut Exchange> {
        let (slot, serial) = Id::parse_indexed(id)?;
        self.slots.get_mut(slot as usize).filter(|exchange| exchange.serial == serial)
    }

    /// The exchange in a slot.
    pub fn get(&self, slot: u32) -> Option<&Exchange> {
        self.slots.get(slot as usize)
    }

    /// The exchange in a slot.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Exchange> {
        self.slots.get_mut(slot as usize)
    }

    /// Exchanges in the table.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Exchange> {
        self.slots.iter_mut().map(|(_, exchange)| exchange)
    }

    /// The serial number of the next exchange; those opened so far have lower ones.
    pub fn next_serial(&self) -> u64 {
        self.serials
    }

    /// The session is over on both sides.
    pub fn close(&mut self, slot: u32) {
        let Some(exchange) = self.slots.try_remove(slot as usize) else { return };
        self.unheard -= usize::from(exchange.client().is_none());
        if let Some(record) = exchange.kept.record {
            self.records.release(record);
        }
    }

    /// The response to a request begins.
    pub fn responds(&mut self, slot: u32, now: Instant) {
        let tick = self.tick(now);
        if let Some(begun) = self.slots.get_mut(slot as usize).and_then(|exchange| exchange.begun.take()) {
            self.response_times.observe(TICK * tick.get().wrapping_sub(begun.get()), 1);
        }
    }

    /// How long responses took to begin.
    pub fn response_times(&self) -> &Histogram {
        &self.response_times
    }

    /// The time as it is kept with each exchange. It begins anew after five days, and so does what has taken longer. The first tick
    /// counts as the second, so that a time takes no more room when there may be none.
    fn tick(&mut self, now: Instant) -> NonZeroU32 {
        NonZeroU32::new((self.age(now).as_micros() / TICK.as_micros()) as u32).unwrap_or(NonZeroU32::MIN)
    }

    /// The time in ms, as it is kept with records.
    pub(crate) fn ms(&mut self, now: Instant) -> u32 {
        self.age(now).as_millis() as u32
    }

    /// The time since the first that was asked for.
    fn age(&mut self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.origin.get_or_insert(now))
    }

    /// A packet of a server has come: notes which of its messages have.
    pub fn note_run(&mut self, packet: &Packet<'_>, from: Option<PeerId>) {
        if let Some(run) = packet.ext.run
            && let Some(place) = from.and_then(|from| self.places.of(from))
            && let Some(place) = self.places.get_mut(place)
        {
            place.sent.note(run);
        }
    }

    /// A packet is about to be taken in. If its server leaves records of a WebSocket, what the client sends from now on is kept until it
    /// has been taken. It could send nothing before.
    pub(crate) fn begin_to_keep(&mut self, slot: u32, packet: &Packet<'_>) {
        let is_of_proxy = packet.ext.keep.is_some_and(|record| record.owner == PROXY);
        if is_of_proxy && let Some(exchange) = self.slots.get_mut(slot as usize) {
            let memory = || self.recovery.share();
            exchange.underway.get_or_insert_with(|| Box::new(Underway::begin(packet, memory())));
        }
    }

    /// Keeps what a packet says of a session for the successor of its server. Called for each of its sessions, some of which may
    /// have ended with it.
    pub fn keep(&mut self, id: &[u8], packet: &Packet<'_>, from: Option<PeerId>, now: Instant) {
        let Ext { keep, run, lag, ack, .. } = packet.ext;
        if keep.is_none() && run.is_none() && !lag && ack == 0 && packet.kind != Kind::HandoffStart {
            return;
        }
        let ms = self.ms(now);
        let Some(slot) = self.find(id).map(|exchange| exchange.slot) else { return };
        let Some(exchange) = self.slots.get_mut(slot as usize) else { return };
        let kept = &mut exchange.kept;
        if packet.kind == Kind::HandoffStart {
            kept.hand = Hand::Giving;
        }
        if packet.ext.keep.is_some() {
            kept.record.take().into_iter().for_each(|old| self.records.release(old));
            kept.hand = Hand::Own;
        }
        let record = packet.ext.keep.filter(|record| (1..=MAX_RECORD).contains(&record.content.len()));
        if let Some((record, server)) = record.zip(from)
            && let Some(number) = self.places.find(record.owner)
        {
            self.places.take(number, server);
            kept.record = self.records.add(number, record.content);
            let run = self.places.get(number).map_or(0, |place| place.sent.run);
            (kept.since, kept.since_run, kept.run, kept.lags) = (ms, run, run, false);
        }
        exchange.forget_underway(ack);
        let kept = &mut exchange.kept;
        if let Some(run) = packet.ext.run {
            (kept.run, kept.lags) = (run.number, false);
        }
        kept.lags |= packet.ext.lag;
    }

    /// The server of an exchange in this place has ended. Whether its successor can go on with it; it is an orphan then.
    pub(crate) fn orphan(&mut self, slot: u32, place: usize, departure: u32) -> bool {
        let Some(exchange) = self.slots.get_mut(slot as usize) else { return false };
        let is_kept = exchange.kept.hand != Hand::Former && self.records.is_of(&exchange.kept, place);
        let of_proxy = self.places.get(place).is_some_and(|place| *place.name == *PROXY);
        let is_complete = if of_proxy { exchange.keeps_underway() } else { exchange.client().is_some() };
        if !is_kept || !is_complete {
            return false;
        }
        exchange.become_orphan(departure);
        true
    }

    /// Whether the server of a place was giving an exchange away when it ended, and nobody has spoken since.
    pub(crate) fn is_given_by(&self, exchange: &Exchange, place: usize) -> bool {
        exchange.kept.hand == Hand::Giving && !exchange.is_orphan() && self.records.is_of(&exchange.kept, place)
    }

    /// The orphans of a place, with their records. Looks at all exchanges.
    pub(crate) fn orphans_of(&self, place: usize) -> Vec<(RecordKey, u32)> {
        let orphans = self.slots.iter().filter(|(_, exchange)| exchange.is_orphan());
        let with_record = orphans.filter_map(|(slot, exchange)| Some((exchange.kept.record?, slot as u32)));
        with_record.filter(|(record, _)| self.records.place(*record) == Some(place)).collect()
    }

    /// The client is gone, or wants no more: tells the server. One that has not spoken yet is told when it does, as for
    /// any session that is not known.
    pub fn cancel(&mut self, slot: u32, up: &mut dyn Uplink) {
        let may_stay = self.unheard < self.max_unheard;
        let Some(exchange) = self.slots.get_mut(slot as usize) else { return };
        exchange.cancel(up);
        if may_stay && exchange.leave(false) {
            self.unheard += 1;
        } else {
            self.close(slot);
        }
    }

    /// The client has all it can get, though the server has not ended the response. The server may do so for a moment;
    /// then it is told.
    pub fn finish(&mut self, slot: u32, now: Instant, up: &mut dyn Uplink) {
        if self.unheard == self.max_unheard {
            return self.cancel(slot, up);
        }
        let Some(exchange) = self.slots.get_mut(slot as usize) else { return };
        if exchange.client().is_some() {
            self.unheard += 1;
        }
        if !exchange.leave(true) {
            exchange.audience = Audience::Served(now + ENDING);
        }
    }

    /// Client and server have closed a WebSocket. What the client has sent may have to be sent again, its close as well.
    pub fn closed(&mut self, slot: u32, now: Instant, up: &mut dyn Uplink) {
        match self.get(slot).is_some_and(|exchange| exchange.underway.is_some()) {
            true => self.finish(slot, now, up),
            false => self.close(slot),
        }
    }

    /// A packet for an exchange without a client.
    pub fn on_unheard(
        &mut self,
        slot: u32,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
        up: &mut dyn Uplink,
    ) {
        let Some(exchange) = self.slots.get_mut(slot as usize) else { return };
        // The backend may not know yet that the client of a WebSocket has gone.
        let is_left = matches!(exchange.audience, Audience::Left { .. });
        let ends = !is_left && (packet.kind == Kind::Close || packet.kind == Kind::Data && !packet.more);
        match exchange.receive(packet, from, seq, now, up) {
            Ok(Event::Failed) => self.close(slot),
            Ok(_) if ends => self.close(slot),
            Ok(_) => {}
            Err(_) => self.cancel(slot, up),
        }
    }

    /// When to look at an exchange next.
    pub fn next_due(&self, slot: u32) -> Option<Instant> {
        self.get(slot).map(Exchange::next_due)
    }

    /// A walk over all exchanges that there are now.
    pub fn sweep(&self) -> Sweep {
        Sweep { next: 0, end: self.slots.iter().next_back().map_or(0, |(slot, _)| slot + 1) }
    }

    /// Whether one is so. Looks at all exchanges.
    pub(crate) fn any(&self, is_so: impl Fn(&Exchange) -> bool) -> bool {
        self.slots.iter().any(|(_, exchange)| is_so(exchange))
    }

    /// Looks at the next `count` slots and gives those of which `chosen` holds; `None` at the end of the walk.
    pub fn sweep_on(&self, sweep: &mut Sweep, count: usize, chosen: impl Fn(&Exchange) -> bool) -> Option<Vec<u32>> {
        if sweep.next >= sweep.end {
            return None;
        }
        let end = sweep.end.min(sweep.next + count);
        let slots = sweep.next..end;
        sweep.next = end;
        Some(slots.filter(|&slot| self.slots.get(slot).is_some_and(&chosen)).map(|slot| slot as u32).collect())
    }
}

#[cfg(test)]
mod tests {
    use zhttp::{Peers, Record};

    use super::super::opened::{Nowhere, open_for};
    use super::*;

    fn open(exchanges: &mut Exchanges, client: u32, now: Instant) -> u32 {
        open_for(exchanges, client, false, now)
    }

    /// A WebSocket that a successor of its proxy would go on with.
    fn open_kept(exchanges: &mut Exchanges, now: Instant) -> (u32, Option<PeerId>) {
        let proxy = Peers::default().intern(b"proxy");
        let slot = open_for(exchanges, 1, true, now);
        let record = Record { owner: PROXY, content: b"all" };
        let ext = Ext { keep: Some(record), ..Ext::MULTI };
        let accepted = Packet { code: Some(101), credits: Some(100), ext, ..Packet::default() };
        exchanges.begin_to_keep(slot, &accepted);
        exchanges.get_mut(slot).unwrap().receive(&accepted, proxy, Some(0), now, &mut Nowhere).unwrap();
        (slot, proxy)
    }

    #[test]
    fn a_websocket_that_both_sides_have_closed_is_remembered_until_the_backend_knows() {
        let (now, mut exchanges) = (Instant::now(), Exchanges::for_clients(10));
        let (slot, proxy) = open_kept(&mut exchanges, now);
        exchanges.closed(slot, now, &mut Nowhere);
        assert!(exchanges.get(slot).is_some_and(|exchange| !exchange.is_left()));
        let cancel = Packet { kind: Kind::Cancel, ..Packet::default() };
        exchanges.on_unheard(slot, &cancel, proxy, Some(1), now, &mut Nowhere);
        assert!(exchanges.get(slot).is_none());
        let slot = open_for(&mut exchanges, 1, true, now);
        exchanges.closed(slot, now, &mut Nowhere);
        assert!(exchanges.get(slot).is_none());
    }

    #[test]
    fn a_walk_meets_every_exchange_once_in_steps() {
        let (now, mut exchanges) = (Instant::now(), Exchanges::for_clients(100));
        let slots: Vec<u32> = (0..100).map(|client| open(&mut exchanges, client, now)).collect();
        for slot in slots.iter().step_by(3) {
            exchanges.close(*slot);
        }
        let (mut walk, mut met, mut steps) = (exchanges.sweep(), Vec::new(), 0);
        while let Some(slots) = exchanges.sweep_on(&mut walk, 10, |exchange| exchange.serial() % 2 == 0) {
            assert!(slots.len() <= 10);
            met.extend(slots);
            steps += 1;
        }
        let expected: Vec<u32> = (0..100).filter(|slot| slot % 3 != 0 && slot % 2 == 0).collect();
        assert_eq!((met, steps), (expected, 10));
    }

    #[test]
    fn a_client_that_has_left_its_websocket_is_remembered_behind_what_was_under_way_to_it() {
        let (now, mut exchanges) = (Instant::now(), Exchanges::for_clients(10));
        let (slot, proxy) = open_kept(&mut exchanges, now);
        exchanges.cancel(slot, &mut Nowhere);
        let message = Packet { body: b"news", ..Packet::default() };
        exchanges.on_unheard(slot, &message, proxy, Some(1), now, &mut Nowhere);
        let close = Packet { kind: Kind::Close, ..Packet::default() };
        exchanges.on_unheard(slot, &close, proxy, Some(2), now, &mut Nowhere);
        assert!(exchanges.get(slot).is_some_and(Exchange::is_left));
        // The backend knows.
        let cancel = Packet { kind: Kind::Cancel, ..Packet::default() };
        exchanges.on_unheard(slot, &cancel, proxy, Some(3), now, &mut Nowhere);
        assert!(exchanges.get(slot).is_none());
    }

    #[test]
    fn a_slot_used_again_is_another_exchange() {
        let (now, mut exchanges) = (Instant::now(), Exchanges::for_clients(10));
        let slot = open(&mut exchanges, 1, now);
        let former = exchanges.get(slot).unwrap().id();
        exchanges.close(slot);
        assert_eq!(open(&mut exchanges, 2, now), slot);
        assert!(exchanges.find(former.as_bytes()).is_none());
        let present = exchanges.get(slot).unwrap().id();
        assert_eq!(exchanges.find(present.as_bytes()).unwrap().client(), Some(2));
        for foreign in [&b""[..], b"-", b"x-1", b"ffffffffff-0", b"0-0-0"] {
            assert!(exchanges.find(foreign).is_none());
        }
    }

    #[test]
    fn the_table_does_not_grow_up_to_the_number_of_clients_it_is_made_for() {
        let (now, mut exchanges) = (Instant::now(), Exchanges::for_clients(1000));
        let room = exchanges.slots.capacity();
        for client in 0..1000 {
            let slot = open(&mut exchanges, client, now);
            exchanges.finish(slot, now, &mut Nowhere);
            open(&mut exchanges, client, now);
        }
        // One more can not be remembered beside its successor.
        let slot = open(&mut exchanges, 0, now);
        exchanges.finish(slot, now, &mut Nowhere);
        assert_eq!((exchanges.len(), exchanges.slots.capacity() >= 2000), (2000, room >= 2000));
    }
}
