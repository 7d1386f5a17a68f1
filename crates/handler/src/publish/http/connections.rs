// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who is connected to the control port, and how much is kept for them.
//!
//! Anybody who reaches the port can connect and send half a request. Such connections are bounded in number and in bytes,
//! and when there are too many the one that has been so for longest is closed: a publisher that sends its request at once is
//! never among those.
//! A connection with a whole request waits for the worker. It is not closed for others; when too many wait, further ones
//! are refused.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{BTreeMap, HashMap};

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections without a whole request.
    pub unfinished: usize,
    /// Connections whose request waits for the worker.
    pub waiting: usize,
    /// Bytes of bodies that wait, and again of bodies that are not whole.
    pub bytes: usize,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// Too many requests wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// All connections.
#[derive(Debug)]
pub struct Connections {
    bounds: Bounds,
    unfinished: Group,
    waiting: Group,
    next: u64,
    /// How many were closed for others.
    pub closed_for_others: u64,
    /// How many requests were refused because too many waited.
    pub refused: u64,
}

/// Connections with what their bodies take.
#[derive(Debug, Default)]
struct Group {
    members: HashMap<Key, Member>,
    /// Who came first, by [`Member::turn`].
    by_turn: BTreeMap<u64, Key>,
    next_turn: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Member {
    turn: u64,
    bytes: usize,
}

impl Group {
    fn add(&mut self, key: Key, bytes: usize) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.members.insert(key, Member { turn, bytes });
        self.by_turn.insert(turn, key);
        self.bytes += bytes;
    }

    fn grow(&mut self, key: Key, bytes: usize) {
        if let Some(member) = self.members.get_mut(&key) {
            member.bytes += bytes;
            self.bytes += bytes;
        }
    }

    fn remove(&mut self, key: Key) -> Option<usize> {
        let member = self.members.remove(&key)?;
        self.by_turn.remove(&member.turn);
        self.bytes -= member.bytes;
        Some(member.bytes)
    }

    fn exceeds(&self, connections: usize, bytes: usize) -> bool {
        self.members.len() > connections || self.bytes > bytes
    }
}

impl Connections {
    /// Nobody is connected.
    pub fn new(bounds: Bounds) -> Self {
        Connections {
            bounds,
            unfinished: Group::default(),
            waiting: Group::default(),
            next: 0,
            closed_for_others: 0,
            refused: 0,
        }
    }

    /// Somebody has connected. See [`Connections::excess`].
    pub fn open(&mut self) -> Key {
        let key = Key(self.next);
        self.next += 1;
        self.unfinished.add(key, 0);
        key
    }

    /// So many more bytes of a body have come. See [`Connections::excess`].
    pub fn read(&mut self, key: Key, bytes: usize) {
        self.unfinished.grow(key, bytes);
    }

    /// A connection that is to be closed so that the others keep within the bounds; to be asked until there is none.
    pub fn excess(&mut self) -> Option<Key> {
        if !self.unfinished.exceeds(self.bounds.unfinished, self.bounds.bytes) {
            return None;
        }
        let (_, &oldest) = self.unfinished.by_turn.first_key_value()?;
        self.unfinished.remove(oldest);
        self.closed_for_others += 1;
        Some(oldest)
    }

    /// The request is whole, and waits from now on.
    ///
    /// # Errors
    /// Too many wait, or they take too many bytes.
    pub fn wait(&mut self, key: Key) -> Result<(), Busy> {
        let Some(bytes) = self.unfinished.remove(key) else { return Ok(()) };
        self.waiting.add(key, bytes);
        if self.waiting.exceeds(self.bounds.waiting, self.bounds.bytes) {
            self.answered(key);
            self.refused += 1;
            return Err(Busy);
        }
        Ok(())
    }

    /// The request, or a part of it, has its answer; what is left is to send that. The connection is as good as a new one.
    pub fn answered(&mut self, key: Key) {
        if self.waiting.remove(key).or_else(|| self.unfinished.remove(key)).is_some() {
            self.unfinished.add(key, 0);
        }
    }

    /// The connection is closed.
    pub fn close(&mut self, key: Key) {
        self.unfinished.remove(key);
        self.waiting.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { unfinished: 3, waiting: 2, bytes: 100 };

    #[test]
    fn the_oldest_without_a_whole_request_is_closed_for_a_new_one() {
        let mut connections = Connections::new(BOUNDS);
        let keys: Vec<Key> = (0..3).map(|_| connections.open()).collect();
        assert_eq!(connections.excess(), None);
        connections.wait(keys[0]).unwrap();
        connections.open();
        assert_eq!(connections.excess(), None);
        connections.open();
        assert_eq!(connections.excess(), Some(keys[1]));
        assert_eq!((connections.excess(), connections.closed_for_others), (None, 1));
    }

    #[test]
    fn who_has_been_answered_is_as_good_as_new() {
        let mut connections = Connections::new(BOUNDS);
        let keys: Vec<Key> = (0..3).map(|_| connections.open()).collect();
        connections.read(keys[0], 90);
        connections.answered(keys[0]);
        connections.read(keys[0], 90);
        assert_eq!(connections.excess(), None);
        connections.open();
        assert_eq!(connections.excess(), Some(keys[1]));
        connections.read(keys[2], 11);
        assert_eq!(connections.excess(), Some(keys[2]));
    }

    #[test]
    fn halves_of_large_bodies_are_closed_for_others() {
        let mut connections = Connections::new(BOUNDS);
        let (first, second) = (connections.open(), connections.open());
        connections.read(first, 60);
        connections.read(second, 40);
        assert_eq!(connections.excess(), None);
        connections.read(second, 1);
        assert_eq!((connections.excess(), connections.excess()), (Some(first), None));
    }

    #[test]
    fn requests_that_wait_are_bounded_in_number_and_bytes() {
        let mut connections = Connections::new(BOUNDS);
        let keys: Vec<Key> = (0..3).map(|_| connections.open()).collect();
        connections.read(keys[0], 90);
        connections.read(keys[1], 10);
        assert_eq!(connections.wait(keys[0]), Ok(()));
        connections.read(keys[1], 1);
        assert_eq!(connections.wait(keys[1]), Err(Busy));
        assert_eq!(connections.wait(keys[2]), Ok(()));
        let more = connections.open();
        assert_eq!((connections.wait(more), connections.refused), (Err(Busy), 2));
        connections.answered(keys[2]);
        assert_eq!(connections.wait(more), Ok(()));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_nothing_is_left_behind(
            steps in prop::collection::vec((0..5, any::<prop::sample::Index>(), 0usize..60), 0..60),
        ) {
            let mut connections = Connections::new(BOUNDS);
            let mut keys = Vec::new();
            for (step, which, bytes) in steps {
                match step {
                    0 => keys.push(connections.open()),
                    _ if keys.is_empty() => {}
                    1 => connections.read(*which.get(&keys), bytes),
                    2 => drop(connections.wait(*which.get(&keys))),
                    3 => connections.answered(*which.get(&keys)),
                    _ => connections.close(keys.swap_remove(which.index(keys.len()))),
                }
                while let Some(key) = connections.excess() {
                    keys.retain(|&known| known != key);
                    connections.close(key);
                }
                let Connections { unfinished, waiting, .. } = &connections;
                prop_assert!(!unfinished.exceeds(BOUNDS.unfinished, BOUNDS.bytes));
                prop_assert!(!waiting.exceeds(BOUNDS.waiting, BOUNDS.bytes));
                prop_assert_eq!(unfinished.members.len() + waiting.members.len(), keys.len());
            }
            keys.into_iter().for_each(|key| connections.close(key));
            prop_assert_eq!(connections.unfinished.bytes + connections.waiting.bytes, 0);
        }
    }
}
