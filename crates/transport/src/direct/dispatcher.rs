// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who gets a message and whose turn it is to be read: the links of a socket, without listeners, clock or log.
//!
//! Messages come from the typed sockets and readiness from the reactor, both through [`Socket`](super::Socket). Each link
//! has a queue of its own; what one peer does not take is in nobody's way. A link that takes nothing is broken off after
//! a while. Nothing here looks at all links: those with something to do are in lists.
//!
//! Time is told with [`Dispatcher::flush`] only, once a turn; what happens between is dated then.
//!
//! Here is who is there and what is asked about them; `sending`, `receiving`, `subscribing` and `turn` are the rest;
//! `moving` takes all of it to another process.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod moving;
mod receiving;
mod sending;
mod subscribing;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use self::subscribing::subscription;
use super::link::{Broken, Link};
use super::outgoing::Outgoing;
use super::subscribers::Subscribers;
use super::topics::Topics;
use crate::change::{Arrival, Change, Reason};
use crate::counters::{Counters, Load};
use crate::options::Options;
use crate::role::Role;
use crate::waiting::{self, Waiting};

/// Bytes read from a peer at once.
const READ_BUFFER: usize = 64 * 1024;
/// Reads in a row from a peer whose messages are not for the owner, or that is to be left.
const READS_IN_A_ROW: usize = 16;
/// Peers that may be connected without having said who they are.
const MAX_HANDSHAKES: usize = 256;
/// Rounds of a flush; peers that take all at once get more in the next turn.
const ROUNDS: usize = 16;
/// How many messages of the greatest size all peers together may have begun to send.
const MAX_BEGUN: usize = 4;
/// Messages that wait for one absent peer.
const MAX_ABSENT: usize = 1000;

/// A link that has ended, for whoever opened it.
pub(super) struct Ended<S> {
    pub(super) stream: S,
    pub(super) endpoint: Option<usize>,
    /// The handshake had been done.
    pub(super) ready: bool,
    /// What the peer is called, for people.
    pub(super) name: Bytes,
    pub(super) broken: Broken,
}

struct Peer<S> {
    link: Link<S>,
    endpoint: Option<usize>,
    /// Which in the order of arrival.
    serial: u32,
    /// In which of the lists of the dispatcher it is.
    in_reads: bool,
    in_writes: bool,
    in_turns: bool,
    in_watches: bool,
    /// Room for more is reported.
    watched: bool,
    /// Under which names messages to it have been refused, or would be.
    refused: Vec<Bytes>,
    /// Its part in the load of all, and in the bytes of messages that have been begun.
    counted: Load,
    begun: usize,
    /// Since when it has taken nothing though it should.
    held_up_since: Option<Instant>,
    /// Its entry in the deadlines.
    due: Option<Instant>,
}

/// All links of one socket.
pub(super) struct Dispatcher<S> {
    role: Role,
    identity: Vec<u8>,
    options: Options,
    /// Messages that may wait for one peer.
    messages: usize,
    peers: Slab<Peer<S>>,
    serial: u32,
    /// Those that have not said who they are, in the order of arrival.
    handshakes: BTreeMap<u32, usize>,
    names: HashMap<Bytes, usize>,
    subscribers: Subscribers,
    /// What we subscribe to.
    topics: Topics,
    /// Those that can get a message, in their turns.
    turns: VecDeque<usize>,
    /// Those with something to read, in their turns.
    reads: VecDeque<usize>,
    /// Those with something to write.
    writes: Vec<usize>,
    /// Those of which other events are to be reported than before.
    watches: Vec<usize>,
    deadlines: BTreeSet<(Instant, usize)>,
    inbox: VecDeque<Arrival>,
    /// Messages for the next peer that has room.
    unsent: Outgoing,
    /// Messages for peers that are not there.
    absent: Waiting,
    load: Load,
    /// Bytes that are kept of messages that are not complete.
    begun: usize,
    counters: Counters,
    ended: Vec<Ended<S>>,
    /// Endpoints at whose address another process listens than that of their link.
    moved: Vec<usize>,
    /// Another process listens at our address.
    gives_way: bool,
    /// Absent peers that have been waited for in vain, and with how many messages.
    given_up: Vec<(Bytes, usize)>,
    targets: Vec<usize>,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Dispatcher<S> {
    pub(super) fn new(role: Role, options: &Options) -> Self {
        let high_water_mark = options.high_water_mark.max(1) as usize;
        let patience = Duration::from_secs(if role.publishes() { 5 } else { 1 });
        let absent = waiting::Limits { messages: MAX_ABSENT, bytes: options.peer_bytes, patience };
        Dispatcher {
            role,
            identity: options.identity.clone().unwrap_or_default(),
            // A peer that is addressed by name has a queue of its own; otherwise what a peer has no room for can go to
            // another, and waits for whoever has room first.
            messages: high_water_mark + if role.takes_turns() { 0 } else { options.backlog },
            options: options.clone(),
            peers: Slab::new(),
            serial: 0,
            handshakes: BTreeMap::new(),
            names: HashMap::new(),
            subscribers: Subscribers::default(),
            topics: Topics::default(),
            turns: VecDeque::new(),
            reads: VecDeque::new(),
            writes: Vec::new(),
            watches: Vec::new(),
            deadlines: BTreeSet::new(),
            inbox: VecDeque::new(),
            unsent: Outgoing::default(),
            absent: Waiting::new(absent),
            load: Load::default(),
            begun: 0,
            counters: Counters::default(),
            ended: Vec::new(),
            moved: Vec::new(),
            gives_way: false,
            given_up: Vec::new(),
            targets: Vec::new(),
            buffer: Vec::new(),
        }
    }

    // --- peers come and go ---

    /// The slot that the next peer will have. If too many have not said who they are, the oldest of them gives way.
    pub(super) fn next_slot(&mut self) -> usize {
        if self.handshakes.len() >= MAX_HANDSHAKES
            && let Some((_, &oldest)) = self.handshakes.first_key_value()
        {
            self.lose(oldest, Broken::Crowded);
        }
        self.peers.vacant_key()
    }

    /// Whether a peer that has come by itself is let in.
    pub(super) fn has_place(&mut self) -> bool {
        let has = self.peers.len() < self.options.max_peers;
        self.counters.turned_away += u64::from(!has);
        has
    }

    /// A connection has been made, by us to an endpoint or by a peer. It gets the slot that was told.
    pub(super) fn admit(&mut self, stream: S, endpoint: Option<usize>, now: Instant) {
        self.serial = self.serial.wrapping_add(1);
        // As libzmq calls its peers that have no name: a zero and a number.
        let name = [&[0][..], &self.serial.to_be_bytes()].concat();
        let link = Link::new(stream, self.role, &self.identity, name.into(), self.options.max_message);
        let slot = self.peers.insert(Peer {
            link,
            endpoint,
            serial: self.serial,
            in_reads: false,
            in_writes: false,
            in_turns: false,
            in_watches: false,
            watched: false,
            refused: Vec::new(),
            counted: Load::default(),
            begun: 0,
            held_up_since: None,
            due: None,
        });
        self.handshakes.insert(self.serial, slot);
        self.set_due(slot, now + self.options.handshake);
        self.will_write(slot);
    }

    /// The handshake of a link is done.
    fn welcome(&mut self, slot: usize) {
        self.clear_due(slot);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.handshakes.remove(&peer.serial);
        let name = peer.link.identity.clone();
        if self.gives_way {
            self.tell_moved(slot);
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        match self.role {
            Role::Sub => {
                self.topics.iter().for_each(|topic| peer.link.push(&[&subscription(topic, 1)]));
                self.will_write(slot);
            }
            Role::Router => {
                // One that comes back under its name before its old connection was noticed dead takes its place.
                if let Some(old) = self.names.insert(name.clone(), slot) {
                    self.break_off(old, Broken::Replaced);
                }
                self.inbox.push_back(Arrival::Change(Change::Joined(name.clone())));
                self.release(&name, slot);
            }
            Role::Push | Role::Dealer => {
                if self.role == Role::Dealer {
                    self.inbox.push_back(Arrival::Change(Change::Joined(name)));
                }
                self.take_turn(slot);
                self.send_unsent();
            }
            _ => {}
        }
    }

    /// Gives a peer that has come what has waited for it.
    fn release(&mut self, name: &[u8], slot: usize) {
        for parts in self.absent.take(name) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            self.push(slot, &parts);
        }
    }

    /// Ends a link that its peer has not ended, after what the peer sent by it has been read. A peer that goes on sending
    /// is not listened to for ever.
    fn break_off(&mut self, slot: usize, broken: Broken) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.link.look_again();
        }
        for _ in 0..READS_IN_A_ROW {
            if !self.peers.get(slot).is_some_and(|peer| peer.link.is_readable()) {
                break;
            }
            self.read(slot);
        }
        self.lose(slot, broken);
    }

    fn lose(&mut self, slot: usize, broken: Broken) {
        self.clear_due(slot);
        let Some(peer) = self.peers.try_remove(slot) else { return };
        let Peer { link, endpoint, serial, in_reads, in_writes, in_turns, in_watches, counted, begun, .. } = peer;
        // The slot will be another peer's.
        if in_reads {
            self.reads.retain(|other| *other != slot);
        }
        if in_writes {
            self.writes.retain(|other| *other != slot);
        }
        if in_turns {
            self.turns.retain(|other| *other != slot);
        }
        if in_watches {
            self.watches.retain(|other| *other != slot);
        }
        self.handshakes.remove(&serial);
        self.load -= counted;
        self.begun -= begun;
        let (reason, unwritten) = (Reason::from(&broken), link.unwritten() as u64);
        self.counters.left += u64::from(link.ready);
        self.counters.stuck += u64::from(reason == Reason::Stuck);
        self.counters.expelled += u64::from(reason == Reason::Expelled);
        let mut name = link.identity.clone();
        if self.role == Role::Dealer && link.ready {
            self.inbox.push_back(Arrival::Change(Change::Left(name.clone(), reason)));
        }
        match self.role {
            Role::Push | Role::Dealer if link.untouched().next().is_some() => self.take_back(&link),
            Role::Router if link.ready => {
                self.counters.refused += unwritten;
                if self.names.get(&name) == Some(&slot) {
                    self.names.remove(&name);
                }
                self.inbox.push_back(Arrival::Change(Change::Left(name.clone(), reason)));
            }
            Role::Pub | Role::Xpub => {
                self.counters.refused += unwritten;
                for topic in link.topics() {
                    self.note_topic(slot, topic, false, reason);
                    name = topic.clone();
                }
            }
            _ => {}
        }
        self.ended.push(Ended { stream: link.stream, endpoint, ready: link.ready, name, broken });
    }

    /// Keeps what a peer had not begun to take for another one, before what came later.
    fn take_back(&mut self, link: &Link<S>) {
        let mut unsent = Outgoing::default();
        link.untouched().for_each(|message| unsent.push_encoded(message));
        self.counters.sent -= unsent.load().messages as u64;
        self.unsent.untouched().for_each(|message| unsent.push_encoded(message));
        self.unsent = unsent;
        self.send_unsent();
    }

    /// Tells all who have come that another process listens at our address.
    pub(super) fn give_way(&mut self) {
        self.gives_way = true;
        let ready = self.peers.iter().filter(|(_, peer)| peer.link.ready);
        let slots: Vec<usize> = ready.map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.tell_moved(slot));
    }

    fn tell_moved(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.endpoint.is_none()) {
            peer.link.push_moved();
            self.will_write(slot);
        }
    }

    /// Endpoints that are to be connected to again, beside the links that they have.
    pub(super) fn moved(&mut self) -> impl Iterator<Item = usize> + use<'_, S> {
        self.moved.drain(..)
    }

    /// What has ended since this was last asked.
    pub(super) fn ended(&mut self) -> impl Iterator<Item = Ended<S>> + use<'_, S> {
        self.ended.drain(..)
    }

    /// The absent peers that have been waited for in vain since this was last asked, each with how many messages.
    pub(super) fn given_up(&mut self) -> impl Iterator<Item = (Bytes, usize)> + use<'_, S> {
        self.given_up.drain(..)
    }

    /// Messages that peers do not take for now, those for absent peers included.
    pub(super) fn load(&self) -> Load {
        let mut load = self.load;
        load += self.unsent.load();
        load += self.absent.load();
        load
    }

    /// The same for the peer of one name.
    pub(super) fn load_of(&self, name: &[u8]) -> Load {
        let mut load = self.absent.load_of(name);
        let slots = match self.role {
            Role::Router => self.names.get(name).map(std::slice::from_ref),
            _ => Some(self.subscribers.exact(name)),
        };
        for slot in slots.unwrap_or_default() {
            load += self.peers.get(*slot).map_or(Load::default(), |peer| peer.link.held_up());
        }
        load
    }

    /// Messages that have not left, but for those for absent peers. Looks at all links.
    pub(super) fn queued(&self) -> usize {
        self.unsent.load().messages + self.peers.iter().map(|(_, peer)| peer.link.queued().messages).sum::<usize>()
    }

    /// Whether a peer takes a message now.
    pub(super) fn is_writable(&self) -> bool {
        self.unsent.is_empty() && self.turns.iter().any(|slot| self.can_take(*slot))
    }

    /// Whether anybody is there. Looks at all links.
    pub(super) fn has_peer(&self) -> bool {
        self.peers.iter().any(|(_, peer)| peer.link.ready)
    }

    /// Takes back what waits for any peer: none has got anything of it.
    pub(super) fn take_unsent(&mut self) -> Outgoing {
        std::mem::take(&mut self.unsent)
    }

    /// Whether the peer of a name is there.
    pub(super) fn is_present(&self, name: &[u8]) -> bool {
        self.names.contains_key(name) || !self.subscribers.exact(name).is_empty()
    }

    /// Whether anybody has subscribed to anything.
    pub(super) fn is_heard(&self) -> bool {
        !self.subscribers.is_empty()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// All streams and their slots.
    pub(super) fn streams(&mut self) -> impl Iterator<Item = (usize, &mut S)> {
        self.peers.iter_mut().map(|(slot, peer)| (slot, &mut peer.link.stream))
    }
}

#[cfg(test)]
mod tests;
