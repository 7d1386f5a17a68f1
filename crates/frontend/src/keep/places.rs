// SPDX-License-Identifier: AGPL-3.0-or-later
//! The places of the suite whose servers leave records, and which messages those servers have sent.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use zhttp::recovery::Seen;
use zhttp::{PeerId, Run};

use crate::transplant::record::{PlaceRecord, RecordError};

/// Places one process knows.
const MAX_PLACES: usize = 16;
/// Bytes of a place's name.
const MAX_NAME: usize = 16;
/// Messages that are remembered one by one, so that a repeated one is told from a new one.
const RING: usize = 1024;
/// Channels whose last message is remembered.
const CHANNELS: usize = 100_000;
/// Bytes of a channel's name or an id that are remembered.
const MAX_TEXT: usize = 1024;

/// A place, whichever process has it now.
#[derive(Debug, Default)]
pub struct Place {
    /// What its servers call it.
    pub name: Rc<[u8]>,
    /// Who has it, or had it last.
    pub owner: Option<PeerId>,
    /// That one has ended, and its sessions are orphans.
    pub is_vacant: bool,
    /// Who has asked for the sessions before they were orphans.
    pub waits: Option<PeerId>,
    /// Messages of its servers.
    pub sent: Sent,
}

/// A channel or an id.
type Text = Rc<[u8]>;

/// Which messages have come, and in which run.
#[derive(Debug, Default)]
pub struct Sent {
    /// The number of the last run.
    pub run: u64,
    /// Runs, channels and ids.
    ring: VecDeque<(u64, Text, Text)>,
    /// By channel.
    last: HashMap<Text, (u64, Text)>,
}

impl Sent {
    /// A packet of a run has come. Those of one run have some of its messages each.
    pub fn note(&mut self, run: Run<'_>) {
        self.run = self.run.max(run.number);
        for (channel, id) in run.iter().filter(|(channel, id)| channel.len().max(id.len()) <= MAX_TEXT) {
            let in_run = self.ring.iter().rev().take_while(|(number, ..)| *number == run.number);
            if in_run.into_iter().any(|(_, known, other)| **known == *channel && **other == *id) {
                continue;
            }
            let id: Rc<[u8]> = id.into();
            let channel = match self.last.get_mut(channel) {
                Some(last) => {
                    *last = (run.number, id.clone());
                    self.last.get_key_value(channel).map(|(name, _)| name.clone()).unwrap_or_default()
                }
                None => {
                    self.make_room();
                    let channel: Rc<[u8]> = channel.into();
                    self.last.insert(channel.clone(), (run.number, id.clone()));
                    channel
                }
            };
            if self.ring.len() == RING {
                self.ring.pop_front();
            }
            self.ring.push_back((run.number, channel, id));
        }
    }

    /// Forgets the half of the channels that have been silent for longest.
    fn make_room(&mut self) {
        if self.last.len() >= CHANNELS {
            let mut runs: Vec<u64> = self.last.values().map(|(run, _)| *run).collect();
            let middle = runs.len() / 2;
            let (_, &mut median, _) = runs.select_nth_unstable(middle);
            self.last.retain(|_, (run, _)| *run > median);
        }
    }

    /// All that is remembered: in the order of runs, then the last message of each channel.
    pub fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        let ring = self.ring.iter().map(|(run, channel, id)| Seen { run: *run, last: false, channel, id });
        let last = self.last.iter().map(|(channel, (run, id))| Seen { run: *run, last: true, channel, id });
        ring.chain(last)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Places {
    places: Vec<Place>,
}

impl Places {
    /// Writes all of them down for another process.
    pub(crate) fn snapshot(&self) -> Vec<PlaceRecord> {
        let number = |peer: PeerId| peer.index() as u32;
        let record = |place: &Place| PlaceRecord {
            name: place.name.to_vec(),
            owner: place.owner.map(number),
            waits: place.waits.map(number),
            is_vacant: place.is_vacant,
            run: place.sent.run,
            ring: place.sent.ring.iter().map(|(run, channel, id)| (*run, channel.to_vec(), id.to_vec())).collect(),
            last: place.sent.last.iter().map(|(channel, (run, id))| (channel.to_vec(), *run, id.to_vec())).collect(),
        };
        self.places.iter().map(record).collect()
    }

    /// Reads them back; `peers` by their numbers there.
    pub(crate) fn restore(records: Vec<PlaceRecord>, peers: &[PeerId]) -> Result<Self, RecordError> {
        let peer = |number: Option<u32>| match number {
            Some(number) => peers.get(number as usize).copied().map(Some).ok_or(RecordError::Unfit("server")),
            None => Ok(None),
        };
        let place = |record: PlaceRecord| {
            let mut last: HashMap<Text, (u64, Text)> = HashMap::with_capacity(record.last.len());
            last.extend(record.last.into_iter().map(|(channel, run, id)| (channel.into(), (run, id.into()))));
            let known = |channel: &[u8]| last.get_key_value(channel).map(|(name, _)| name.clone());
            let ring = record.ring.into_iter().map(|(run, channel, id)| {
                (run, known(&channel).unwrap_or_else(|| channel.as_slice().into()), id.into())
            });
            let sent = Sent { run: record.run, ring: ring.collect(), last: HashMap::new() };
            let (owner, waits) = (peer(record.owner)?, peer(record.waits)?);
            let (name, is_vacant) = (record.name.into(), record.is_vacant);
            Ok(Place { name, owner, is_vacant, waits, sent: Sent { last, ..sent } })
        };
        Ok(Places { places: records.into_iter().map(place).collect::<Result<_, RecordError>>()? })
    }

    /// The number of a place by its name, new or known; none if there are too many.
    pub fn find(&mut self, name: &[u8]) -> Option<usize> {
        let known = self.places.iter().position(|place| *place.name == *name);
        if known.is_some() || name.len() > MAX_NAME || self.places.len() == MAX_PLACES {
            return known;
        }
        self.places.push(Place { name: name.into(), ..Place::default() });
        Some(self.places.len() - 1)
    }

    /// A server has left a record for the place, so it has it.
    pub fn take(&mut self, number: usize, server: PeerId) {
        if let Some(place) = self.places.get_mut(number).filter(|place| place.owner != Some(server)) {
            (place.owner, place.is_vacant) = (Some(server), false);
        }
    }

    /// The number of the place that a server has.
    pub fn of(&self, server: PeerId) -> Option<usize> {
        self.places.iter().position(|place| place.owner == Some(server) && !place.is_vacant)
    }

    /// One of them.
    pub fn get(&self, number: usize) -> Option<&Place> {
        self.places.get(number)
    }

    /// One of them.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Place> {
        self.places.get_mut(number)
    }

    /// A server has ended: it waits for nothing any more.
    pub fn forget(&mut self, server: PeerId) {
        self.places.iter_mut().filter(|place| place.waits == Some(server)).for_each(|place| place.waits = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(sent: &mut Sent, number: u64, messages: &[(&str, &str)]) {
        let mut items = Vec::new();
        messages.iter().for_each(|(channel, id)| Run::push(&mut items, channel, id));
        sent.note(Run { number, items: &items });
    }

    #[test]
    fn messages_of_a_run_are_remembered_once_however_many_packets_bring_them() {
        let mut sent = Sent::default();
        note(&mut sent, 1, &[("a", "1"), ("b", "1")]);
        note(&mut sent, 1, &[("a", "1")]);
        note(&mut sent, 2, &[("a", "2")]);
        let seen: Vec<_> =
            sent.seen().filter(|seen| !seen.last).map(|seen| (seen.run, seen.channel, seen.id)).collect();
        assert_eq!(seen, [(1, &b"a"[..], &b"1"[..]), (1, b"b", b"1"), (2, b"a", b"2")]);
        let mut last: Vec<_> =
            sent.seen().filter(|seen| seen.last).map(|seen| (seen.run, seen.channel, seen.id)).collect();
        last.sort_unstable();
        assert_eq!(last, [(1, &b"b"[..], &b"1"[..]), (2, b"a", b"2")]);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut sent = Sent::default();
        for number in 0..CHANNELS as u64 + 10 {
            note(&mut sent, number, &[(&number.to_string(), "x")]);
        }
        assert_eq!(sent.ring.len(), RING);
        assert!((CHANNELS / 3..=CHANNELS).contains(&sent.last.len()), "{}", sent.last.len());
        assert!(sent.last.contains_key(format!("{}", CHANNELS + 9).as_bytes()));
    }
}
