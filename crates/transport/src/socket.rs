//! What all sockets have in common: sending and receiving without blocking, and a bounded backlog.
//!
//! A message that the kernel or libzmq does not take at once waits in the socket's backlog, in order; the
//! [reactor](crate::reactor) tries again. When the backlog is full too, the sender is told and decides what to do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, SendError};

/// One received message part.
pub struct Message(pub(crate) zmq::Message);

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The ZeroMQ context of a process; one is enough.
#[derive(Clone)]
pub struct Context(zmq::Context);

impl Context {
    /// A context with one I/O thread.
    pub fn new() -> Self {
        Context(zmq::Context::new())
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// Limits and addresses of a socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages that libzmq may queue for one peer, each way.
    pub high_water_mark: i32,
    /// Messages that may wait here when libzmq takes no more.
    pub backlog: usize,
    /// How long closing waits for queued messages to leave, in ms.
    pub linger: i32,
    /// The routing identity that peers see; for ROUTER sockets that peers address.
    pub identity: Option<Vec<u8>>,
    /// Permission bits of the file of a bound `ipc:` socket.
    pub file_mode: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options { high_water_mark: 10_000, backlog: 100_000, linger: 500, identity: None, file_mode: None }
    }
}

impl Options {
    /// The defaults, with the identity that peers address.
    pub fn named(identity: &str) -> Self {
        Options { identity: Some(identity.as_bytes().to_vec()), ..Options::default() }
    }
}

/// What a socket has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// Messages handed to libzmq.
    pub sent: u64,
    /// Messages that could not be sent: the peer was gone, or the backlog full.
    pub refused: u64,
    /// Messages received in a shape that the socket type does not have, and skipped.
    pub malformed: u64,
}

/// The part of a socket that its typed wrapper and the reactor share.
pub(crate) struct Core {
    pub(crate) raw: zmq::Socket,
    pub(crate) fd: RawFd,
    backlog: RefCell<VecDeque<Vec<Vec<u8>>>>,
    backlog_limit: usize,
    /// Set when the socket was used since the reactor last asked for its events. libzmq's descriptor is edge
    /// triggered and any call may swallow the edge, so a used socket must be asked before the thread sleeps.
    pub(crate) touched: Cell<bool>,
    pub(crate) counters: Cell<Counters>,
    file_mode: Option<u32>,
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
    pub(crate) fn new(
        context: &Context,
        kind: zmq::SocketType,
        name: &'static str,
        options: &Options,
    ) -> Result<Handle, Error> {
        Core::prepared(context, kind, name, options, |_| Ok(()))
    }

    /// As [`Core::new`], with a step on the socket before anything else has a hold of it.
    pub(crate) fn prepared(
        context: &Context,
        kind: zmq::SocketType,
        name: &'static str,
        options: &Options,
        prepare: impl FnOnce(&mut zmq::Socket) -> Result<(), Error>,
    ) -> Result<Handle, Error> {
        let setup = |e: zmq::Error| Error::Setup { kind: name, reason: e.to_string() };
        let mut raw = context.0.socket(kind).map_err(setup)?;
        prepare(&mut raw)?;
        raw.set_sndhwm(options.high_water_mark).map_err(setup)?;
        raw.set_rcvhwm(options.high_water_mark).map_err(setup)?;
        raw.set_linger(options.linger).map_err(setup)?;
        if let Some(identity) = &options.identity {
            raw.set_identity(identity).map_err(setup)?;
        }
        let fd = raw.get_fd().map_err(setup)?;
        Ok(Rc::new(Core {
            raw,
            fd,
            backlog: RefCell::default(),
            backlog_limit: options.backlog,
            touched: Cell::new(true),
            counters: Cell::default(),
            file_mode: options.file_mode,
            held: RefCell::default(),
        }))
    }

    pub(crate) fn bind(&self, spec: &str) -> Result<(), Error> {
        let fail = |reason: String| Error::Bind { spec: spec.to_string(), reason };
        if spec.contains('\0') {
            return Err(fail("the address contains a NUL byte".to_string()));
        }
        self.raw.bind(spec).map_err(|e| fail(e.to_string()))?;
        if let (Some(mode), Some(path)) = (self.file_mode, spec.strip_prefix("ipc://")) {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| fail(e.to_string()))?;
        }
        Ok(())
    }

    pub(crate) fn connect(&self, spec: &str) -> Result<(), Error> {
        let fail = |reason: String| Error::Connect { spec: spec.to_string(), reason };
        if spec.contains('\0') {
            return Err(fail("the address contains a NUL byte".to_string()));
        }
        self.raw.connect(spec).map_err(|e| fail(e.to_string()))
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// The next part of a message, if one is there.
    pub(crate) fn recv_part(&self) -> Option<Message> {
        self.touched.set(true);
        let mut part = zmq::Message::new();
        loop {
            match self.raw.recv(&mut part, zmq::DONTWAIT) {
                Ok(()) => return Some(Message(part)),
                Err(zmq::Error::EINTR) => continue,
                Err(_) => return None,
            }
        }
    }

    /// A message of exactly one part. Others are skipped and counted.
    pub(crate) fn recv_single(&self) -> Option<Message> {
        loop {
            let part = self.recv_part()?;
            if !part.0.get_more() {
                self.count(|c| c.received += 1);
                return Some(part);
            }
            self.skip_rest();
        }
    }

    /// Drops what is left of the current message.
    pub(crate) fn skip_rest(&self) {
        self.count(|c| c.malformed += 1);
        while self.raw.get_rcvmore().unwrap_or(false) {
            if self.recv_part().is_none() {
                break;
            }
        }
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

    /// Sends now; `false` if libzmq does not take it now. Only the first part can be refused: libzmq keeps room for the
    /// others.
    fn try_send(&self, parts: &[&[u8]]) -> Result<bool, SendError> {
        self.touched.set(true);
        let last = parts.len() - 1;
        for (i, part) in parts.iter().enumerate() {
            let flags = if i < last { zmq::SNDMORE | zmq::DONTWAIT } else { zmq::DONTWAIT };
            loop {
                match self.raw.send(*part, flags) {
                    Ok(()) => break,
                    Err(zmq::Error::EINTR) => continue,
                    Err(zmq::Error::EAGAIN) if i == 0 => return Ok(false),
                    Err(_) => return Err(SendError::Unreachable),
                }
            }
        }
        self.count(|c| c.sent += 1);
        Ok(true)
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
    fn flush_held(&self) {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            return;
        }
        let now = Instant::now();
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

    /// Sends what waits, as far as libzmq takes it.
    pub(crate) fn flush(&self) {
        self.flush_held();
        let mut backlog = self.backlog.borrow_mut();
        while let Some(parts) = backlog.front() {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            match self.try_send(&parts) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.count(|c| c.refused += 1),
            }
            backlog.pop_front();
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.backlog.borrow().len() + self.held.borrow().len()
    }

    /// Whether a message can be received. Asks libzmq, which also lets it do its pending work.
    pub(crate) fn readable(&self) -> bool {
        self.touched.set(false);
        self.raw.get_events().is_ok_and(|events| events.contains(zmq::POLLIN))
    }
}

/// What every typed socket offers beside its own sending and receiving.
macro_rules! socket_common {
    ($type:ty) => {
        impl $type {
            /// Binds to an address, such as `ipc:///run/x` or `tcp://127.0.0.1:5560`.
            pub fn bind(&self, spec: &str) -> Result<(), $crate::Error> {
                self.core.bind(spec)
            }

            /// Connects to an address; the peer need not be there yet.
            pub fn connect(&self, spec: &str) -> Result<(), $crate::Error> {
                self.core.connect(spec)
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
