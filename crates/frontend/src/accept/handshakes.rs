// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whose TLS handshake goes on next. No I/O, no clock.
//!
//! A step of a handshake costs a signature, which is as much as hundreds of deliveries. So a turn has few of them: when
//! thousands of clients come at once, those that are there already are served in between.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::BTreeMap;

/// Steps of handshakes in one turn: with a key of RSA 2048 some 10 ms on one core, with ECDSA 2 ms.
pub const HANDSHAKES_A_TURN: usize = 8;

/// A client's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Clients whose handshakes can go on, in the order in which that was seen. There are never more than clients.
#[derive(Debug, Default)]
pub struct Handshakes {
    slots: BTreeMap<Place, usize>,
    next: u64,
}

impl Handshakes {
    /// Queues a client that is not queued.
    pub fn push(&mut self, slot: usize) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.slots.insert(place, slot);
        place
    }

    /// The next client.
    pub fn pop(&mut self) -> Option<usize> {
        self.slots.pop_first().map(|(_, slot)| slot)
    }

    /// A client leaves without having had its turn.
    pub fn remove(&mut self, place: Place) {
        self.slots.remove(&place);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_their_turn_in_order_and_leave_no_trace() {
        let mut handshakes = Handshakes::default();
        let places: Vec<_> = [7, 8, 9].into_iter().map(|slot| handshakes.push(slot)).collect();
        handshakes.remove(places[1]);
        assert_eq!(handshakes.pop(), Some(7));
        // The slot of one that has left may have a new client.
        handshakes.push(8);
        assert_eq!((handshakes.pop(), handshakes.pop(), handshakes.pop()), (Some(9), Some(8), None));
        assert!(handshakes.is_empty());
        handshakes.remove(places[0]);
    }
}
