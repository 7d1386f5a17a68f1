//! Sockets that speak ZeroMQ's protocol over unix sockets, in the thread that uses them.
//!
//! libzmq has a thread of its own for I/O: a packet from one process to another wakes the sender's, that one the
//! receiver's, and that one the receiver. Here the sender writes to the kernel itself, once a turn for each peer, and the
//! kernel wakes the receiver: one wake-up instead of three, which was most of what a proxied request cost. Peers may be
//! libzmq's; see [`zmtp`](crate::zmtp).
//!
//! Messages come from the typed sockets, through `Core`; readiness comes from the [reactor](crate::reactor), which
//! also has what was collected in a turn written ([`Socket::flush`]).
//!
//! - [`link`]: one connection to a peer.
//! - [`outgoing`]: what waits to be written to it.
//! - [`receivers`]: which peers get a message.
//! - [`topics`]: what it has subscribed to.
//! - [`path`]: where sockets are, and their files.

mod link;
mod outgoing;
pub(crate) mod path;
mod receivers;
mod topics;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::{Interest, Registry, Token};
use slab::Slab;

use self::link::{Broken, Link, Received};
use self::path::{Listener, Location};
use self::topics::Topics;
use crate::change::{Arrival, Change};
use crate::error::{Error, SendError};
use crate::message::Message;
use crate::options::Options;
use crate::role::Role;

/// Bytes read from a peer at once.
const READ_BUFFER: usize = 64 * 1024;
/// A peer that sends on by a connection that another one has replaced is not listened to for ever.
const READS_OF_A_REPLACED_LINK: usize = 64;
/// Pause between two warnings of one socket about its peers.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);
/// Pause before accepting is tried again after the system has refused, most likely for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// Pause before an address is connected to again; it doubles up to the second value.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Slots from here on are listeners, in the numbers that the reactor reports.
const FIRST_LISTENER: usize = 1 << 20;
/// Connections to one socket at most, so that slots and listeners do not meet.
const MAX_LINKS: usize = 10_000;

/// An address that is connected to.
struct Endpoint {
    location: Location,
    /// When to try again; none while connected.
    due: Option<Instant>,
    pause: Duration,
}

/// Where readiness is reported: sources have the tokens from `base` on.
struct Watch {
    registry: Registry,
    base: usize,
}

struct Inner {
    role: Role,
    identity: Vec<u8>,
    /// Messages that may wait for one peer.
    limit: usize,
    file_mode: Option<u32>,
    listeners: Vec<Listener>,
    /// When to accept again; the system does not tell of those that wait already.
    accept_at: Option<Instant>,
    endpoints: Vec<Endpoint>,
    links: Slab<Link>,
    by_identity: HashMap<Bytes, usize>,
    /// What we subscribe to (SUB), or what all peers together do (XPUB).
    topics: Topics,
    /// Whose turn it is to get a message, and to be read from.
    next_to_send: usize,
    next_to_read: usize,
    inbox: VecDeque<Arrival>,
    /// Messages of peers that went away before they took them, encoded, for the next peer.
    returned: VecDeque<Vec<u8>>,
    dirty: Vec<usize>,
    watch: Option<Watch>,
    buffer: Vec<u8>,
    names: u32,
    /// Where the socket is, for messages to people: the last address it was bound or connected to.
    address: String,
    complained: Option<Instant>,
}

/// A socket of any type; see the module.
pub(crate) struct Socket(RefCell<Inner>);

impl Socket {
    pub(crate) fn new(role: Role, options: &Options) -> Self {
        Socket(RefCell::new(Inner {
            role,
            identity: options.identity.clone().unwrap_or_default(),
            // A peer that is addressed by name has a queue of its own; otherwise what a peer has no room for can go to
            // another, and waits in the backlog that they share.
            limit: options.high_water_mark.max(1) as usize + if role.takes_turns() { 0 } else { options.backlog },
            file_mode: options.file_mode,
            listeners: Vec::new(),
            accept_at: None,
            endpoints: Vec::new(),
            links: Slab::new(),
            by_identity: HashMap::new(),
            topics: Topics::default(),
            next_to_send: 0,
            next_to_read: 0,
            inbox: VecDeque::new(),
            returned: VecDeque::new(),
            dirty: Vec::new(),
            watch: None,
            buffer: Vec::new(),
            names: 0,
            address: String::new(),
            complained: None,
        }))
    }

    pub(crate) fn bind(&self, spec: &str) -> Result<(), Error> {
        let fail = |e: io::Error| Error::Bind { spec: spec.to_string(), reason: e.to_string() };
        let inner = &mut *self.0.borrow_mut();
        let location = Location::parse(spec).map_err(fail)?;
        let mut listener = Listener::bind(&location, inner.file_mode).map_err(fail)?;
        if let Some(watch) = &inner.watch {
            watch.listen(&mut listener, inner.listeners.len()).map_err(fail)?;
        }
        inner.listeners.push(listener);
        inner.address = spec.to_string();
        Ok(())
    }

    pub(crate) fn connect(&self, spec: &str) -> Result<(), Error> {
        let fail = |e: io::Error| Error::Connect { spec: spec.to_string(), reason: e.to_string() };
        let location = Location::parse(spec).map_err(fail)?;
        let inner = &mut *self.0.borrow_mut();
        inner.address = spec.to_string();
        inner.endpoints.push(Endpoint { location, due: None, pause: RECONNECT.0 });
        inner.try_endpoint(inner.endpoints.len() - 1, Instant::now());
        Ok(())
    }

    /// Reports readiness to a reactor from now on, under tokens from `base` on.
    pub(crate) fn attach(&self, registry: Registry, base: usize) -> io::Result<()> {
        let inner = &mut *self.0.borrow_mut();
        let watch = Watch { registry, base };
        for (i, listener) in inner.listeners.iter_mut().enumerate() {
            watch.listen(listener, i)?;
        }
        for (slot, link) in &mut inner.links {
            watch.link(link, slot)?;
        }
        inner.watch = Some(watch);
        Ok(())
    }

    /// Sends a message; `false` if no peer has room for it now.
    pub(crate) fn try_send(&self, parts: &[&[u8]]) -> Result<bool, SendError> {
        let inner = &mut *self.0.borrow_mut();
        match inner.role {
            Role::Push | Role::Dealer => Ok(inner.send_in_turn(parts)),
            Role::Router => match parts {
                [to, rest @ ..] => inner.send_to(to, rest),
                [] => Err(SendError::Unreachable),
            },
            Role::Pub | Role::Xpub => inner.publish(parts),
            Role::Pull | Role::Sub => Err(SendError::Unreachable),
        }
    }

    /// What has arrived next, if there is anything.
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        let inner = &mut *self.0.borrow_mut();
        while inner.inbox.is_empty() {
            let slot = inner.next_readable()?;
            inner.read(slot);
        }
        inner.inbox.pop_front()
    }

    pub(crate) fn subscribe(&self, topic: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        if inner.topics.add(topic) {
            inner.tell_topic(topic, 1);
        }
    }

    pub(crate) fn unsubscribe(&self, topic: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        if inner.topics.remove(topic) {
            inner.tell_topic(topic, 0);
        }
    }

    /// Whether a peer has room for a message.
    pub(crate) fn writable(&self) -> bool {
        let inner = self.0.borrow();
        inner.returned.is_empty() && inner.links.iter().any(|(_, link)| link.has_room(inner.limit))
    }

    /// Whether there is something to receive, perhaps.
    pub(crate) fn readable(&self) -> bool {
        let inner = self.0.borrow();
        !inner.inbox.is_empty()
            || inner.role.receives() && inner.links.iter().any(|(_, link)| link.ready && link.readable)
    }

    /// Messages that peers have not taken so far.
    pub(crate) fn held_up(&self) -> usize {
        let inner = self.0.borrow();
        inner.returned.len() + inner.links.iter().map(|(_, link)| link.held_up()).sum::<usize>()
    }

    /// Messages that have not left, for whatever reason.
    pub(crate) fn queued(&self) -> usize {
        let inner = self.0.borrow();
        inner.returned.len() + inner.links.iter().map(|(_, link)| link.queued()).sum::<usize>()
    }

    /// Readiness of a source: `slot` is its token less the base.
    pub(crate) fn on_ready(&self, slot: usize, readable: bool, writable: bool, ended: bool) {
        let inner = &mut *self.0.borrow_mut();
        if slot >= FIRST_LISTENER {
            return inner.accept(slot - FIRST_LISTENER);
        }
        let Some(link) = inner.links.get_mut(slot) else { return };
        link.readable |= readable;
        link.ended |= ended;
        if writable {
            link.on_writable();
        }
        // What is for the owner is read when it asks; the rest is for us.
        while let Some(link) = inner.links.get(slot)
            && link.readable
            && !(link.ready && inner.role.receives())
        {
            inner.read(slot);
        }
        inner.send_returned();
    }

    /// Writes what was collected, and connects where it is time to.
    pub(crate) fn flush(&self, now: Instant) {
        let inner = &mut *self.0.borrow_mut();
        for i in 0..inner.endpoints.len() {
            if inner.endpoints[i].due.is_some_and(|due| due <= now) {
                inner.try_endpoint(i, now);
            }
        }
        if inner.accept_at.take_if(|at| *at <= now).is_some() {
            (0..inner.listeners.len()).for_each(|listener| inner.accept(listener));
        }
        for slot in std::mem::take(&mut inner.dirty) {
            let Some(link) = inner.links.get_mut(slot) else { continue };
            link.dirty = false;
            link.write();
        }
    }

    /// When [`Socket::flush`] has something to do again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let inner = self.0.borrow();
        inner.endpoints.iter().filter_map(|endpoint| endpoint.due).chain(inner.accept_at).min()
    }
}

impl Watch {
    fn listen(&self, listener: &mut Listener, number: usize) -> io::Result<()> {
        let token = Token(self.base + FIRST_LISTENER + number);
        self.registry.register(&mut listener.socket, token, Interest::READABLE)
    }

    fn link(&self, link: &mut Link, slot: usize) -> io::Result<()> {
        self.registry.register(&mut link.stream, Token(self.base + slot), Interest::READABLE | Interest::WRITABLE)
    }
}

impl Inner {
    fn try_endpoint(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        match endpoint.location.connect() {
            Ok(stream) => {
                endpoint.due = None;
                self.admit(stream, Some(index));
            }
            Err(_) => self.retry_endpoint(index, now),
        }
    }

    fn retry_endpoint(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        endpoint.due = Some(now + endpoint.pause);
        endpoint.pause = (endpoint.pause * 2).min(RECONNECT.1);
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let Some(Listener { socket, .. }) = self.listeners.get(listener) else { return };
            match socket.accept() {
                Ok((stream, _)) if self.links.len() < MAX_LINKS => self.admit(stream, None),
                Ok(_) => tracing::warn!("a ZeroMQ peer is refused: {MAX_LINKS} are connected already"),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.accept_at = Some(Instant::now() + ACCEPT_AGAIN);
                    return tracing::warn!("unable to accept a ZeroMQ peer: {e}; raise the limit of open files");
                }
            }
        }
    }

    fn admit(&mut self, stream: mio::net::UnixStream, endpoint: Option<usize>) {
        // As libzmq calls its peers that have no name: a zero and a number.
        self.names = self.names.wrapping_add(1);
        let name = [&[0][..], &self.names.to_be_bytes()].concat();
        let mut link = Link::new(stream, self.role, &self.identity, name.into(), endpoint);
        let slot = self.links.vacant_key();
        if let Some(Err(error)) = self.watch.as_ref().map(|watch| watch.link(&mut link, slot)) {
            return tracing::warn!("a ZeroMQ peer can not be watched: {error}");
        }
        self.links.insert(link);
        self.dirty.push(slot);
    }

    /// The next link with something to read for the owner, each in its turn.
    fn next_readable(&mut self) -> Option<usize> {
        let slot = next_in_turn(&self.links, self.next_to_read, |link| link.ready && link.readable)?;
        self.next_to_read = slot + 1;
        Some(slot)
    }

    fn read(&mut self, slot: usize) {
        let Some(link) = self.links.get_mut(slot) else { return };
        self.buffer.resize(READ_BUFFER, 0);
        let (mut readied, mut topics) = (false, Vec::new());
        let inbox = &mut self.inbox;
        let result = link.read(&mut self.buffer, |received| match received {
            Received::Ready => readied = true,
            Received::Topic(topic, on) => topics.push((topic, on)),
            Received::Message(parts) => inbox.extend(parts.drain(..).map(Arrival::Part)),
        });
        if readied {
            self.welcome(slot);
        }
        for (topic, on) in topics {
            self.note_topic(&topic, on);
        }
        if let Err(reason) = result {
            self.lose(slot, &reason);
        }
    }

    /// The handshake of a link is done.
    fn welcome(&mut self, slot: usize) {
        let Some(link) = self.links.get_mut(slot) else { return };
        if let Some(endpoint) = link.endpoint {
            self.endpoints[endpoint].pause = RECONNECT.0;
        }
        match self.role {
            Role::Sub => {
                self.topics.iter().for_each(|topic| link.push(&[&subscription(topic, 1)]));
                self.mark_dirty(slot);
            }
            Role::Router => {
                let name = link.identity.clone();
                // One that comes back under its name before its old connection was noticed dead takes its place.
                if let Some(old) = self.by_identity.insert(name.clone(), slot).filter(|&old| old != slot) {
                    self.replace(old);
                }
                self.inbox.push_back(Arrival::Change(Change::Joined(name)));
            }
            Role::Push | Role::Dealer => self.send_returned(),
            _ => {}
        }
    }

    /// Ends a link whose name another one has taken, after what the peer sent by it has been read.
    fn replace(&mut self, slot: usize) {
        // What it sent last may not have been reported yet.
        if let Some(link) = self.links.get_mut(slot) {
            link.readable = true;
        }
        for _ in 0..READS_OF_A_REPLACED_LINK {
            if !self.links.get(slot).is_some_and(|link| link.readable) {
                break;
            }
            self.read(slot);
        }
        self.lose(slot, &Broken::Replaced);
    }

    /// Closes a link, and connects again later if it was ours to connect.
    fn lose(&mut self, slot: usize, reason: &Broken) {
        let Some(mut link) = self.links.try_remove(slot) else { return };
        match reason {
            Broken::Violation(violation) if self.may_complain() => {
                tracing::warn!("a ZeroMQ peer of the socket {} is disconnected: {violation}", self.address);
            }
            _ => tracing::debug!("a ZeroMQ connection ended: {reason}"),
        }
        if let Some(watch) = &self.watch {
            // Closing the descriptor would do as well.
            let _ = watch.registry.deregister(&mut link.stream);
        }
        if self.by_identity.get(&link.identity[..]) == Some(&slot) {
            self.by_identity.remove(&link.identity[..]);
        }
        if self.role == Role::Router && link.ready {
            let left = Change::Left(link.identity.clone(), reason.into());
            self.inbox.push_back(Arrival::Change(left));
        }
        if self.role.takes_turns() {
            self.returned.extend(link.untouched().map(<[u8]>::to_vec));
        }
        if self.role.publishes() {
            let topics: Vec<Vec<u8>> = link.topics.iter().map(<[u8]>::to_vec).collect();
            topics.iter().for_each(|topic| self.note_topic(topic, false));
        }
        if let Some(endpoint) = link.endpoint {
            self.retry_endpoint(endpoint, Instant::now());
        }
    }

    /// Once in a while: such a peer comes back at once and fails again.
    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let may = self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_AGAIN);
        if may {
            self.complained = Some(now);
        }
        may
    }

    /// A peer subscribes or unsubscribes; the owner of an XPUB socket is told if it is the first or the last.
    fn note_topic(&mut self, topic: &[u8], on: bool) {
        let changed = if on { self.topics.add(topic) } else { self.topics.remove(topic) };
        if changed && self.role == Role::Xpub {
            self.inbox.push_back(Arrival::Part(Message::new(subscription(topic, u8::from(on)).into(), false)));
        }
    }

    /// Tells all publishers of a subscription (1) or its end (0).
    fn tell_topic(&mut self, topic: &[u8], flag: u8) {
        let ready: Vec<usize> = self.links.iter().filter(|(_, link)| link.ready).map(|(slot, _)| slot).collect();
        for slot in ready {
            self.push(slot, &[&subscription(topic, flag)]);
        }
    }
}

/// The first link from slot `from` on, and then from the beginning, that `fits`.
fn next_in_turn(links: &Slab<Link>, from: usize, fits: impl Fn(&Link) -> bool) -> Option<usize> {
    let mut fitting = links.iter().filter(|(_, link)| fits(link)).map(|(slot, _)| slot);
    let first = fitting.next()?;
    if first >= from { Some(first) } else { fitting.find(|slot| *slot >= from).or(Some(first)) }
}

/// The message that subscribes (1) or unsubscribes (0).
fn subscription(topic: &[u8], flag: u8) -> Vec<u8> {
    [&[flag], topic].concat()
}
