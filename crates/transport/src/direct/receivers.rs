//! Which peers get a message: the next in turn, the one of a name, or those that have subscribed (ZeroMQ's socket types).

use super::{Inner, next_in_turn};
use crate::error::SendError;
use crate::role::Role;

impl Inner {
    /// Gives a message to one peer; it leaves at the end of the turn.
    pub(super) fn push(&mut self, slot: usize, parts: &[&[u8]]) {
        let Some(link) = self.links.get_mut(slot) else { return };
        link.push(parts);
        self.mark_dirty(slot);
    }

    pub(super) fn mark_dirty(&mut self, slot: usize) {
        if let Some(link) = self.links.get_mut(slot)
            && !std::mem::replace(&mut link.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// The next peer with room.
    fn next_with_room(&mut self) -> Option<usize> {
        let slot = next_in_turn(&self.links, self.next_to_send, |link| link.has_room(self.limit))?;
        self.next_to_send = slot + 1;
        Some(slot)
    }

    /// Gives a message to the next peer with room, if there is one.
    pub(super) fn send_in_turn(&mut self, parts: &[&[u8]]) -> bool {
        self.send_returned();
        if !self.returned.is_empty() {
            return false;
        }
        let Some(slot) = self.next_with_room() else { return false };
        self.push(slot, parts);
        true
    }

    /// Gives what peers have not taken to others.
    pub(super) fn send_returned(&mut self) {
        while !self.returned.is_empty()
            && let Some(slot) = self.next_with_room()
            && let Some(message) = self.returned.pop_front()
        {
            let Some(link) = self.links.get_mut(slot) else { return };
            link.push_encoded(&message);
            self.mark_dirty(slot);
        }
    }

    /// Gives a message to the peer of a name.
    pub(super) fn send_to(&mut self, to: &[u8], parts: &[&[u8]]) -> Result<bool, SendError> {
        let Some(&slot) = self.by_identity.get(to) else { return Err(SendError::Unreachable) };
        if !self.links.get(slot).is_some_and(|link| link.has_room(self.limit)) {
            return Err(SendError::Full);
        }
        self.push(slot, parts);
        Ok(true)
    }

    /// Gives a message to all that have subscribed to a beginning of it.
    pub(super) fn publish(&mut self, parts: &[&[u8]]) -> Result<bool, SendError> {
        let topic = parts.first().copied().unwrap_or_default();
        let mut result = Ok(true);
        for slot in 0..self.links.capacity() {
            let Some(link) = self.links.get(slot).filter(|link| link.ready && link.topics.matches(topic)) else {
                continue;
            };
            if link.has_room(self.limit) {
                self.push(slot, parts);
            } else if self.role == Role::Xpub {
                result = Err(SendError::Full);
            }
        }
        result
    }
}
