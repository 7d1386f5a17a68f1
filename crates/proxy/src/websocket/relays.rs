// SPDX-License-Identifier: AGPL-3.0-or-later
//! The WebSockets themselves, and how they are found: by the client's session, by name, by number.
//!
//! What finds them has no copy of what they are found by.

use std::hash::BuildHasher as _;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use rpc::uuid::Uuid;
use slab::Slab;
use zhttp::{Id, PeerId};

use super::relay::Relay;

/// See the module.
#[derive(Default)]
pub struct Relays {
    entries: Slab<Entry>,
    by_client: HashTable<u32>,
    by_name: HashTable<u32>,
    hasher: RandomState,
}

/// A WebSocket in the table.
pub struct Entry {
    /// The WebSocket.
    pub relay: Relay,
    /// When its timer comes up.
    pub timer: Option<Instant>,
    /// The number of that timer. Others of it are stale.
    pub note: u32,
}

impl Relays {
    /// The number that the next one has.
    pub fn next_index(&self) -> usize {
        self.entries.vacant_key()
    }

    /// Adds one, whose number is [`Relays::next_index`].
    pub fn insert(&mut self, relay: Relay) {
        let (client, name) = (relay.client_key(), relay.name());
        // Numbers of WebSockets stand in ids towards backends, with 31 bits.
        let index = self.entries.insert(Entry { relay, timer: None, note: 0 }) as u32;
        let Relays { entries, by_client, by_name, hasher } = self;
        let of = |index: &u32| entries.get(*index as usize).map(|entry| &entry.relay);
        by_client.insert_unique(hasher.hash_one(client), index, |other| {
            of(other).map_or(0, |relay| hasher.hash_one(relay.client_key()))
        });
        by_name.insert_unique(name.bits(), index, |other| of(other).map_or(0, |relay| relay.name().bits()));
    }

    /// One by the client's session.
    pub fn find_client(&self, key: &(PeerId, Id)) -> Option<usize> {
        let is = |index: &u32| self.get(*index as usize).is_some_and(|entry| entry.relay.client_key() == *key);
        self.by_client.find(self.hasher.hash_one(key), is).map(|index| *index as usize)
    }

    /// One by its public name.
    pub fn find_name(&self, name: &[u8]) -> Option<usize> {
        self.find_uuid(Uuid::parse(name)?)
    }

    /// The same, of a name that has been read.
    pub fn find_uuid(&self, name: Uuid) -> Option<usize> {
        let is = |index: &u32| self.get(*index as usize).is_some_and(|entry| entry.relay.name() == name);
        self.by_name.find(name.bits(), is).map(|index| *index as usize)
    }

    /// The client of one is gone: it is found by number only from now on. `false` if it was so before.
    pub fn leave(&mut self, index: usize) -> bool {
        let Some(relay) = self.get(index).map(|entry| &entry.relay) else { return false };
        let (client, name) = (self.hasher.hash_one(relay.client_key()), relay.name().bits());
        let is = |other: &u32| *other as usize == index;
        let Ok(found) = self.by_name.find_entry(name, is) else { return false };
        found.remove();
        if let Ok(found) = self.by_client.find_entry(client, is) {
            found.remove();
        }
        true
    }

    /// Forgets one, whose client is gone.
    pub fn remove(&mut self, index: usize) -> Option<Relay> {
        self.entries.try_remove(index).map(|entry| entry.relay)
    }

    /// One by number.
    pub fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    /// All of them, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Relay)> {
        self.entries.iter().map(|(index, entry)| (index, &entry.relay))
    }

    /// How many there are, with those whose client is gone.
    pub fn all(&self) -> usize {
        self.entries.len()
    }

    /// How many have a client.
    pub fn clients(&self) -> usize {
        self.by_name.len()
    }
}
