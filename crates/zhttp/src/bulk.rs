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

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.groups.values().all(Vec::is_empty)
    }

    /// Gives out everything in groups of at most 128 sessions.
    pub fn drain(&mut self, mut send: impl FnMut(PeerId, K, Ids<'_>)) {
        self.groups.retain(|(peer, key), sessions| {
            for chunk in sessions.chunks(MAX_IDS) {
                if let [(id, seq)] = chunk {
                    send(*peer, *key, Ids::One(id.as_bytes(), Some(*seq)));
                    continue;
                }
                let ids: Vec<(&[u8], u32)> = chunk.iter().map(|(id, seq)| (id.as_bytes(), *seq)).collect();
                send(*peer, *key, Ids::Many(&ids));
            }
            // A group that was used is likely to be used again; one that was not since the last time is let go.
            let used = !sessions.is_empty();
            sessions.clear();
            used
        });
    }
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
}
