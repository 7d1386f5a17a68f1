// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sockets of libzmq: for peers on other machines, and for those that publish and command over TCP.
//!
//! libzmq has a queue for each peer and says when it is full, and that is all it tells. What it does not take waits here,
//! in a queue of its own for each peer with a name. A peer for which nothing is taken for too long is reported as left;
//! what waits for it is given up. Its connection is libzmq's, and stays. Of a ROUTER's peers nobody tells who joins and
//! who leaves.
//!
//! - [`interface`]: names of network interfaces in addresses.
//! - [`raw`]: the only file that touches libzmq.

mod interface;
mod raw;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use limited::Limited;

pub use self::raw::Context;
use self::raw::Raw;
use crate::change::{Arrival, Change, Reason};
use crate::counters::{Counters, Load};
use crate::error::{Error, SendError, Taken};
use crate::options::Options;
use crate::role::Role;
use crate::waiting::{self, Absent, Waiting};

/// The name of the queue of messages that any peer can take.
const ANYBODY: &[u8] = b"";
/// Messages that wait for one absent peer.
const MAX_ABSENT: usize = 1000;

/// A socket of any type.
pub(crate) struct Socket {
    role: Role,
    raw: Raw,
    state: RefCell<State>,
}

/// What libzmq does not keep for us.
struct State {
    /// Messages for which libzmq has no room.
    full: Waiting,
    /// Messages for peers that are not there.
    absent: Waiting,
    /// Peers for which a message was refused, or would be.
    refused: BTreeSet<Bytes>,
    /// What the peers of an XPUB socket have subscribed to.
    topics: HashSet<Bytes>,
    inbox: VecDeque<Arrival>,
    counters: Counters,
    /// Where the socket is, for messages to people: the last address it was bound or connected to.
    address: String,
    warnings: Limited,
}

impl Socket {
    pub(crate) fn new(context: &Context, role: Role, options: &Options) -> Result<Self, Error> {
        let (bytes, seconds) = (options.peer_bytes, if role.publishes() { 5 } else { 1 });
        let full = waiting::Limits { messages: options.backlog, bytes, patience: options.stuck_after };
        let absent = waiting::Limits { messages: MAX_ABSENT, bytes, patience: Duration::from_secs(seconds) };
        let state = State {
            full: Waiting::new(full),
            absent: Waiting::new(absent),
            refused: BTreeSet::new(),
            topics: HashSet::new(),
            inbox: VecDeque::new(),
            counters: Counters::default(),
            address: String::new(),
            warnings: Limited::default(),
        };
        Ok(Socket { role, raw: Raw::new(context, role, options)?, state: RefCell::new(state) })
    }

    pub(crate) fn bind(&self, spec: &str) -> Result<(), Error> {
        self.state.borrow_mut().address = spec.to_string();
        self.raw.bind(spec)
    }

    pub(crate) fn connect(&self, spec: &str) -> Result<(), Error> {
        self.state.borrow_mut().address = spec.to_string();
        self.raw.connect(spec)
    }

    /// The descriptor that shows an edge when there is something to do.
    pub(crate) fn fd(&self) -> RawFd {
        self.raw.fd
    }

    /// Sends a message: to the next peer in turn, to all that want it, or to the one that the first part names, if it is
    /// there.
    pub(crate) fn send(&self, parts: &[&[u8]]) -> Result<Taken, SendError> {
        let state = &mut *self.state.borrow_mut();
        match (self.role, parts) {
            (Role::Router, [to, rest @ ..]) => self.send_or_wait(state, to, rest, false),
            _ => self.send_or_wait(state, ANYBODY, parts, false),
        }
    }

    /// Sends a message to the peer of a name, or keeps it for a while if that is not there. A subscriber is named by what
    /// it has subscribed to, with which the message begins.
    pub(crate) fn send_to(&self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        let state = &mut *self.state.borrow_mut();
        if self.role == Role::Xpub && !state.topics.contains(name) {
            return state.keep(name, parts);
        }
        self.send_or_wait(state, name, parts, true)
    }

    fn send_or_wait(&self, state: &mut State, name: &[u8], parts: &[&[u8]], keep: bool) -> Result<Taken, SendError> {
        if state.absent.holds(name) {
            return state.keep(name, parts);
        }
        if !state.full.holds(name) {
            match self.try_send(name, parts) {
                Ok(true) => {
                    state.counters.sent += 1;
                    return Ok(Taken::More);
                }
                Ok(false) => {}
                Err(SendError::Unreachable) if keep => return state.keep(name, parts),
                Err(error) => return state.refuse(error),
            }
        }
        if !state.full.push(name, parts) {
            state.refused.insert(Bytes::copy_from_slice(name));
            return state.refuse(SendError::Full);
        }
        if state.full.has_room(name) {
            return Ok(Taken::More);
        }
        state.refused.insert(Bytes::copy_from_slice(name));
        Ok(Taken::Full)
    }

    fn try_send(&self, name: &[u8], parts: &[&[u8]]) -> Result<bool, SendError> {
        if self.role == Role::Router { self.raw.send_to(name, parts) } else { self.raw.send(parts) }
    }

    /// What has arrived next, if there is anything.
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        loop {
            if let Some(arrival) = self.state.borrow_mut().inbox.pop_front() {
                return Some(arrival);
            }
            let part = self.raw.recv_part()?;
            if self.role != Role::Xpub {
                return Some(Arrival::Part(part));
            }
            if let Some((&flag @ (0 | 1), topic)) = part.split_first() {
                self.note_topic(Bytes::copy_from_slice(topic), flag == 1);
            }
        }
    }

    /// A peer is the first to subscribe to a topic, or was the last.
    fn note_topic(&self, topic: Bytes, on: bool) {
        let state = &mut *self.state.borrow_mut();
        if !on {
            state.topics.remove(&topic);
            state.inbox.push_back(Arrival::Change(Change::Left(topic, Reason::Closed)));
            return;
        }
        state.topics.insert(topic.clone());
        state.inbox.push_back(Arrival::Change(Change::Joined(topic.clone())));
        for parts in state.absent.take(&topic) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            // What is refused is counted.
            let _ = self.send_or_wait(state, &topic, &parts, false);
        }
    }

    /// Sends what waits, as far as libzmq takes it, and gives up what has waited too long.
    pub(crate) fn flush(&self, now: Instant) {
        let state = &mut *self.state.borrow_mut();
        if state.full.is_empty() && state.absent.is_empty() {
            return;
        }
        let sent = &mut state.counters.sent;
        let mut hand_over = |name: &[u8], parts: &[&[u8]]| {
            let taken = self.try_send(name, parts).is_ok_and(|taken| taken);
            *sent += u64::from(taken);
            taken
        };
        state.full.hand_over(&mut hand_over);
        if self.role == Role::Router {
            state.absent.hand_over(hand_over);
        }
        state.expire(self.role, now);
        state.tell_room();
    }

    /// Whether something waits of which nothing tells when it could be sent.
    pub(crate) fn is_retrying(&self) -> bool {
        let state = self.state.borrow();
        !state.full.is_empty() || self.role == Role::Router && !state.absent.is_empty()
    }

    /// Adds the warnings so far, by kind.
    pub(crate) fn add_warnings(&self, totals: &mut BTreeMap<&'static str, u64>) {
        self.state.borrow().warnings.add_to(totals);
    }

    /// When [`Socket::flush`] has something to do again, beside retrying.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.state.borrow().absent.next_due(now)
    }

    pub(crate) fn subscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.raw.subscribe(topic)
    }

    pub(crate) fn unsubscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.raw.unsubscribe(topic)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.state.borrow().full.is_empty() && self.raw.is_writable()
    }

    /// Whether there is something to receive, if the socket was used since this was last asked.
    pub(crate) fn readable_after_use(&self) -> bool {
        !self.state.borrow().inbox.is_empty() || self.raw.readable_after_use()
    }

    /// Whether the descriptor's edge means that there is something new to receive.
    pub(crate) fn readable_after_edge(&self) -> bool {
        self.raw.readable_after_edge()
    }

    /// Asks again before the thread sleeps.
    pub(crate) fn touch(&self) {
        self.raw.touch();
    }

    /// Messages that peers do not take for now, those for absent peers included.
    pub(crate) fn load(&self) -> Load {
        let state = self.state.borrow();
        let mut load = state.full.load();
        load += state.absent.load();
        load
    }

    /// Messages that peers that are there do not take for now.
    pub(crate) fn held_up(&self) -> Load {
        self.state.borrow().full.load()
    }

    /// The same for the peer of one name. What waits inside libzmq is not known.
    pub(crate) fn load_of(&self, name: &[u8]) -> Load {
        let state = self.state.borrow();
        let mut load = state.full.load_of(name);
        load += state.absent.load_of(name);
        load
    }

    /// Whether anybody may listen: libzmq does not tell.
    pub(crate) fn is_heard(&self) -> bool {
        true
    }

    /// Whether a peer has subscribed to a name.
    pub(crate) fn is_present(&self, name: &[u8]) -> bool {
        self.state.borrow().topics.contains(name)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.state.borrow().counters
    }
}

impl State {
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

    fn expire(&mut self, role: Role, now: Instant) {
        for (name, messages) in self.absent.expire(now) {
            self.counters.refused += messages as u64;
            self.warnings.warn("absent", now, Absent { address: &self.address, name: &name, messages });
        }
        // What any peer can take waits until one comes.
        if role.takes_turns() {
            return;
        }
        for (name, messages) in self.full.expire(now) {
            // What came later would leave a gap before it.
            let messages = messages + self.full.take(&name).count();
            self.counters.refused += messages as u64;
            let text = format_args!(
                "{}: {messages} messages for the ZeroMQ peer {} are lost: it takes none",
                self.address,
                name.escape_ascii()
            );
            self.warnings.warn("stuck", now, text);
            self.counters.stuck += 1;
            self.refused.remove(&name);
            self.inbox.push_back(Arrival::Change(Change::Left(name, Reason::Stuck)));
        }
    }

    fn tell_room(&mut self) {
        let (full, inbox) = (&self.full, &mut self.inbox);
        self.refused.retain(|name| {
            let room = full.has_much_room(name);
            if room {
                inbox.push_back(Arrival::Change(Change::Room(name.clone())));
            }
            !room
        });
    }
}
