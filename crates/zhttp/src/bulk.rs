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

/// Sessions that await a packet in common, by peer and by `K`.
pub struct Bulk<K> {
    groups: HashMap<(PeerId, K), Vec<(Id, u32)>, RandomState>,
}

impl<K: Eq + Hash + Copy> Default for Bulk<K> {
    fn default() -> Self {
        Bulk { groups: HashMap::default() }
    }
}

impl<K: Eq + Hash + Copy> Bulk<K> {
    /// Adds a session, with the number its packet has. Numbers are taken when a session is added, so everything added
    /// must be sent by [`Bulk::drain`] before anything else is sent for the session.
    pub fn push(&mut self, peer: PeerId, key: K, id: Id, seq: u32) {
        self.groups.entry((peer, key)).or_default().push((id, seq));
    }

    /// As [`Bulk::push`], and gives out the session's group as soon as it fills a packet, so that the peer can begin with
    /// the first of many sessions while the others are still collected.
    pub fn push_or_send(&mut self, peer: PeerId, key: K, id: Id, seq: u32, send: impl FnOnce(PeerId, K, Ids<'_>)) {
        let sessions = self.groups.entry((peer, key)).or_default();
        sessions.push((id, seq));
        if sessions.len() == MAX_IDS {
            send_group(peer, key, sessions, send);
            sessions.clear();
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.groups.values().all(Vec::is_empty)
    }

    /// Gives out everything in groups of at most 128 sessions.
    pub fn drain(&mut self, mut send: impl FnMut(PeerId, K, Ids<'_>)) {
        self.groups.retain(|(peer, key), sessions| {
            for group in sessions.chunks(MAX_IDS) {
                send_group(*peer, *key, group, &mut send);
            }
            // A group that was used is likely to be used again; one that was not since the last time is let go.
            let used = !sessions.is_empty();
            sessions.clear();
            used
        });
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
