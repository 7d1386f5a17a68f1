// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the engine is given with an event: the time, and what carries out its actions.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use zhttp::{Id, Packet};

use crate::connect::resolve::{Asker, Lookup};
use crate::connect::target::Endpoint;

/// What has become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Taken,
    /// It is on its way, but its receiver has no room for another until
    /// [`Engine::requester_has_room`](crate::engine::Engine::requester_has_room).
    Full,
    /// It is lost: its receiver has no room.
    Refused,
    /// It is lost: its receiver is gone.
    Lost,
}

/// Carries out what the engine decides: the sockets and the resolver, or in the simulation their likes.
///
/// Connections have numbers, which the engine gives. What it reads and writes goes between its own buffers and the socket, so that
/// nothing is copied on the way; how much is read depends on credits, which only the engine knows.
pub trait Actions {
    /// Sends a packet to a requester, through ROUTER or PUB.
    fn send(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> Sent;
    /// Looks a name up. An answer that comes later is told by [`Engine::resolved`](crate::engine::Engine::resolved).
    fn look_up(&mut self, host: &str, asker: Asker, now: Instant) -> Lookup;
    /// An asker waits no longer for the addresses of a name.
    fn give_up(&mut self, host: &str, asker: Asker);
    /// Begins to connect. That there is something to know is told by [`Engine::on_ready`](crate::engine::Engine::on_ready).
    ///
    /// # Errors
    /// Nothing could be begun.
    fn connect(&mut self, number: usize, address: SocketAddr, endpoint: &Endpoint) -> io::Result<()>;
    /// Whether a connection is made; none if that is not decided yet.
    fn outcome(&mut self, number: usize) -> Option<io::Result<()>>;
    /// Goes on with the handshake of TLS, where there is one. `false`: more must come.
    ///
    /// # Errors
    /// The backend is not who it should be, or does not speak TLS.
    fn shake_hands(&mut self, number: usize) -> io::Result<bool>;
    /// Reads once. No bytes are the end.
    ///
    /// # Errors
    /// There is nothing now (`WouldBlock`), or the connection has broken.
    fn read(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes once.
    ///
    /// # Errors
    /// There is no room now (`WouldBlock`), or the connection has broken.
    fn write(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize>;
    /// Writes what TLS has kept back.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn flush(&mut self, number: usize) -> io::Result<()>;
    /// Whether an idle connection is as it was left: still open, and nothing has come that nobody asked for.
    fn is_quiet(&mut self, number: usize) -> bool;
    /// Closes a connection. `at_once`: what it has not sent yet is lost.
    fn close(&mut self, number: usize, at_once: bool);
    /// To the log.
    fn log(&mut self, note: &Note<'_>);
}

/// Something for the log.
pub enum Note<'a> {
    /// Something is wrong that can happen many times a second; `kind` is what it is limited by.
    Warning {
        /// One literal in the code for each sort.
        kind: &'static str,
        /// What is wrong.
        text: &'a dyn Display,
    },
    /// A request goes to a backend.
    Request {
        /// Its session.
        session: Id,
        /// What asks for it.
        packet: &'a Packet<'a>,
    },
    /// It goes there once more, because a connection that had waited was closed.
    Repeated(&'a Endpoint),
    /// A requester has left.
    RequesterLeft {
        /// Its name.
        name: &'a [u8],
        /// How many of its requests are over because of that.
        cancelled: u64,
        /// How many wait for its successor.
        kept: u64,
    },
}

/// See the module.
pub struct Context<'a> {
    /// The time of the event.
    pub now: Instant,
    /// Carries out what is decided.
    pub actions: &'a mut dyn Actions,
}

impl<'a> Context<'a> {
    /// The context of one event.
    pub fn new(now: Instant, actions: &'a mut dyn Actions) -> Self {
        Context { now, actions }
    }

    /// Warns people, once a second of a kind.
    pub fn warn(&mut self, kind: &'static str, text: impl Display) {
        self.actions.log(&Note::Warning { kind, text: &text });
    }
}
