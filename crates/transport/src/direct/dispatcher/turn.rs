// SPDX-License-Identifier: AGPL-3.0-or-later
//! The turn: what was collected is written, and what takes nothing for too long is broken off.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{Read, Write};
use std::time::Instant;

use super::{Dispatcher, ROUNDS};
use crate::change::{Arrival, Change};
use crate::counters::Load;
use crate::direct::link::Broken;

impl<S: Read + Write> Dispatcher<S> {
    /// A stream is ready.
    pub(in crate::direct) fn on_ready(&mut self, slot: usize, readable: bool, writable: bool, ended: bool) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.link.on_ready(readable, writable, ended);
        if writable {
            peer.link.write();
            self.on_written(slot);
            // So that it is dated.
            self.will_write(slot);
        }
        self.serve(slot);
        self.send_unsent();
    }

    /// Writes what was collected, and breaks off what has been held up for too long.
    pub(in crate::direct) fn flush(&mut self, now: Instant) {
        if !self.role.receives() {
            for slot in std::mem::take(&mut self.reads) {
                if let Some(peer) = self.peers.get_mut(slot) {
                    peer.in_reads = false;
                    self.serve(slot);
                }
            }
        }
        for _ in 0..ROUNDS {
            for slot in std::mem::take(&mut self.writes) {
                let Some(peer) = self.peers.get_mut(slot) else { continue };
                peer.in_writes = false;
                peer.link.write();
                self.on_written(slot);
                self.date(slot, now);
            }
            self.send_unsent();
            if self.writes.is_empty() {
                break;
            }
        }
        while let Some(&(due, slot)) = self.deadlines.first()
            && due <= now
        {
            self.on_due(slot, now);
        }
        if !self.absent.is_empty() {
            let given_up = self.absent.expire(now);
            self.counters.refused += given_up.iter().map(|(_, messages)| *messages as u64).sum::<u64>();
            self.given_up.extend(given_up);
        }
    }

    /// When [`Dispatcher::flush`] has something to do again.
    pub(in crate::direct) fn next_due(&self, now: Instant) -> Option<Instant> {
        let busy = !self.writes.is_empty() || !self.role.receives() && !self.reads.is_empty();
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        [busy.then_some(now), deadline, self.absent.next_due(now)].into_iter().flatten().min()
    }

    pub(super) fn will_write(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot)
            && !std::mem::replace(&mut peer.in_writes, true)
        {
            self.writes.push(slot);
        }
    }

    /// A link has been written to, with or without success.
    pub(super) fn on_written(&mut self, slot: usize) {
        self.count(slot);
        self.take_turn(slot);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if peer.link.waits_for_room() != peer.watched && !std::mem::replace(&mut peer.in_watches, true) {
            self.watches.push(slot);
        }
        let Load { messages, bytes } = peer.link.queued();
        if messages <= self.messages / 2 && bytes <= self.options.peer_bytes / 2 {
            self.inbox.extend(peer.refused.drain(..).map(|name| Arrival::Change(Change::Room(name))));
        }
    }

    /// Has `watch` report of which streams it is to be told that they take more, where that has changed; it says whether it
    /// can. A stream that takes everything would be reported each time its peer has read something.
    pub(in crate::direct) fn watch(&mut self, mut watch: impl FnMut(usize, &mut S, bool) -> bool) {
        for slot in self.watches.drain(..) {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            peer.in_watches = false;
            let waits = peer.link.waits_for_room();
            if waits != peer.watched && watch(slot, &mut peer.link.stream, waits) {
                peer.watched = waits;
            }
        }
    }

    /// Brings a link's part in the load of all up to date.
    pub(super) fn count(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let held_up = peer.link.held_up();
        self.load -= peer.counted;
        self.load += held_up;
        peer.counted = held_up;
    }

    /// Notes since when a link takes nothing.
    pub(super) fn date(&mut self, slot: usize, now: Instant) {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.link.ready) else { return };
        if !peer.link.is_held_up() {
            peer.held_up_since = None;
            return self.clear_due(slot);
        }
        if peer.link.take_progress() || peer.held_up_since.is_none() {
            peer.held_up_since = Some(now);
        }
        if peer.due.is_none() {
            self.set_due(slot, now + self.options.stuck_after);
        }
    }

    pub(super) fn on_due(&mut self, slot: usize, now: Instant) {
        self.clear_due(slot);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if !peer.link.ready {
            return self.lose(slot, Broken::Anonymous);
        }
        let since = peer.held_up_since.unwrap_or(now);
        // It may be we who were stopped, and not the peer.
        if peer.link.try_again() {
            self.on_written(slot);
            self.date(slot, now);
        } else if now < since + self.options.stuck_after {
            self.set_due(slot, since + self.options.stuck_after);
        } else {
            let Load { messages, bytes } = peer.link.queued();
            self.break_off(slot, Broken::Stuck { messages, bytes });
        }
    }

    pub(super) fn set_due(&mut self, slot: usize, due: Instant) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.due = Some(due);
            self.deadlines.insert((due, slot));
        }
    }

    pub(super) fn clear_due(&mut self, slot: usize) {
        if let Some(due) = self.peers.get_mut(slot).and_then(|peer| peer.due.take()) {
            self.deadlines.remove(&(due, slot));
        }
    }
}
