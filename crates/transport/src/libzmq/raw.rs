// SPDX-License-Identifier: AGPL-3.0-or-later
//! The only file that touches libzmq. Its I/O is done by a thread of its own; what it has for us shows on a descriptor
//! that is edge triggered and shared by both directions, so that a socket that was used must be asked for its state
//! before the thread sleeps.

use std::cell::Cell;
use std::os::fd::RawFd;

use crate::error::{Error, SendError};
use crate::message::Message;
use crate::options::Options;
use crate::role::Role;

/// What the sockets of a process share; one is enough.
#[derive(Clone)]
pub struct Context(zmq::Context);

impl Context {
    /// A context. libzmq's thread starts with the first socket that needs it.
    pub fn new() -> Self {
        Context(zmq::Context::new())
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// A socket of libzmq.
pub(super) struct Raw {
    socket: zmq::Socket,
    pub(super) fd: RawFd,
    /// Used since it was last asked for its events: any call may have swallowed the edge.
    touched: Cell<bool>,
}

impl Raw {
    pub(super) fn new(context: &Context, role: Role, options: &Options) -> Result<Self, Error> {
        let setup = |e: zmq::Error| Error::Setup { kind: role.name(), reason: e.to_string() };
        let kind = match role {
            Role::Push => zmq::PUSH,
            Role::Pull => zmq::PULL,
            Role::Pub => zmq::PUB,
            Role::Xpub => zmq::XPUB,
            Role::Sub => zmq::SUB,
            Role::Router => zmq::ROUTER,
            Role::Dealer => zmq::DEALER,
        };
        let mut raw = context.0.socket(kind).map_err(setup)?;
        match role {
            Role::Xpub => no_drop(&mut raw)?,
            Role::Router => {
                raw.set_router_mandatory(true).map_err(setup)?;
                // A peer that comes back under its old name before the old connection was noticed dead takes its place.
                raw.set_router_handover(true).map_err(setup)?;
            }
            _ => {}
        }
        raw.set_sndhwm(options.high_water_mark).map_err(setup)?;
        raw.set_rcvhwm(options.high_water_mark).map_err(setup)?;
        raw.set_linger(options.linger).map_err(setup)?;
        raw.set_maxmsgsize(i64::try_from(options.max_message).unwrap_or(i64::MAX)).map_err(setup)?;
        raw.set_handshake_ivl(i32::try_from(options.handshake.as_millis()).unwrap_or(i32::MAX)).map_err(setup)?;
        if let Some(identity) = &options.identity {
            raw.set_identity(identity).map_err(setup)?;
        }
        let fd = raw.get_fd().map_err(setup)?;
        Ok(Raw { socket: raw, fd, touched: Cell::new(true) })
    }

    pub(super) fn bind(&self, spec: &str) -> Result<(), Error> {
        let fail = |reason: String| Error::Bind { spec: spec.to_string(), reason };
        if spec.contains('\0') {
            return Err(fail("the address contains a NUL byte".to_string()));
        }
        self.socket.bind(&super::interface::resolve(spec)).map_err(|e| fail(e.to_string()))
    }

    pub(super) fn connect(&self, spec: &str) -> Result<(), Error> {
        let fail = |reason: String| Error::Connect { spec: spec.to_string(), reason };
        if spec.contains('\0') {
            return Err(fail("the address contains a NUL byte".to_string()));
        }
        self.socket.connect(spec).map_err(|e| fail(e.to_string()))
    }

    pub(super) fn recv_part(&self) -> Option<Message> {
        self.touched.set(true);
        let mut part = zmq::Message::new();
        loop {
            match self.socket.recv(&mut part, zmq::DONTWAIT) {
                Ok(()) => {
                    let more = part.get_more();
                    return Some(Message::from_libzmq(part, more));
                }
                Err(zmq::Error::EINTR) => continue,
                Err(_) => return None,
            }
        }
    }

    /// Sends now; `false` if libzmq does not take it now. Only the first part can be refused: libzmq keeps room for the
    /// others.
    pub(super) fn send(&self, parts: &[&[u8]]) -> Result<bool, SendError> {
        self.send_parts(parts.len(), parts.iter().copied())
    }

    /// As [`Raw::send`] by a ROUTER, to the peer of a name.
    pub(super) fn send_to(&self, name: &[u8], parts: &[&[u8]]) -> Result<bool, SendError> {
        self.send_parts(1 + parts.len(), std::iter::once(name).chain(parts.iter().copied()))
    }

    fn send_parts<'a>(&self, count: usize, parts: impl Iterator<Item = &'a [u8]>) -> Result<bool, SendError> {
        self.touched.set(true);
        let last = count.saturating_sub(1);
        for (i, part) in parts.enumerate() {
            let flags = if i < last { zmq::SNDMORE | zmq::DONTWAIT } else { zmq::DONTWAIT };
            loop {
                match self.socket.send(part, flags) {
                    Ok(()) => break,
                    Err(zmq::Error::EINTR) => continue,
                    Err(zmq::Error::EAGAIN) if i == 0 => return Ok(false),
                    Err(_) => return Err(SendError::Unreachable),
                }
            }
        }
        Ok(true)
    }

    pub(super) fn subscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.touched.set(true);
        self.socket.set_subscribe(topic).map_err(|e| Error::Setup { kind: "SUB", reason: e.to_string() })
    }

    pub(super) fn unsubscribe(&self, topic: &[u8]) -> Result<(), Error> {
        self.touched.set(true);
        self.socket.set_unsubscribe(topic).map_err(|e| Error::Setup { kind: "SUB", reason: e.to_string() })
    }

    pub(super) fn is_writable(&self) -> bool {
        self.touched.set(true);
        self.socket.get_events().is_ok_and(|events| events.contains(zmq::POLLOUT))
    }

    /// Whether a message can be received, if the socket was used since it was last asked. Asking also lets libzmq do
    /// its pending work.
    pub(super) fn readable_after_use(&self) -> bool {
        self.touched.get() && self.readable()
    }

    /// Whether the descriptor's edge means that a message can be received and that has not been found out before.
    pub(super) fn readable_after_edge(&self) -> bool {
        !self.touched.get() && self.readable()
    }

    /// Asks again before the thread sleeps.
    pub(super) fn touch(&self) {
        self.touched.set(true);
    }

    fn readable(&self) -> bool {
        let readable = self.socket.get_events().is_ok_and(|events| events.contains(zmq::POLLIN));
        // What can be received is reported until it is received.
        self.touched.set(readable);
        readable
    }
}

/// Makes a full queue an error to the sender instead of a silent loss.
fn no_drop(socket: &mut zmq::Socket) -> Result<(), Error> {
    let on: std::ffi::c_int = 1;
    // SAFETY: `socket` is an open socket that nobody else uses during the call; the option takes an int, of which pointer and size are given,
    // and libzmq copies it before it returns. The binding has no setter for this option.
    let result = unsafe {
        zmq_sys::zmq_setsockopt(
            socket.as_mut_ptr(),
            zmq_sys::ZMQ_XPUB_NODROP as std::ffi::c_int,
            std::ptr::from_ref(&on).cast(),
            size_of_val(&on),
        )
    };
    if result == 0 { Ok(()) } else { Err(Error::Setup { kind: "XPUB", reason: "XPUB_NODROP is refused".to_string() }) }
}
