// SPDX-License-Identifier: AGPL-3.0-or-later
//! All holds, by index and by session.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::rc::Rc;

use foldhash::fast::RandomState;
use zhttp::{Id, PeerId};

use super::{Hold, HoldMode};
use crate::context::Address;
use crate::subscribe::channels::HoldKey;
use crate::tables::{Numbers, Table};

/// See the module.
#[derive(Default)]
pub struct Holds {
    holds: Table<Hold>,
    by_session: Numbers<RandomState>,
    births: u64,
    polls: usize,
    /// Whose they are, of those of which that is known.
    users: HashMap<HoldKey, Rc<str>, RandomState>,
}

impl Holds {
    /// A number that no hold has had.
    pub fn next_birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    /// Adds a hold.
    pub fn insert(&mut self, hold: Hold) -> HoldKey {
        let session = session_of(&hold);
        self.polls += usize::from(hold.mode() == HoldMode::Response);
        let key = self.holds.insert(hold);
        self.by_session.insert(&session, key, |other| session_of(&self.holds[other]));
        key
    }

    /// Removes a hold.
    pub fn remove(&mut self, key: HoldKey) -> Option<Hold> {
        let hold = self.holds.remove(key)?;
        self.polls -= usize::from(hold.mode() == HoldMode::Response);
        self.set_user(key, None);
        self.by_session.remove(&session_of(&hold), key);
        Some(hold)
    }

    /// Says whose a hold is.
    pub fn set_user(&mut self, key: HoldKey, user: Option<Rc<str>>) {
        match user {
            Some(user) => drop(self.users.insert(key, user)),
            None if self.users.is_empty() => {}
            None => drop(self.users.remove(&key)),
        }
    }

    /// Whose a hold is, if that is known.
    pub fn user(&self, key: HoldKey) -> Option<&str> {
        self.users.get(&key).map(|user| &**user)
    }

    /// The hold of a session.
    pub fn find(&self, peer: PeerId, id: Id) -> Option<HoldKey> {
        self.by_session.find(&(peer, id), |key| session_of(&self.holds[key]) == (peer, id))
    }

    /// A hold that may be gone.
    pub fn get(&self, key: HoldKey) -> Option<&Hold> {
        self.holds.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: HoldKey) -> Option<&mut Hold> {
        self.holds.get_mut(key)
    }

    /// Whether the hold with this birth is still at this index.
    pub fn is_there(&self, key: HoldKey, birth: u64) -> bool {
        self.get(key).is_some_and(|hold| hold.birth == birth)
    }

    /// The holds that are reached so. Looks at all there are.
    pub fn at(&self, address: Address) -> Vec<HoldKey> {
        self.holds.iter().filter(|(_, hold)| hold.address() == address).map(|(key, _)| key).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().map(|(_, hold)| hold)
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Hold> {
        self.holds.iter_mut()
    }

    /// The same with their indices.
    pub fn iter_keys(&self) -> impl Iterator<Item = (HoldKey, &Hold)> {
        self.holds.iter()
    }

    /// Removes all.
    pub fn clear(&mut self) {
        *self = Holds { births: self.births, ..Holds::default() };
    }

    /// How many of them are long-polls.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }
}

/// What a hold is found by.
fn session_of(hold: &Hold) -> (PeerId, Id) {
    (hold.session.client(), hold.session.id())
}

impl Index<HoldKey> for Holds {
    type Output = Hold;

    /// # Panics
    /// There is no such hold. The lists of channels have only those that are there.
    fn index(&self, key: HoldKey) -> &Hold {
        &self.holds[key]
    }
}

impl IndexMut<HoldKey> for Holds {
    fn index_mut(&mut self, key: HoldKey) -> &mut Hold {
        &mut self.holds[key]
    }
}
