// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tables that grow in small steps.
//!
//! A vector or hash map that is full moves to a place of twice the size, all of it at once; with 100,000 holds everybody
//! waits for that. These tables are made of parts, and what moves is a part.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use slab::Slab;

/// Entries of one part of a [`Table`].
const PART: usize = 1024;
/// Parts of [`Numbers`].
const SHARDS: usize = 64;

/// Entries by number. They never move.
pub struct Table<T> {
    parts: Vec<Slab<T>>,
    /// Parts with room; the last one is filled first.
    open: Vec<u32>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { parts: Vec::new(), open: Vec::new(), len: 0 }
    }
}

impl<T> Table<T> {
    /// Adds an entry; returns its number.
    pub fn insert(&mut self, entry: T) -> u32 {
        let part = match self.open.last() {
            Some(&part) => part,
            None => {
                self.parts.push(Slab::with_capacity(PART));
                self.open.push(self.parts.len() as u32 - 1);
                self.parts.len() as u32 - 1
            }
        };
        let entries = &mut self.parts[part as usize];
        let at = entries.insert(entry);
        if entries.len() == PART {
            self.open.pop();
        }
        self.len += 1;
        part * PART as u32 + at as u32
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: u32) -> Option<T> {
        let part = key / PART as u32;
        let entries = self.parts.get_mut(part as usize)?;
        let entry = entries.try_remove(key as usize % PART)?;
        if entries.len() == PART - 1 {
            self.open.push(part);
        }
        self.len -= 1;
        Some(entry)
    }

    /// An entry.
    pub fn get(&self, key: u32) -> Option<&T> {
        self.parts.get(key as usize / PART)?.get(key as usize % PART)
    }

    /// An entry, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.parts.get_mut(key as usize / PART)?.get_mut(key as usize % PART)
    }

    /// All entries with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let with_number = |(part, entries)| {
            let entries: &Slab<T> = entries;
            entries.iter().map(move |(at, entry)| ((part * PART + at) as u32, entry))
        };
        self.parts.iter().enumerate().flat_map(with_number)
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.parts.iter_mut().flat_map(|entries| entries.iter_mut().map(|(_, entry)| entry))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> std::ops::Index<u32> for Table<T> {
    type Output = T;

    /// # Panics
    /// There is no such entry.
    fn index(&self, key: u32) -> &T {
        &self.parts[key as usize / PART][key as usize % PART]
    }
}

impl<T> std::ops::IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        &mut self.parts[key as usize / PART][key as usize % PART]
    }
}

/// Numbers of a table's entries, found by what the entries themselves have. In parts, which grow one by one.
pub struct Numbers<S> {
    shards: Vec<HashTable<u32>>,
    hasher: S,
}

impl<S: Default> Default for Numbers<S> {
    fn default() -> Self {
        Numbers { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), hasher: S::default() }
    }
}

impl<S: BuildHasher> Numbers<S> {
    /// Adds a number, in place of another one with this key. `key_of` gives the keys of those that are there.
    pub fn insert<K: Hash + Eq>(&mut self, key: &K, number: u32, key_of: impl Fn(u32) -> K) {
        let hash = self.hasher.hash_one(key);
        let shard = &mut self.shards[shard(hash)];
        match shard.find_mut(hash, |&other| key_of(other) == *key) {
            Some(entry) => *entry = number,
            None => {
                shard.insert_unique(hash, number, |&other| self.hasher.hash_one(key_of(other)));
            }
        }
    }

    /// Adds a number whose key is not there yet.
    pub fn insert_new<'a, K: Hash + ?Sized + 'a>(&mut self, key: &K, number: u32, key_of: impl Fn(u32) -> &'a K) {
        let hash = self.hasher.hash_one(key);
        self.shards[shard(hash)].insert_unique(hash, number, |&other| self.hasher.hash_one(key_of(other)));
    }

    /// The number of a key; `is` says whether a number is its.
    pub fn find<K: Hash + ?Sized>(&self, key: &K, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.shards[shard(hash)].find(hash, |&number| is(number)).copied()
    }

    /// Removes a number with its key.
    pub fn remove<K: Hash + ?Sized>(&mut self, key: &K, number: u32) {
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.shards[shard(hash)].find_entry(hash, |&other| other == number) {
            entry.remove();
        }
    }
}

/// Which part an entry is in. The tables themselves use the lowest and the highest bits.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_do_not_move_when_the_table_grows() {
        let mut table = Table::default();
        let first = table.insert(0);
        let place = std::ptr::from_ref(&table[first]);
        for i in 1..10 * PART {
            table.insert(i);
        }
        assert_eq!(std::ptr::from_ref(&table[first]), place);
        assert_eq!(table.iter().map(|(_, &entry)| entry).sum::<usize>(), (0..10 * PART).sum::<usize>());
    }

    proptest! {
        #[test]
        fn numbers_are_found_by_the_keys_of_their_entries(steps in prop::collection::vec((0u16..300, any::<bool>()), 0..1000)) {
            let (mut numbers, mut model) = (Numbers::<foldhash::fast::RandomState>::default(), BTreeMap::new());
            // The entry of a number.
            let mut keys = Vec::new();
            for (key, adds) in steps {
                let found = numbers.find(&key, |number| keys[number as usize] == key);
                prop_assert_eq!(found, model.get(&key).copied());
                if adds {
                    keys.push(key);
                    let number = keys.len() as u32 - 1;
                    match found {
                        Some(_) => numbers.insert(&key, number, |number| keys[number as usize]),
                        None => numbers.insert_new(&key, number, |number| &keys[number as usize]),
                    }
                    model.insert(key, number);
                } else if let Some(number) = model.remove(&key) {
                    numbers.remove(&key, number);
                }
            }
        }

        #[test]
        fn a_table_is_a_map_that_chooses_its_keys(steps in prop::collection::vec(any::<Option<u16>>(), 0..5000)) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    None => {
                        let key = table.insert(value);
                        prop_assert_eq!(model.insert(key, value), None);
                    }
                    Some(key) => prop_assert_eq!(table.remove(u32::from(key) % 3000), model.remove(&(u32::from(key) % 3000))),
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert!(table.iter().map(|(key, &value)| (key, value)).eq(model));
        }
    }
}
