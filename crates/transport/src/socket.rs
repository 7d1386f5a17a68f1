//! What all sockets have in common: sending and receiving without blocking, and a bounded backlog.
//!
//! A message that no peer takes at once waits in the socket's backlog, in order; the [reactor](crate::reactor) tries
//! again. When the backlog is full too, the sender is told and decides what to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::change::Arrival;
use crate::counters::Counters;
use crate::error::{Error, SendError};
use crate::libzmq::Context;
use crate::message::Message;
use crate::options::Options;
use crate::role::Role;
use crate::{direct, libzmq};

/// Who does the I/O.
pub(crate) enum Engine {
    /// We, on unix sockets, in the thread of the reactor.
    Direct(Box<direct::Socket>),
    /// libzmq, on anything.
    Libzmq(libzmq::Socket),
}

/// The part of a socket that its typed wrapper and the reactor share.
pub(crate) struct Core {
    pub(crate) engine: Engine,
    backlog: RefCell<VecDeque<Vec<Vec<u8>>>>,
    backlog_limit: usize,
    pub(crate) counters: Cell<Counters>,
    held: RefCell<VecDeque<Held>>,
}

/// How long a message waits for a peer that is not connected.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that may wait so.
const MAX_HELD: usize = 1000;

/// A message to a ROUTER peer that is not connected yet. When a process starts, its peers connect to its sockets one by
/// one within some 100 ms; an answer may have to go out by one that is later than the one its question came in by.
struct Held {
    parts: Vec<Vec<u8>>,
    until: Instant,
}

pub(crate) type Handle = Rc<Core>;

/// A share in a socket, for the reactor.
pub struct Registration(pub(crate) Handle);

impl Core {
    fn new(context: &Context, role: Role, local: bool, options: &Options) -> Result<Handle, Error> {
        let engine = match local {
            true => Engine::Direct(Box::new(direct::Socket::new(role, options))),
            false => Engine::Libzmq(libzmq::Socket::new(context, role, options)?),
        };
        Ok(Rc::new(Core {
            engine,
            backlog: RefCell::default(),
            backlog_limit: options.backlog,
            counters: Cell::default(),
            held: RefCell::default(),
        }))
    }

    pub(crate) fn bound(context: &Context, role: Role, spec: &str, options: &Options) -> Result<Handle, Error> {
        let core = Core::new(context, role, direct::path::is_local(spec), options)?;
        match &core.engine {
            Engine::Direct(socket) => socket.bind(spec)?,
            Engine::Libzmq(socket) => socket.bind(spec)?,
        }
        Ok(core)
    }

    pub(crate) fn connected<S: AsRef<str>>(
        context: &Context,
        role: Role,
        specs: &[S],
        options: &Options,
    ) -> Result<Handle, Error> {
        let local = specs.iter().all(|spec| direct::path::is_local(spec.as_ref()));
        let core = Core::new(context, role, local, options)?;
        for spec in specs {
            match &core.engine {
                Engine::Direct(socket) => socket.connect(spec.as_ref())?,
                Engine::Libzmq(socket) => socket.connect(spec.as_ref())?,
            }
        }
        Ok(core)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// What has arrived next, if there is anything.
    pub(crate) fn next_arrival(&self) -> Option<Arrival> {
        match &self.engine {
            Engine::Direct(socket) => socket.next_arrival(),
            Engine::Libzmq(socket) => socket.recv_part().map(Arrival::Part),
        }
    }

    /// The next part of a message, if one is there.
    pub(crate) fn recv_part(&self) -> Option<Message> {
        loop {
            if let Arrival::Part(part) = self.next_arrival()? {
                return Some(part);
            }
        }
    }

    /// A message of exactly one part. Others are skipped and counted.
    pub(crate) fn recv_single(&self) -> Option<Message> {
        loop {
            let part = self.recv_part()?;
            if !part.more() {
                self.count(|c| c.received += 1);
                return Some(part);
            }
            self.skip_rest();
        }
    }

    /// Drops what is left of a message, of which a part that is not the last was received.
    pub(crate) fn skip_rest(&self) {
        self.count(|c| c.malformed += 1);
        while self.recv_part().is_some_and(|part| part.more()) {}
    }

    /// Sends a message of the given parts, or keeps it for later.
    pub(crate) fn send(&self, parts: &[&[u8]]) -> Result<(), SendError> {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            match self.try_send(parts) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    self.count(|c| c.refused += 1);
                    return Err(e);
                }
            }
        }
        if backlog.len() >= self.backlog_limit {
            self.count(|c| c.refused += 1);
            return Err(SendError::Full);
        }
        backlog.push_back(parts.iter().map(|p| p.to_vec()).collect());
        Ok(())
    }

    fn try_send(&self, parts: &[&[u8]]) -> Result<bool, SendError> {
        let sent = match &self.engine {
            Engine::Direct(socket) => socket.try_send(parts),
            Engine::Libzmq(socket) => socket.try_send(parts),
        }?;
        if sent {
            self.count(|c| c.sent += 1);
        }
        Ok(sent)
    }

    /// As [`Core::send`] to a peer named by the first part, for which the message waits a while if it is not there.
    pub(crate) fn send_to(&self, parts: &[&[u8]]) -> Result<(), SendError> {
        let mut held = self.held.borrow_mut();
        let behind = held.iter().any(|earlier| earlier.parts.first().is_some_and(|peer| peer == parts[0]));
        if !behind {
            match self.send(parts) {
                // Not yet.
                Err(SendError::Unreachable) => self.count(|c| c.refused -= 1),
                result => return result,
            }
        }
        if held.len() >= MAX_HELD {
            self.count(|c| c.refused += 1);
            return Err(SendError::Unreachable);
        }
        let parts = parts.iter().map(|p| p.to_vec()).collect();
        held.push_back(Held { parts, until: Instant::now() + PATIENCE });
        Ok(())
    }

    /// Tries again to reach absent peers, and gives those up that have been waited for long enough.
    fn flush_held(&self, now: Instant) {
        let mut held = self.held.borrow_mut();
        // A peer that appears in the middle of this must not get its second message before its first.
        let mut absent: Vec<Vec<u8>> = Vec::new();
        held.retain(|message| {
            let peer = &message.parts[0];
            let parts: Vec<&[u8]> = message.parts.iter().map(Vec::as_slice).collect();
            if !absent.contains(peer) && self.try_send(&parts).is_ok_and(|sent| sent) {
                return false;
            }
            if !absent.contains(peer) {
                absent.push(peer.clone());
            }
            let keep = now < message.until;
            if !keep {
                self.count(|c| c.refused += 1);
            }
            keep
        });
    }

    /// Sends what waits, as far as peers take it.
    pub(crate) fn flush(&self, now: Instant) {
        if !self.held.borrow().is_empty() {
            self.flush_held(now);
        }
        let mut backlog = self.backlog.borrow_mut();
        while let Some(parts) = backlog.front() {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            match self.try_send(&parts) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => self.count(|c| c.refused += 1),
            }
            backlog.pop_front();
        }
        if let Engine::Direct(socket) = &self.engine {
            socket.flush(now);
        }
    }

    /// Has the reactor ask whether there is something to receive.
    pub(crate) fn touch(&self) {
        if let Engine::Libzmq(socket) = &self.engine {
            socket.touch();
        }
    }

    /// Messages that no peer takes for now.
    pub(crate) fn waiting(&self) -> usize {
        self.retrying()
            + match &self.engine {
                Engine::Direct(socket) => socket.held_up(),
                Engine::Libzmq(_) => 0,
            }
    }

    /// Messages that have to be tried again, because nothing tells when they could be sent.
    pub(crate) fn retrying(&self) -> usize {
        self.backlog.borrow().len() + self.held.borrow().len()
    }

    /// Messages that have not been handed to the kernel or to libzmq.
    pub(crate) fn unsent(&self) -> usize {
        self.retrying()
            + match &self.engine {
                Engine::Direct(socket) => socket.queued(),
                Engine::Libzmq(_) => 0,
            }
    }

    /// Whether a peer takes a message now.
    pub(crate) fn writable(&self) -> bool {
        self.retrying() == 0
            && match &self.engine {
                Engine::Direct(socket) => socket.writable(),
                Engine::Libzmq(socket) => socket.writable(),
            }
    }

    pub(crate) fn subscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        match &self.engine {
            Engine::Direct(socket) => socket.subscribe(prefix),
            Engine::Libzmq(socket) => return socket.subscribe(prefix),
        }
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, prefix: &[u8]) -> Result<(), Error> {
        match &self.engine {
            Engine::Direct(socket) => socket.unsubscribe(prefix),
            Engine::Libzmq(socket) => return socket.unsubscribe(prefix),
        }
        Ok(())
    }
}

/// What every typed socket offers beside its own sending and receiving.
macro_rules! socket_common {
    ($type:ident, $role:expr $(, $field:ident)*) => {
        impl $type {
            /// A socket bound to an address, such as `ipc:///run/x` or `tcp://127.0.0.1:5560`.
            ///
            /// # Errors
            /// The address is in use, or not one.
            pub fn bind(
                context: &$crate::Context,
                spec: &str,
                options: &$crate::Options,
            ) -> Result<Self, $crate::Error> {
                let core = $crate::socket::Core::bound(context, $role, spec, options)?;
                Ok($type { core, $($field: Default::default()),* })
            }

            /// A socket that connects to all of the addresses; the peers need not be there yet.
            ///
            /// # Errors
            /// An address is not one.
            pub fn connect<S: AsRef<str>>(
                context: &$crate::Context,
                specs: &[S],
                options: &$crate::Options,
            ) -> Result<Self, $crate::Error> {
                let core = $crate::socket::Core::connected(context, $role, specs, options)?;
                Ok($type { core, $($field: Default::default()),* })
            }

            /// What the socket has done so far.
            pub fn counters(&self) -> $crate::Counters {
                self.core.counters.get()
            }

            /// Messages that wait because the peer takes no more.
            pub fn waiting(&self) -> usize {
                self.core.waiting()
            }
        }

        impl $crate::reactor::Polled for $type {
            fn registration(&self) -> $crate::socket::Registration {
                $crate::socket::Registration(self.core.clone())
            }
        }
    };
}
pub(crate) use socket_common;
