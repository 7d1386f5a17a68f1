// SPDX-License-Identifier: AGPL-3.0-or-later
//! All cohorts, and which of them a hold joins.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use grip::Item;
use hashbrown::HashTable;
use zhttp::Wheel;

use super::{Cohort, Likeness, State, Urgency, Verdict};
use crate::fetch::FetchKey;
use crate::subscribe::channels::{CohortKey, HoldKey};
use crate::tables::Table;

/// How exactly the times of links are kept.
const TICK: Duration = Duration::from_millis(50);

/// A hold's place in its cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The cohort.
    pub cohort: CohortKey,
    /// The index among its members.
    pub index: u32,
}

/// See the module.
pub struct Cohorts {
    table: Table<Cohort>,
    /// Those that others may join, by what their members have in common.
    open: HashTable<CohortKey>,
    hasher: RandomState,
    timers: Wheel<(CohortKey, Instant)>,
    serials: u64,
    /// The number of the last message that was judged.
    judged: u64,
    /// Those that have come to be like another.
    alike: Vec<CohortKey>,
    /// Requests of cohorts that are gone.
    orphans: Vec<FetchKey>,
}

impl Cohorts {
    /// None.
    pub fn new(now: Instant) -> Self {
        Cohorts {
            table: Table::default(),
            open: HashTable::new(),
            hasher: RandomState::default(),
            timers: Wheel::new(TICK, now),
            serials: 0,
            judged: 0,
            alike: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One that may be gone.
    pub fn get(&self, key: CohortKey) -> Option<&Cohort> {
        self.table.get(key)
    }

    /// The same, to be changed, but not in what its members have in common.
    pub fn get_mut(&mut self, key: CohortKey) -> Option<&mut Cohort> {
        self.table.get_mut(key)
    }

    /// All of them.
    pub fn keys(&self) -> Vec<CohortKey> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    fn hash(&self, like: &Likeness) -> u64 {
        self.hasher.hash_one(like)
    }

    /// The cohort that holds of this likeness join, which may be a new one.
    pub fn of(&mut self, like: Likeness, now: Instant) -> CohortKey {
        let (hash, table) = (self.hash(&like), &self.table);
        let found = self.open.find(hash, |&key| table.get(key).is_some_and(|cohort| cohort.like == like));
        if let Some(&key) = found {
            return key;
        }
        let key = self.insert(like, State::Holding);
        if let Some(cohort) = self.table.get_mut(key) {
            cohort.start_link_timer(now);
        }
        self.admit(key);
        self.watch(key);
        key
    }

    /// A cohort that is not open to others, because it fetches its first page.
    pub fn fetching(&mut self, like: Likeness) -> CohortKey {
        self.insert(like, State::Fetching)
    }

    fn insert(&mut self, like: Likeness, state: State) -> CohortKey {
        self.serials += 1;
        self.table.insert(Cohort::new(self.serials, like, state))
    }

    /// Opens a cohort to others; `false` if there is another like it.
    fn admit(&mut self, key: CohortKey) -> bool {
        let Some(cohort) = self.table.get(key) else { return true };
        let hash = self.hash(&cohort.like);
        let like = |&other: &CohortKey| self.table.get(other).is_some_and(|other| other.like == cohort.like);
        if self.open.find(hash, like).is_some() {
            return false;
        }
        let (table, hasher) = (&self.table, &self.hasher);
        self.open.insert_unique(hash, key, |&key| table.get(key).map_or(0, |cohort| hasher.hash_one(&cohort.like)));
        true
    }

    /// Closes a cohort to others.
    fn close(&mut self, key: CohortKey) {
        let Some(cohort) = self.table.get(key) else { return };
        let hash = self.hash(&cohort.like);
        if let Ok(entry) = self.open.find_entry(hash, |&other| other == key) {
            entry.remove();
        }
    }

    /// The long-polls of a cohort go back to the proxy. It takes no more messages, so that others who are held meanwhile do not join it.
    pub fn send_back(&mut self, key: CohortKey) {
        self.close(key);
        self.table.get_mut(key).into_iter().for_each(|cohort| cohort.leaving = true);
    }

    /// Adds a member.
    pub fn join(&mut self, key: CohortKey, hold: HoldKey) -> Option<Membership> {
        let cohort = self.table.get_mut(key)?;
        cohort.members.push(hold);
        Some(Membership { cohort: key, index: (cohort.members.len() - 1) as u32 })
    }

    /// Removes a member. Returns the one that has moved to its index. A cohort without members is forgotten.
    pub fn leave(&mut self, place: Membership) -> Option<HoldKey> {
        let cohort = self.table.get_mut(place.cohort)?;
        cohort.members.swap_remove(place.index as usize);
        if cohort.members.is_empty() {
            self.close(place.cohort);
            let gone = self.table.remove(place.cohort);
            self.orphans.extend(gone.and_then(|cohort| cohort.fetch));
            return None;
        }
        cohort.members.get(place.index as usize).copied()
    }

    /// Requests that nobody waits for any more.
    pub fn take_orphans(&mut self) -> Vec<FetchKey> {
        std::mem::take(&mut self.orphans)
    }

    /// A number for a message that is to be judged.
    pub fn number(&mut self) -> u64 {
        self.judged += 1;
        self.judged
    }

    /// What a message is for a cohort. If it is the next one, the position moves on.
    pub fn judge(&mut self, key: CohortKey, number: u64, item: &Item) -> Verdict {
        let Some(cohort) = self.table.get_mut(key) else { return Verdict::Drop };
        if cohort.judged == number {
            return cohort.verdict;
        }
        let tracks = cohort.like.position.iter().any(|t| t.prev_id.is_some() && t.channel == item.channel);
        if !tracks || !cohort.is_open() {
            return cohort.judge(number, item).0;
        }
        // Its position may change, and with it where it is found.
        self.close(key);
        let Some(cohort) = self.table.get_mut(key) else { return Verdict::Drop };
        let (verdict, _) = cohort.judge(number, item);
        self.open_or_note(key);
        verdict
    }

    /// Whether the message with this number is to be given to the members.
    pub fn delivers(&self, key: CohortKey, number: u64) -> bool {
        self.table.get(key).is_some_and(|cohort| cohort.judged == number && cohort.verdict == Verdict::Deliver)
    }

    fn open_or_note(&mut self, key: CohortKey) {
        if !self.admit(key) {
            self.alike.push(key);
        }
    }

    /// A cohort begins to fetch.
    pub fn start_fetch(&mut self, key: CohortKey, fetch: FetchKey) {
        self.close(key);
        if let Some(cohort) = self.table.get_mut(key) {
            (cohort.state, cohort.fetch) = (State::Fetching, Some(fetch));
        }
    }

    /// A cohort holds again, after a page, with this in common. Returns how urgent it is to ask again.
    pub fn hold_again(&mut self, key: CohortKey, like: Likeness, now: Instant) -> Option<Urgency> {
        let cohort = self.table.get_mut(key)?;
        (cohort.like, cohort.page, cohort.fetch) = (like, None, None);
        let again = cohort.settle(now);
        self.open_or_note(key);
        self.watch(key);
        again
    }

    /// The members of cohorts that have come to be like another, and that other one. They are to join it, which moves them
    /// to other lists: not while a message is given out, or waits for them (`is_awaited`).
    pub fn take_alike(&mut self, is_awaited: impl Fn(CohortKey) -> bool) -> Vec<(Vec<HoldKey>, CohortKey)> {
        let mut moves = Vec::new();
        for key in std::mem::take(&mut self.alike) {
            if is_awaited(key) {
                self.alike.push(key);
                continue;
            }
            let Some(cohort) = self.table.get(key).filter(|cohort| cohort.state == State::Holding) else { continue };
            let (hash, table) = (self.hash(&cohort.like), &self.table);
            let other = self.open.find(hash, |&other| table.get(other).is_some_and(|other| other.like == cohort.like));
            match other {
                Some(&other) if other != key => moves.push((cohort.members.clone(), other)),
                Some(_) => {}
                None => drop(self.admit(key)),
            }
        }
        moves
    }

    /// Notes when a cohort has something to do.
    pub fn watch(&mut self, key: CohortKey) {
        let Some(cohort) = self.table.get_mut(key) else { return };
        if let Some(due) = cohort.next_due()
            && cohort.watched.is_none_or(|watched| due < watched)
        {
            cohort.watched = Some(due);
            self.timers.insert((key, due), due);
        }
    }

    /// The next cohort whose link is to be fetched: its time is over, or it is to be tried again.
    pub fn pop(&mut self, now: Instant) -> Option<CohortKey> {
        while let Some((key, due)) = self.timers.pop(now) {
            let Some(cohort) = self.table.get_mut(key).filter(|cohort| cohort.watched == Some(due)) else { continue };
            cohort.watched = None;
            if cohort.next_due().is_some_and(|due| due <= now) {
                if cohort.state != State::Holding || !cohort.refreshed {
                    cohort.link_at = None;
                    return Some(key);
                }
                cohort.start_link_timer(now);
            }
            self.watch(key);
        }
        None
    }

    /// When [`Cohorts::pop`] gives something.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next()
    }
}
