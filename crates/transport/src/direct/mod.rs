// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sockets that speak ZeroMQ's protocol over unix sockets, in the thread that uses them.
//!
//! libzmq has a thread of its own for I/O: a packet from one process to another wakes the sender's, that one the
//! receiver's, and that one the receiver. Here the sender writes to the kernel itself, once a turn for each peer, and the
//! kernel wakes the receiver: one wake-up instead of three, which was most of what a proxied request cost. Peers may be
//! libzmq's; see [`zmtp`](crate::zmtp).
//!
//! In the order in which a message passes:
//! - [`address`]: where sockets are, and their files.
//! - this file: listeners and endpoints, readiness from the [reactor](crate::reactor), the log.
//! - [`dispatcher`]: which peers get a message, whose turn it is, and what becomes of a peer that takes nothing; with
//!   [`subscribers`], who wants what.
//! - [`link`]: one connection to a peer, and what it has subscribed to ([`topics`]).
//! - [`outgoing`]: what waits to be written to it.

mod address;
mod dispatcher;
mod link;
mod outgoing;
mod subscribers;
#[cfg(test)]
mod tests;
mod topics;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use limited::Limited;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

pub(crate) use self::address::is_local;
use self::address::{Listener, Location};
use self::dispatcher::{Dispatcher, Ended};
use self::link::Broken;
use crate::change::Arrival;
use crate::counters::{Counters, Load};
use crate::error::{Error, SendError, Taken};
use crate::moving::{MoveError, Packed, SocketRecord};
use crate::options::Options;
use crate::role::Role;
use crate::waiting::Absent;
use crate::zmtp::frame::Header;

/// Peers accepted at once from one listener.
const ACCEPTS_A_TURN: usize = 64;
/// Pause before accepting is tried again after the system has refused, most likely for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// Pause before an address is connected to again; it doubles up to the second value.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Slots from here on are listeners, in the numbers that the reactor reports.
const FIRST_LISTENER: usize = 1 << 20;

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

/// A socket of any type; see the module.
pub(crate) struct Socket(RefCell<Shell>);

/// What stands between the dispatcher and the system.
struct Shell {
    dispatcher: Dispatcher<UnixStream>,
    file_mode: u32,
    listeners: Vec<Listener>,
    /// When to accept again; the system does not tell of those that wait already.
    accept_at: Option<Instant>,
    endpoints: Vec<Endpoint>,
    watch: Option<Watch>,
    /// Where the socket is, for messages to people: the last address it was bound or connected to.
    address: String,
    warnings: Limited,
}

impl Socket {
    pub(crate) fn new(role: Role, options: &Options) -> Self {
        // So that slots and listeners do not meet.
        let options = Options { max_peers: options.max_peers.min(FIRST_LISTENER / 2), ..options.clone() };
        Socket(RefCell::new(Shell {
            dispatcher: Dispatcher::new(role, &options),
            file_mode: options.file_mode.unwrap_or(address::PRIVATE),
            listeners: Vec::new(),
            accept_at: None,
            endpoints: Vec::new(),
            watch: None,
            address: String::new(),
            warnings: Limited::default(),
        }))
    }

    pub(crate) fn bind(&self, spec: &str) -> Result<(), Error> {
        let fail = |e: io::Error| Error::Bind { spec: spec.to_string(), reason: e.to_string() };
        let shell = &mut *self.0.borrow_mut();
        let location = Location::parse(spec).map_err(fail)?;
        let mut listener = Listener::bind(&location, shell.file_mode).map_err(fail)?;
        if let Some(watch) = &shell.watch {
            watch.listen(&mut listener, shell.listeners.len()).map_err(fail)?;
        }
        shell.listeners.push(listener);
        shell.address = spec.to_string();
        Ok(())
    }

    pub(crate) fn connect(&self, spec: &str) -> Result<(), Error> {
        let fail = |e: io::Error| Error::Connect { spec: spec.to_string(), reason: e.to_string() };
        let location = Location::parse(spec).map_err(fail)?;
        let shell = &mut *self.0.borrow_mut();
        shell.address = spec.to_string();
        shell.endpoints.push(Endpoint { location, due: None, pause: RECONNECT.0 });
        shell.try_endpoint(shell.endpoints.len() - 1, Instant::now());
        Ok(())
    }

    /// Reports readiness to a reactor from now on, under tokens from `base` on.
    pub(crate) fn attach(&self, registry: Registry, base: usize) -> io::Result<()> {
        let shell = &mut *self.0.borrow_mut();
        let watch = Watch { registry, base };
        for (i, listener) in shell.listeners.iter_mut().enumerate() {
            watch.listen(listener, i)?;
        }
        for (slot, stream) in shell.dispatcher.streams() {
            watch.stream(stream, slot)?;
        }
        shell.watch = Some(watch);
        Ok(())
    }

    /// Sends a message to whom the socket type says, or keeps it until somebody takes it.
    pub(crate) fn send(&self, parts: &[&[u8]]) -> Result<Taken, SendError> {
        self.0.borrow_mut().dispatcher.send(parts)
    }

    /// Sends a message to the peer of a name; for one that is not there it waits a while.
    pub(crate) fn send_to(&self, name: &[u8], parts: &[&[u8]]) -> Result<Taken, SendError> {
        self.0.borrow_mut().dispatcher.send_to(name, parts)
    }

    /// What has arrived next, if there is anything.
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        self.0.borrow_mut().dispatcher.next_arrival()
    }

    pub(crate) fn subscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.0.borrow_mut().dispatcher.subscribe(topic);
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.0.borrow_mut().dispatcher.unsubscribe(topic);
        Ok(())
    }

    /// Leaves the addresses to another process, which has bound them already. Who is connected stays so, and is told to
    /// connect to that one as well.
    pub(crate) fn give_way(&self) {
        let shell = &mut *self.0.borrow_mut();
        shell.listeners.clear();
        shell.dispatcher.give_way();
    }

    /// Binds addresses again that another process has bound in the meantime.
    pub(crate) fn bind_again(&self) -> Result<(), Error> {
        let shell = &mut *self.0.borrow_mut();
        for (i, listener) in shell.listeners.iter_mut().enumerate() {
            if !listener.is_displaced() {
                continue;
            }
            let mut bind = || {
                let mut again = Listener::bind(&listener.location, shell.file_mode)?;
                if let Some(watch) = &shell.watch {
                    watch.listen(&mut again, i)?;
                }
                *listener = again;
                Ok(())
            };
            bind().map_err(|e: io::Error| Error::Bind { spec: shell.address.clone(), reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Writes everything down for another process; nothing changes here.
    pub(crate) fn pack(&self) -> Result<Packed, MoveError> {
        let system = |error: io::Error| MoveError::System(error.to_string());
        let shell = self.0.borrow();
        if !shell.endpoints.is_empty() || shell.listeners.iter().any(Listener::is_displaced) {
            return Err(MoveError::Kind);
        }
        let (mut record, streams) = shell.dispatcher.pack()?;
        record.address.clone_from(&shell.address);
        record.listeners = shell.listeners.iter().map(|listener| listener.location.text()).collect();
        let listeners = shell.listeners.iter().map(|listener| listener.socket.as_fd());
        let files = listeners.chain(streams.into_iter().map(|stream| stream.as_fd()));
        let files = files.map(|file| file.try_clone_to_owned()).collect::<io::Result<_>>().map_err(system)?;
        Ok(Packed { record: record.encode()?, files })
    }

    /// A socket as another process has packed it, who still has it: its addresses are not ours before [`Socket::claim`].
    pub(crate) fn unpack(role: Role, options: &Options, packed: Packed) -> Result<Self, MoveError> {
        let system = |error: io::Error| MoveError::System(error.to_string());
        let record = SocketRecord::decode(&packed.record)?;
        let (expected, got) = (record.listeners.len() + record.peers.len(), packed.files.len());
        if expected != got {
            return Err(MoveError::Files { expected, got });
        }
        let mut socket = Socket::new(role, options);
        let shell = socket.0.get_mut();
        shell.address.clone_from(&record.address);
        let mut files = packed.files.into_iter();
        for (location, file) in record.listeners.iter().zip(&mut files) {
            let location = Location::parse(&format!("ipc://{location}")).map_err(system)?;
            shell.listeners.push(Listener::taken_over(file, location).map_err(system)?);
        }
        let streams = files.map(std::os::unix::net::UnixStream::from).map(UnixStream::from_std);
        shell.dispatcher.unpack(record, streams)?;
        Ok(socket)
    }

    /// The addresses are ours from now on.
    pub(crate) fn claim(&self) {
        self.0.borrow_mut().listeners.iter_mut().for_each(Listener::claim);
    }

    /// Another process has addresses and links from now on.
    pub(crate) fn let_go(&self) {
        let shell = &mut *self.0.borrow_mut();
        for mut listener in shell.listeners.drain(..) {
            listener.let_go();
            if let Some(watch) = &shell.watch {
                // The other process has the same socket, so closing it here would not end the watching.
                let _ = watch.registry.deregister(&mut listener.socket);
            }
        }
        for mut stream in shell.dispatcher.let_go() {
            if let Some(watch) = &shell.watch {
                let _ = watch.registry.deregister(&mut stream);
            }
        }
    }

    /// Whether a peer takes a message now.
    pub(crate) fn is_writable(&self) -> bool {
        self.0.borrow().dispatcher.is_writable()
    }

    /// Whether there is something to receive, perhaps.
    pub(crate) fn is_readable(&self) -> bool {
        self.0.borrow().dispatcher.is_readable()
    }

    /// Whether anybody is there.
    pub(crate) fn has_peer(&self) -> bool {
        self.0.borrow().dispatcher.has_peer()
    }

    /// Takes back messages of one part that wait for any peer.
    pub(crate) fn take_unsent(&self) -> Vec<Vec<u8>> {
        let unsent = self.0.borrow_mut().dispatcher.take_unsent();
        unsent.untouched().filter_map(|message| Some(message[Header::read(message)?.used..].to_vec())).collect()
    }

    /// Whether anybody has subscribed to anything.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.borrow().dispatcher.is_heard()
    }

    /// Whether the peer of a name is there.
    pub(crate) fn is_present(&self, name: &[u8]) -> bool {
        self.0.borrow().dispatcher.is_present(name)
    }

    /// What peers do not take for now, what waits for absent ones included.
    pub(crate) fn load(&self) -> Load {
        self.0.borrow().dispatcher.load()
    }

    /// What waits for the peer of a name.
    pub(crate) fn load_of(&self, name: &[u8]) -> Load {
        self.0.borrow().dispatcher.load_of(name)
    }

    /// Messages that have not left, but for those for absent peers.
    pub(crate) fn queued(&self) -> usize {
        self.0.borrow().dispatcher.queued()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.0.borrow().dispatcher.counters()
    }

    /// Readiness of a source: `slot` is its token less the base.
    pub(crate) fn on_ready(&self, slot: usize, readable: bool, writable: bool, ended: bool, now: Instant) {
        let shell = &mut *self.0.borrow_mut();
        if slot >= FIRST_LISTENER {
            return shell.accept(slot - FIRST_LISTENER, now);
        }
        shell.dispatcher.on_ready(slot, readable, writable, ended);
    }

    /// Writes what was collected, ends what is to be ended, and connects where it is time to.
    pub(crate) fn flush(&self, now: Instant) {
        let shell = &mut *self.0.borrow_mut();
        for i in 0..shell.endpoints.len() {
            if shell.endpoints[i].due.is_some_and(|due| due <= now) {
                shell.try_endpoint(i, now);
            }
        }
        if shell.accept_at.take_if(|at| *at <= now).is_some() {
            (0..shell.listeners.len()).for_each(|listener| shell.accept(listener, now));
        }
        shell.dispatcher.flush(now);
        let moved: Vec<_> = shell.dispatcher.moved().collect();
        moved.into_iter().for_each(|endpoint| shell.try_endpoint(endpoint, now));
        shell.bury(now);
        shell.watch_room(now);
        for (name, messages) in shell.dispatcher.given_up() {
            shell.warnings.warn("absent", now, Absent { address: &shell.address, name: &name, messages });
        }
    }

    /// Adds the warnings so far, by kind.
    pub(crate) fn add_warnings(&self, totals: &mut BTreeMap<&'static str, u64>) {
        self.0.borrow().warnings.add_to(totals);
    }

    /// When [`Socket::flush`] has something to do again.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let shell = self.0.borrow();
        let endpoints = shell.endpoints.iter().filter_map(|endpoint| endpoint.due);
        endpoints.chain(shell.accept_at).chain(shell.dispatcher.next_due(now)).min()
    }
}

impl Watch {
    fn listen(&self, listener: &mut Listener, number: usize) -> io::Result<()> {
        let token = Token(self.base + FIRST_LISTENER + number);
        self.registry.register(&mut listener.socket, token, Interest::READABLE)
    }

    fn stream(&self, stream: &mut UnixStream, slot: usize) -> io::Result<()> {
        self.registry.register(stream, Token(self.base + slot), Interest::READABLE)
    }

    /// Has it reported as well, or no longer, that a stream takes more.
    fn room(&self, stream: &mut UnixStream, slot: usize, report: bool) -> io::Result<()> {
        let interest = if report { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.registry.reregister(stream, Token(self.base + slot), interest)
    }
}

impl Shell {
    fn try_endpoint(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        match endpoint.location.connect() {
            Ok(stream) => {
                endpoint.due = None;
                self.admit(stream, Some(index), now);
            }
            Err(_) => self.retry_endpoint(index, now),
        }
    }

    fn retry_endpoint(&mut self, index: usize, now: Instant) {
        let endpoint = &mut self.endpoints[index];
        endpoint.due = Some(now + endpoint.pause);
        endpoint.pause = (endpoint.pause * 2).min(RECONNECT.1);
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(Listener { socket, .. }) = self.listeners.get(listener) else { return };
            match socket.accept() {
                Ok((stream, _)) if self.dispatcher.has_place() => self.admit(stream, None, now),
                Ok(_) => {
                    let text = format_args!("{}: a ZeroMQ peer is turned away: too many are connected", self.address);
                    self.warnings.warn("place", now, text);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    self.accept_at = Some(now + ACCEPT_AGAIN);
                    let address = &self.address;
                    let text =
                        format_args!("{address}: unable to accept a ZeroMQ peer: {e}; raise the limit of open files");
                    return self.warnings.warn("accept", now, text);
                }
            }
        }
        self.accept_at = Some(now);
    }

    fn admit(&mut self, mut stream: UnixStream, endpoint: Option<usize>, now: Instant) {
        let slot = self.dispatcher.next_slot();
        match self.watch.as_ref().map(|watch| watch.stream(&mut stream, slot)) {
            Some(Err(error)) => {
                let text = format_args!("{}: a ZeroMQ peer can not be watched: {error}", self.address);
                self.warnings.warn("watch", now, text);
                if let Some(endpoint) = endpoint {
                    self.retry_endpoint(endpoint, now);
                }
            }
            _ => self.dispatcher.admit(stream, endpoint, now),
        }
    }

    /// Has the system tell when those take more that are held up now, and only those.
    fn watch_room(&mut self, now: Instant) {
        let Shell { dispatcher, watch: Some(watch), address, warnings, .. } = self else { return };
        dispatcher.watch(|slot, stream, report| {
            let watched = watch.room(stream, slot, report);
            if let Err(error) = &watched {
                // What waits is tried again before the peer is given up.
                warnings.warn("watch", now, format_args!("{address}: a ZeroMQ peer can not be watched: {error}"));
            }
            watched.is_ok()
        });
    }

    /// Closes what has ended, says why, and connects again later where it was ours to connect.
    fn bury(&mut self, now: Instant) {
        let ended: Vec<_> = self.dispatcher.ended().collect();
        for Ended { mut stream, endpoint, ready, name, broken } in ended {
            if let Some(watch) = &self.watch {
                // Closing the descriptor would do as well.
                let _ = watch.registry.deregister(&mut stream);
            }
            if let Some(index) = endpoint {
                if ready {
                    self.endpoints[index].pause = RECONNECT.0;
                }
                self.retry_endpoint(index, now);
            }
            let address = &self.address;
            let name = name.escape_ascii();
            let kind = match broken {
                Broken::Violation(_) | Broken::Hoarding { .. } => "violation",
                Broken::Stuck { .. } => "stuck",
                Broken::Anonymous | Broken::Crowded => "handshake",
                Broken::Closed | Broken::Replaced | Broken::Io(_) => {
                    tracing::debug!("{address}: the connection of the ZeroMQ peer {name} ended: {broken}");
                    continue;
                }
            };
            self.warnings.warn(kind, now, format_args!("{address}: the ZeroMQ peer {name} is disconnected: {broken}"));
        }
    }
}
