// SPDX-License-Identifier: AGPL-3.0-or-later
//! One packet for many sessions (ZHTTP, multi-id packets).
//!
//! Keep-alives, credits, cancels and the bytes of a fan-out are the same for many sessions of one peer. A [`Bulk`]
//! collects sessions under whatever makes their packets equal (the peer, and for instance the amount of credits), and
//! gives them out in groups that fit a packet.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::id::{Id, PeerId};
use crate::{Ids, MAX_IDS};

/// So many groups are looked through; beyond, an index is kept.
const FEW: usize = 16;
/// The end of the order.
const NONE: usize = usize::MAX;

/// Sessions that await a packet in common, by peer and by `K`. Groups leave in the order of their first sessions.
pub struct Bulk<K> {
    groups: Vec<Group<K>>,
    /// Where a group stands in `groups`. Empty while there are few.
    places: HashMap<(PeerId, K), usize, RandomState>,
    /// The first and the last of the groups in use, in the order in which they leave.
    first: usize,
    last: usize,
    /// How many are in use.
    used: usize,
    /// The group that was added to last: sessions often come in a row.
    recent: usize,
}

struct Group<K> {
    peer: PeerId,
    key: K,
    /// In use.
    used: bool,
    /// The one that leaves after this.
    next: usize,
    sessions: Vec<(Id, u32)>,
}

impl<K: Eq + Hash + Copy> Default for Bulk<K> {
    fn default() -> Self {
        Bulk { groups: Vec::new(), places: HashMap::default(), first: NONE, last: NONE, used: 0, recent: 0 }
    }
}

impl<K: Eq + Hash + Copy> Bulk<K> {
    /// Adds a session, with the number its packet has. Numbers are taken when a session is added, so everything added
    /// must be sent by [`Bulk::drain`] before anything else is sent for the session.
    pub fn push(&mut self, peer: PeerId, key: K, id: Id, seq: u32) {
        self.group(peer, key).sessions.push((id, seq));
    }

    /// As [`Bulk::push`], and gives out the session's group as soon as it fills a packet, so that the peer can begin with
    /// the first of many sessions while the others are still collected.
    pub fn push_or_send(&mut self, peer: PeerId, key: K, id: Id, seq: u32, send: impl FnOnce(PeerId, K, Ids<'_>)) {
        let sessions = &mut self.group(peer, key).sessions;
        sessions.push((id, seq));
        if sessions.len() == MAX_IDS {
            send_group(peer, key, sessions, send);
            sessions.clear();
        }
    }

    fn group(&mut self, peer: PeerId, key: K) -> &mut Group<K> {
        let is_it = |group: &Group<K>| group.peer == peer && group.key == key;
        if !self.groups.get(self.recent).is_some_and(is_it) {
            let place = match self.places.is_empty() {
                true => self.groups.iter().position(is_it),
                false => self.places.get(&(peer, key)).copied(),
            };
            self.recent = place.unwrap_or_else(|| self.add(peer, key));
        }
        let group = &mut self.groups[self.recent];
        if !std::mem::replace(&mut group.used, true) {
            self.used += 1;
            match std::mem::replace(&mut self.last, self.recent) {
                NONE => self.first = self.recent,
                last => self.groups[last].next = self.recent,
            }
        }
        &mut self.groups[self.recent]
    }

    fn add(&mut self, peer: PeerId, key: K) -> usize {
        let place = self.groups.len();
        self.groups.push(Group { peer, key, used: false, next: NONE, sessions: Vec::new() });
        if place > FEW {
            self.places.insert((peer, key), place);
        } else if place == FEW {
            self.index();
        }
        place
    }

    fn index(&mut self) {
        self.places.clear();
        if self.groups.len() > FEW {
            self.places.extend(self.groups.iter().enumerate().map(|(place, group)| ((group.peer, group.key), place)));
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.used == 0 || self.groups.iter().all(|group| group.sessions.is_empty())
    }

    /// Gives out everything in groups of at most 128 sessions.
    pub fn drain(&mut self, mut send: impl FnMut(PeerId, K, Ids<'_>)) {
        // A group that was used is likely to be used again. Those that were not are let go, once they are most of all.
        let crowded = self.groups.len() > 2 * self.used;
        let mut place = self.first;
        while let Some(group) = self.groups.get_mut(place) {
            for sessions in group.sessions.chunks(MAX_IDS) {
                send_group(group.peer, group.key, sessions, &mut send);
            }
            group.sessions.clear();
            group.used = crowded;
            place = std::mem::replace(&mut group.next, NONE);
        }
        (self.first, self.last, self.used) = (NONE, NONE, 0);
        if crowded {
            self.groups.retain_mut(|group| std::mem::take(&mut group.used));
            self.index();
            self.recent = 0;
        }
    }
}

fn send_group<K>(peer: PeerId, key: K, group: &[(Id, u32)], send: impl FnOnce(PeerId, K, Ids<'_>)) {
    if let [(id, seq)] = group {
        return send(peer, key, Ids::One(id.as_bytes(), Some(*seq)));
    }
    let ids: Vec<(&[u8], u32)> = group.iter().map(|(id, seq)| (id.as_bytes(), *seq)).collect();
    send(peer, key, Ids::Many(&ids));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Peers;

    #[test]
    fn sessions_are_grouped_by_peer_and_key_and_split_at_128() {
        let mut peers = Peers::default();
        let (a, b) = (peers.intern(b"a").unwrap(), peers.intern(b"b").unwrap());
        let mut bulk = Bulk::default();
        for i in 0..300 {
            bulk.push(a, 10, Id::indexed(i, 0), i);
        }
        bulk.push(a, 20, Id::indexed(1000, 0), 7);
        bulk.push(b, 10, Id::indexed(1001, 0), 8);
        let mut sizes = Vec::new();
        bulk.drain(|peer, key, ids| sizes.push((peer, key, ids.iter().count())));
        sizes.sort();
        assert_eq!(sizes, [(a, 10, 44), (a, 10, 128), (a, 10, 128), (a, 20, 1), (b, 10, 1)]);
        assert!(bulk.is_empty());
        bulk.drain(|_, _, _| panic!("nothing is left"));
    }

    #[test]
    fn groups_leave_in_the_order_of_their_first_sessions_time_and_again() {
        let mut peers = Peers::default();
        let peers: Vec<PeerId> = (0..50).map(|i| peers.intern(format!("{i}").as_bytes()).unwrap()).collect();
        let mut bulk = Bulk::default();
        for order in [(0..50).collect(), vec![9, 3, 7], vec![3, 9], vec![], vec![40, 3, 9, 41], (0..50).rev().collect()]
        {
            for &i in order.iter().chain(&order) {
                bulk.push(peers[i], i % 3, Id::indexed(i as u32, 0), 0);
            }
            assert_eq!(bulk.is_empty(), order.is_empty());
            let mut sent = Vec::new();
            bulk.drain(|peer, key, ids| sent.push((peer, key, ids.iter().count())));
            assert_eq!(sent, order.iter().map(|&i| (peers[i], i % 3, 2)).collect::<Vec<_>>());
        }
        // What is not used is not kept for life.
        bulk.push(peers[0], 0, Id::indexed(0, 0), 0);
        bulk.drain(|_, _, _| {});
        assert_eq!(bulk.groups.len(), 1);
    }

    #[test]
    fn a_group_that_fills_a_packet_is_given_out_at_once() {
        let mut peers = Peers::default();
        let a = peers.intern(b"a").unwrap();
        let (mut bulk, mut sent) = (Bulk::default(), Vec::new());
        for i in 0..200 {
            bulk.push_or_send(a, (), Id::indexed(i, 0), i, |_, (), ids| sent.push((i, ids.iter().count())));
        }
        assert_eq!(sent, [(127, 128)]);
        bulk.drain(|_, (), ids| sent.push((200, ids.iter().count())));
        assert_eq!(sent, [(127, 128), (200, 72)]);
    }
}
