// SPDX-License-Identifier: AGPL-3.0-or-later
//! Receiving: whose turn it is to be read.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{Read, Write};

use super::{Dispatcher, MAX_BEGUN, Peer, READ_BUFFER, READS_IN_A_ROW};
use crate::change::{Arrival, Reason};
use crate::direct::link::{Broken, Received};

impl<S: Read + Write> Dispatcher<S> {
    /// What has arrived next, if there is anything.
    pub(in crate::direct) fn next_arrival(&mut self) -> Option<Arrival> {
        loop {
            if let Some(arrival) = self.inbox.pop_front() {
                return Some(arrival);
            }
            let slot = self.reads.pop_front()?;
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.in_reads = false;
                self.read(slot);
                self.will_read(slot);
            }
        }
    }

    /// Whether there is something to receive, perhaps.
    pub(in crate::direct) fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.role.receives() && !self.reads.is_empty()
    }

    pub(super) fn will_read(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot)
            && peer.link.is_readable()
            && !std::mem::replace(&mut peer.in_reads, true)
        {
            self.reads.push_back(slot);
        }
    }

    pub(super) fn read(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.buffer.resize(READ_BUFFER, 0);
        let (mut readied, mut moved, mut topics) = (false, false, Vec::new());
        let inbox = &mut self.inbox;
        let result = peer.link.read(&mut self.buffer, |received| match received {
            Received::Ready => readied = true,
            Received::Moved => moved = true,
            Received::Topic(topic, on) => topics.push((topic, on)),
            Received::Message(parts) => inbox.extend(parts.drain(..).map(Arrival::Part)),
        });
        if moved {
            // This link goes on; the endpoint gets another one, and this one's end concerns it no more.
            self.moved.extend(peer.endpoint.take());
        }
        if peer.link.wants_to_write() {
            self.will_write(slot);
        }
        if readied {
            self.welcome(slot);
        }
        for (topic, on) in topics {
            self.note_topic(slot, &topic, on, Reason::Closed);
        }
        match result {
            Ok(()) => self.count_begun(slot),
            Err(broken) => self.lose(slot, broken),
        }
    }

    /// Bounds what peers can make us keep of messages that they do not complete: who has begun most makes room.
    pub(super) fn count_begun(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.begun = self.begun - peer.begun + peer.link.begun();
        peer.begun = peer.link.begun();
        if self.begun > MAX_BEGUN.saturating_mul(self.options.max_message)
            && let Some((slot, bytes)) =
                self.peers.iter().map(|(slot, peer)| (slot, peer.begun)).max_by_key(|most| most.1)
        {
            self.lose(slot, Broken::Hoarding { bytes });
        }
    }

    /// Reads what is not for the owner: handshakes, and all that comes to a socket that only sends.
    pub(super) fn serve(&mut self, slot: usize) {
        for _ in 0..READS_IN_A_ROW {
            let ours = |peer: &Peer<S>| !(peer.link.ready && self.role.receives());
            match self.peers.get(slot) {
                Some(peer) if peer.link.is_readable() && ours(peer) => self.read(slot),
                _ => break,
            }
        }
        self.will_read(slot);
    }
}
