// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges on their way to another process.

use std::time::Instant;

use zhttp::budget::Budget;
use zhttp::retained::{Received, Retained, Sent};
use zhttp::session::client::Session;
use zhttp::{Kind, PeerId, Peers};

use super::{Audience, Exchange, Exchanges};
use crate::keep::places::Places;
use crate::keep::underway::{Came, Underway};
use crate::keep::{Hand, Kept};
use crate::transplant::record::{ExchangeRecord, PlaceRecord, RecordError, SentRecord, UnderwayRecord};

/// Numbers of sessions that a process has for itself. Its successor begins with the next ones, so that new sessions of both, while
/// the former has clients, are told apart.
const NUMBERS: u64 = 1 << 40;

/// What packets of a client can be, as they are written down.
const KINDS: [Kind; 4] = [Kind::Data, Kind::Ping, Kind::Pong, Kind::Close];

fn underway_record(underway: &Underway) -> UnderwayRecord {
    let packets = underway.sent.iter().map(|sent| SentRecord {
        seq: sent.seq,
        kind: KINDS.iter().position(|kind| *kind == sent.kind).unwrap_or_default() as u8,
        binary: sent.binary,
        more: sent.more,
        code: sent.code,
        body: sent.body.to_vec(),
    });
    UnderwayRecord {
        is_torn: !underway.sent.is_whole(),
        from: underway.sent.span().0,
        packets: packets.collect(),
        came: underway.came.map(|came| (came.received.position(), came.is_within)),
    }
}

fn underway(record: UnderwayRecord, memory: &Budget) -> Underway {
    let packets = record.packets.into_iter().map(|SentRecord { seq, kind, binary, more, code, body }| {
        let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(Kind::Data);
        Sent { seq, kind, binary, more, code, body: body.into() }
    });
    let mut sent = Retained::restore(record.from, packets, memory.share());
    if record.is_torn {
        sent.tear();
    }
    let came = |(position, is_within)| Came { received: Received::at(position), is_within };
    Underway { sent, came: record.came.map(came) }
}

impl Exchanges {
    /// Writes an exchange down; none if it can not move: its server has gone, or its request waits for a proxy.
    pub(crate) fn snapshot(&self, slot: u32, peers: &Peers, now: Instant) -> Option<ExchangeRecord> {
        let exchange = self
            .get(slot)
            .filter(|exchange| !exchange.is_orphan() && !exchange.waits() && !exchange.is_behind_again())?;
        let mut session = Vec::with_capacity(128);
        exchange.session.snapshot(peers, now, &mut session);
        let kept = &exchange.kept;
        let record = kept.record.filter(|_| kept.hand == Hand::Own).and_then(|key| {
            let place = u32::try_from(self.records.place(key)?).ok()?;
            Some((place, self.records.content(key)?.to_vec()))
        });
        Some(ExchangeRecord {
            slot,
            serial: exchange.serial,
            audience: match exchange.audience {
                Audience::Client(client) => Ok(client),
                Audience::Served(until) => Err(until.saturating_duration_since(now)),
                Audience::Left { .. } => return None,
            },
            session,
            record,
            since: kept.since,
            since_run: kept.since_run,
            run: kept.run,
            lags: kept.lags,
            request: exchange.request.as_ref().and_then(|request| request.snapshot()),
            underway: exchange.underway.as_deref().map(underway_record),
        })
    }

    /// Reads an exchange back, which does not stand in the table yet.
    pub(crate) fn restore(
        &mut self,
        record: ExchangeRecord,
        peers: &mut Peers,
        numbers: &[PeerId],
        now: Instant,
    ) -> Result<Exchange, RecordError> {
        let session = Session::restore(&record.session, peers, now)?;
        let request = match record.request {
            Some(request) => self.replays.take_over(request, numbers)?,
            None => None,
        };
        let key = record.record.and_then(|(place, content)| self.records.add(place as usize, &content));
        let kept = Kept {
            record: key,
            since: record.since,
            orphan: 0,
            since_run: record.since_run,
            run: record.run,
            lags: record.lags,
            hand: Hand::Own,
        };
        let audience = match record.audience {
            Ok(client) => Audience::Client(client),
            Err(left) => Audience::Served(now + left),
        };
        let underway = record.underway.map(|record| Box::new(underway(record, &self.recovery)));
        let (slot, serial) = (record.slot, record.serial);
        Ok(Exchange { slot, serial, audience, session, kept, request, underway, begun: None })
    }

    /// Takes all that have been read back into the table, which is empty.
    pub(crate) fn take_over(&mut self, exchanges: Vec<Exchange>, serials: u64, ms: u32, now: Instant) {
        let room = self.slots.capacity();
        self.unheard = exchanges.iter().filter(|exchange| exchange.client().is_none()).count();
        self.slots = exchanges.into_iter().map(|exchange| (exchange.slot as usize, exchange)).collect();
        self.slots.reserve(room.saturating_sub(self.slots.len()));
        self.serials = (serials / NUMBERS + 1) * NUMBERS;
        self.origin = now.checked_sub(std::time::Duration::from_millis(u64::from(ms)));
    }

    /// The time in ms, as it is kept with records, if there are any.
    pub(crate) fn ms_of(&self, now: Instant) -> u32 {
        self.origin.map_or(0, |origin| now.saturating_duration_since(origin).as_millis() as u32)
    }

    /// What all of them share.
    pub(crate) fn places_snapshot(&self) -> Vec<PlaceRecord> {
        self.places.snapshot()
    }

    /// Reads that back.
    pub(crate) fn restore_places(&mut self, places: Vec<PlaceRecord>, peers: &[PeerId]) -> Result<(), RecordError> {
        self.places = Places::restore(places, peers)?;
        Ok(())
    }

    /// Slots of the exchanges without client.
    pub(crate) fn unheard(&self) -> Vec<u32> {
        let unheard = self.slots.iter().filter(|(_, exchange)| exchange.client().is_none());
        unheard.map(|(slot, _)| slot as u32).collect()
    }

    /// Slots and numbers of all.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u32, u64)> {
        self.slots.iter().map(|(slot, exchange)| (slot as u32, exchange.serial))
    }
}
