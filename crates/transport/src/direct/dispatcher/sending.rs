// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sending: who gets a message, and what waits for room.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{Read, Write};

use bytes::Bytes;

use super::Dispatcher;
use crate::counters::Load;
use crate::error::{SendError, Taken};
use crate::role::Role;

impl<S: Read + Write> Dispatcher<S> {
    /// Sends a message: to the next peer in turn, to all that want it, or to the one that the first part names, if it is
    /// there.
    pub(in crate::direct) fn send(&mut self, parts: &[&[u8]]) -> Result<Taken, SendError> {
        match (self.role, parts) {
            (Role::Push | Role::Dealer, _) => self.send_in_turn(parts),
            (Role::Pub, [first, ..]) => {
                self.publish(first, None, parts);
                Ok(Taken::More)
            }
            (Role::Router, [to, rest @ ..]) => match self.names.get(*to) {
                Some(&slot) => self.push_bounded(slot, to, rest),
                None => self.refuse(SendError::Unreachable),
            },
            _ => self.refuse(SendError::Unreachable),
        }
    }

    /// Sends a message to the peer of a name, or keeps it for a while if that is not there. A subscriber is named by what
    /// it has subscribed to, with which the message begins.
    pub(in crate::direct) fn send_to(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        match self.role {
            Role::Router => match self.names.get(name) {
                Some(&slot) => self.push_bounded(slot, name, parts),
                None => self.keep(name, parts),
            },
            Role::Xpub => self.publish_to(name, parts),
            _ => self.refuse(SendError::Unreachable),
        }
    }

    pub(super) fn refuse(&mut self, error: SendError) -> Result<Taken, SendError> {
        self.counters.refused += 1;
        Err(error)
    }

    /// Keeps a message for a peer that is not there.
    pub(super) fn keep(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        match self.absent.push(name, parts) {
            true => Ok(Taken::More),
            false => self.refuse(SendError::Unreachable),
        }
    }

    pub(super) fn has_room(&self, slot: usize) -> bool {
        self.peers.get(slot).is_some_and(|peer| {
            let queued = peer.link.queued();
            peer.link.is_open() && queued.messages < self.messages && queued.bytes < self.options.peer_bytes
        })
    }

    /// Gives a message to a peer; it leaves at the end of the turn.
    pub(super) fn push(&mut self, slot: usize, parts: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.link.push(parts);
        self.counters.sent += 1;
        self.will_write(slot);
        self.count(slot);
    }

    pub(super) fn push_bounded(&mut self, slot: usize, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        if !self.has_room(slot) {
            self.note_full(slot, name);
            return self.refuse(SendError::Full);
        }
        self.push(slot, parts);
        if self.has_room(slot) {
            return Ok(Taken::More);
        }
        self.note_full(slot, name);
        Ok(Taken::Full)
    }

    /// The sender of messages to this name is to be told when there is room again.
    pub(super) fn note_full(&mut self, slot: usize, name: &[u8]) {
        if let Some(peer) = self.peers.get_mut(slot)
            && !peer.refused.iter().any(|refused| refused == name)
        {
            peer.refused.push(Bytes::copy_from_slice(name));
        }
    }

    /// Gives a message to the subscriber of a name, and to those who listen in.
    pub(super) fn publish_to(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        targets.extend_from_slice(self.subscribers.exact(name));
        let result = if targets.is_empty() {
            self.keep(name, parts)
        } else {
            // All or none of its connections.
            match targets.iter().find(|slot| !self.has_room(**slot)) {
                Some(&full) => {
                    self.note_full(full, name);
                    self.refuse(SendError::Full)
                }
                None => {
                    targets.iter().try_fold(Taken::More, |all, slot| match self.push_bounded(*slot, name, parts)? {
                        Taken::More => Ok(all),
                        Taken::Full => Ok(Taken::Full),
                    })
                }
            }
        };
        if result.is_ok() {
            let message = parts.first().copied().unwrap_or_default();
            self.subscribers.matching(message, Some(name.len()), &mut targets);
            for slot in &targets {
                if !self.subscribers.exact(name).contains(slot) && self.has_room(*slot) {
                    self.push(*slot, parts);
                }
            }
        }
        self.targets = targets;
        result
    }

    /// Gives a message to all that want it, but for beginnings of length `but`, and that have room.
    pub(super) fn publish(&mut self, message: &[u8], but: Option<usize>, parts: &[&[u8]]) {
        let mut targets = std::mem::take(&mut self.targets);
        self.subscribers.matching(message, but, &mut targets);
        for slot in &targets {
            if self.has_room(*slot) {
                self.push(*slot, parts);
            } else {
                self.counters.refused += 1;
            }
        }
        self.targets = targets;
    }

    /// Puts a peer that can get messages at the end of the line. One that is held up stays out of it until it takes what
    /// it has: messages that any peer can take do not wait for it.
    pub(super) fn take_turn(&mut self, slot: usize) {
        if !self.role.takes_turns() || !self.can_take(slot) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(slot)
            && !std::mem::replace(&mut peer.in_turns, true)
        {
            self.turns.push_back(slot);
        }
    }

    pub(super) fn can_take(&self, slot: usize) -> bool {
        self.has_room(slot) && self.peers.get(slot).is_some_and(|peer| !peer.link.is_held_up())
    }

    /// Whose turn it is.
    pub(super) fn next_in_turn(&mut self) -> Option<usize> {
        loop {
            let slot = self.turns.pop_front()?;
            if self.can_take(slot) {
                self.turns.push_back(slot);
                return Some(slot);
            }
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.in_turns = false;
            }
        }
    }

    pub(super) fn send_in_turn(&mut self, parts: &[&[u8]]) -> Result<Taken, SendError> {
        if self.unsent.is_empty()
            && let Some(slot) = self.next_in_turn()
        {
            self.push(slot, parts);
            return Ok(Taken::More);
        }
        if !self.keeps_more() {
            return self.refuse(SendError::Full);
        }
        self.unsent.push(parts);
        Ok(if self.keeps_more() { Taken::More } else { Taken::Full })
    }

    /// Whether another message may wait for the next peer with room.
    pub(super) fn keeps_more(&self) -> bool {
        let Load { messages, bytes } = self.unsent.load();
        messages < self.options.backlog && bytes < self.options.peer_bytes
    }

    /// Gives what waits for any peer to those with room.
    pub(super) fn send_unsent(&mut self) {
        while !self.unsent.is_empty()
            && let Some(slot) = self.next_in_turn()
        {
            if let (Some(message), Some(peer)) = (self.unsent.first(), self.peers.get_mut(slot)) {
                peer.link.push_encoded(message);
                self.counters.sent += 1;
            }
            self.unsent.remove_first();
            self.will_write(slot);
            self.count(slot);
        }
    }
}
