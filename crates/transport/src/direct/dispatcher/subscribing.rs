// SPDX-License-Identifier: AGPL-3.0-or-later
//! Subscriptions: ours at all publishers, and those of our peers.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{Read, Write};

use bytes::Bytes;

use super::Dispatcher;
use crate::change::{Arrival, Change, Reason};
use crate::role::Role;

impl<S: Read + Write> Dispatcher<S> {
    pub(in crate::direct) fn subscribe(&mut self, topic: &[u8]) {
        if self.topics.add(topic).is_some() {
            self.tell_topic(topic, 1);
        }
    }

    pub(in crate::direct) fn unsubscribe(&mut self, topic: &[u8]) {
        if self.topics.remove(topic).is_some() {
            self.tell_topic(topic, 0);
        }
    }

    /// Tells all publishers of a subscription (1) or its end (0).
    pub(super) fn tell_topic(&mut self, topic: &[u8], flag: u8) {
        let ready: Vec<usize> = self.peers.iter().filter(|(_, peer)| peer.link.ready).map(|(slot, _)| slot).collect();
        for slot in ready {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            peer.link.push(&[&subscription(topic, flag)]);
            self.will_write(slot);
            self.count(slot);
        }
    }

    /// A peer subscribes or unsubscribes; the owner of an XPUB socket is told if it is the first or the last.
    pub(super) fn note_topic(&mut self, slot: usize, topic: &Bytes, on: bool, reason: Reason) {
        let changed = match on {
            true => self.subscribers.add(topic.clone(), slot),
            false => self.subscribers.remove(topic, slot),
        };
        if self.role != Role::Xpub {
            return;
        }
        if changed {
            let topic = topic.clone();
            let change = if on { Change::Joined(topic) } else { Change::Left(topic, reason) };
            self.inbox.push_back(Arrival::Change(change));
        }
        if on {
            self.release(topic, slot);
        }
    }
}

/// The message that subscribes (1) or unsubscribes (0).
pub(super) fn subscription(topic: &[u8], flag: u8) -> Vec<u8> {
    [&[flag], topic].concat()
}
