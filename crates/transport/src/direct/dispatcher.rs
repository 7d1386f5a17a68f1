//! Who gets a message and whose turn it is to be read: the links of a socket, without listeners, clock or log.
//!
//! Messages come from the typed sockets and readiness from the reactor, both through [`Socket`](super::Socket). Each link
//! has a queue of its own; what one peer does not take is in nobody's way. A link that takes nothing is broken off after
//! a while. Nothing here looks at all links: those with something to do are in lists.
//!
//! Time is told with [`Dispatcher::flush`] only, once a turn; what happens between is dated then.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use super::link::{Broken, Link, Received};
use super::outgoing::Outgoing;
use super::subscribers::Subscribers;
use super::topics::Topics;
use crate::change::{Arrival, Change, Reason};
use crate::counters::{Counters, Load};
use crate::error::{SendError, Taken};
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
            deadlines: BTreeSet::new(),
            inbox: VecDeque::new(),
            unsent: Outgoing::default(),
            absent: Waiting::new(absent),
            load: Load::default(),
            begun: 0,
            counters: Counters::default(),
            ended: Vec::new(),
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
        let Peer { link, endpoint, serial, in_reads, in_writes, in_turns, counted, begun, .. } = peer;
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
        self.handshakes.remove(&serial);
        self.load -= counted;
        self.begun -= begun;
        let (reason, unwritten) = (Reason::from(&broken), link.unwritten() as u64);
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

    /// What has ended since this was last asked.
    pub(super) fn ended(&mut self) -> impl Iterator<Item = Ended<S>> + use<'_, S> {
        self.ended.drain(..)
    }

    /// The absent peers that have been waited for in vain since this was last asked, each with how many messages.
    pub(super) fn given_up(&mut self) -> impl Iterator<Item = (Bytes, usize)> + use<'_, S> {
        self.given_up.drain(..)
    }

    // --- sending ---

    /// Sends a message: to the next peer in turn, to all that want it, or to the one that the first part names, if it is
    /// there.
    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Result<Taken, SendError> {
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
    pub(super) fn send_to(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        match self.role {
            Role::Router => match self.names.get(name) {
                Some(&slot) => self.push_bounded(slot, name, parts),
                None => self.keep(name, parts),
            },
            Role::Xpub => self.publish_to(name, parts),
            _ => self.refuse(SendError::Unreachable),
        }
    }

    fn refuse(&mut self, error: SendError) -> Result<Taken, SendError> {
        self.counters.refused += 1;
        Err(error)
    }

    /// Keeps a message for a peer that is not there.
    fn keep(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        match self.absent.push(name, parts) {
            true => Ok(Taken::More),
            false => self.refuse(SendError::Unreachable),
        }
    }

    fn has_room(&self, slot: usize) -> bool {
        self.peers.get(slot).is_some_and(|peer| {
            let queued = peer.link.queued();
            peer.link.is_open() && queued.messages < self.messages && queued.bytes < self.options.peer_bytes
        })
    }

    /// Gives a message to a peer; it leaves at the end of the turn.
    fn push(&mut self, slot: usize, parts: &[&[u8]]) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.link.push(parts);
        self.counters.sent += 1;
        self.will_write(slot);
        self.count(slot);
    }

    fn push_bounded(&mut self, slot: usize, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
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
    fn note_full(&mut self, slot: usize, name: &[u8]) {
        if let Some(peer) = self.peers.get_mut(slot)
            && !peer.refused.iter().any(|refused| refused == name)
        {
            peer.refused.push(Bytes::copy_from_slice(name));
        }
    }

    /// Gives a message to the subscriber of a name, and to those who listen in.
    fn publish_to(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
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
    fn publish(&mut self, message: &[u8], but: Option<usize>, parts: &[&[u8]]) {
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
    fn take_turn(&mut self, slot: usize) {
        if !self.role.takes_turns() || !self.can_take(slot) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(slot)
            && !std::mem::replace(&mut peer.in_turns, true)
        {
            self.turns.push_back(slot);
        }
    }

    fn can_take(&self, slot: usize) -> bool {
        self.has_room(slot) && self.peers.get(slot).is_some_and(|peer| !peer.link.is_held_up())
    }

    /// Whose turn it is.
    fn next_in_turn(&mut self) -> Option<usize> {
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

    fn send_in_turn(&mut self, parts: &[&[u8]]) -> Result<Taken, SendError> {
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
    fn keeps_more(&self) -> bool {
        let Load { messages, bytes } = self.unsent.load();
        messages < self.options.backlog && bytes < self.options.peer_bytes
    }

    /// Gives what waits for any peer to those with room.
    fn send_unsent(&mut self) {
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

    // --- subscriptions ---

    pub(super) fn subscribe(&mut self, topic: &[u8]) {
        if self.topics.add(topic).is_some() {
            self.tell_topic(topic, 1);
        }
    }

    pub(super) fn unsubscribe(&mut self, topic: &[u8]) {
        if self.topics.remove(topic).is_some() {
            self.tell_topic(topic, 0);
        }
    }

    /// Tells all publishers of a subscription (1) or its end (0).
    fn tell_topic(&mut self, topic: &[u8], flag: u8) {
        let ready: Vec<usize> = self.peers.iter().filter(|(_, peer)| peer.link.ready).map(|(slot, _)| slot).collect();
        for slot in ready {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            peer.link.push(&[&subscription(topic, flag)]);
            self.will_write(slot);
            self.count(slot);
        }
    }

    /// A peer subscribes or unsubscribes; the owner of an XPUB socket is told if it is the first or the last.
    fn note_topic(&mut self, slot: usize, topic: &Bytes, on: bool, reason: Reason) {
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

    // --- receiving ---

    /// What has arrived next, if there is anything.
    pub(super) fn next_arrival(&mut self) -> Option<Arrival> {
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
    pub(super) fn is_readable(&self) -> bool {
        !self.inbox.is_empty() || self.role.receives() && !self.reads.is_empty()
    }

    fn will_read(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot)
            && peer.link.is_readable()
            && !std::mem::replace(&mut peer.in_reads, true)
        {
            self.reads.push_back(slot);
        }
    }

    fn read(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.buffer.resize(READ_BUFFER, 0);
        let (mut readied, mut topics) = (false, Vec::new());
        let inbox = &mut self.inbox;
        let result = peer.link.read(&mut self.buffer, |received| match received {
            Received::Ready => readied = true,
            Received::Topic(topic, on) => topics.push((topic, on)),
            Received::Message(parts) => inbox.extend(parts.drain(..).map(Arrival::Part)),
        });
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
    fn count_begun(&mut self, slot: usize) {
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
    fn serve(&mut self, slot: usize) {
        for _ in 0..READS_IN_A_ROW {
            let ours = |peer: &Peer<S>| !(peer.link.ready && self.role.receives());
            match self.peers.get(slot) {
                Some(peer) if peer.link.is_readable() && ours(peer) => self.read(slot),
                _ => break,
            }
        }
        self.will_read(slot);
    }

    // --- the turn ---

    /// A stream is ready.
    pub(super) fn on_ready(&mut self, slot: usize, readable: bool, writable: bool, ended: bool) {
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
    pub(super) fn flush(&mut self, now: Instant) {
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
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let busy = !self.writes.is_empty() || !self.role.receives() && !self.reads.is_empty();
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        [busy.then_some(now), deadline, self.absent.next_due(now)].into_iter().flatten().min()
    }

    fn will_write(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot)
            && !std::mem::replace(&mut peer.in_writes, true)
        {
            self.writes.push(slot);
        }
    }

    /// A link has been written to, with or without success.
    fn on_written(&mut self, slot: usize) {
        self.count(slot);
        self.take_turn(slot);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Load { messages, bytes } = peer.link.queued();
        if messages <= self.messages / 2 && bytes <= self.options.peer_bytes / 2 {
            self.inbox.extend(peer.refused.drain(..).map(|name| Arrival::Change(Change::Room(name))));
        }
    }

    /// Brings a link's part in the load of all up to date.
    fn count(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let held_up = peer.link.held_up();
        self.load -= peer.counted;
        self.load += held_up;
        peer.counted = held_up;
    }

    /// Notes since when a link takes nothing.
    fn date(&mut self, slot: usize, now: Instant) {
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

    fn on_due(&mut self, slot: usize, now: Instant) {
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

    fn set_due(&mut self, slot: usize, due: Instant) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.due = Some(due);
            self.deadlines.insert((due, slot));
        }
    }

    fn clear_due(&mut self, slot: usize) {
        if let Some(due) = self.peers.get_mut(slot).and_then(|peer| peer.due.take()) {
            self.deadlines.remove(&(due, slot));
        }
    }

    // --- questions ---

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

    /// Whether the peer of a name is there.
    pub(super) fn is_present(&self, name: &[u8]) -> bool {
        self.names.contains_key(name) || !self.subscribers.exact(name).is_empty()
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// All streams and their slots.
    pub(super) fn streams(&mut self) -> impl Iterator<Item = (usize, &mut S)> {
        self.peers.iter_mut().map(|(slot, peer)| (slot, &mut peer.link.stream))
    }
}

/// The message that subscribes (1) or unsubscribes (0).
fn subscription(topic: &[u8], flag: u8) -> Vec<u8> {
    [&[flag], topic].concat()
}

#[cfg(test)]
mod tests;
