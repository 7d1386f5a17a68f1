// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can go wrong with a socket, said so that an operator knows which one and what to change.

use std::io;

/// A failure of a ZeroMQ socket or of the event loop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket can not be bound, for instance because another process has the address.
    #[error(
        "unable to bind to {spec}: {reason}. Is another instance running, or is the directory missing or not writable?"
    )]
    Bind {
        /// The address asked for.
        spec: String,
        /// What the system says.
        reason: String,
    },
    /// A socket can not be connected: the address is malformed (an absent peer is no error).
    #[error("unable to connect to {spec}: {reason}. An address looks like ipc:///path or tcp://host:port")]
    Connect {
        /// The address asked for.
        spec: String,
        /// What the system says.
        reason: String,
    },
    /// A socket can not be made or set up.
    #[error("unable to set up a {kind} socket: {reason}")]
    Setup {
        /// The socket type.
        kind: &'static str,
        /// What libzmq says.
        reason: String,
    },
    /// The system refuses to wait for events.
    #[error("unable to wait for events: {0}")]
    Wait(#[from] io::Error),
}

/// What became of a message that was taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There is room for another one.
    More,
    /// It was the last one for now: another one would be refused. [`Change::Room`](crate::Change::Room) tells when there
    /// is room again.
    Full,
}

/// Why a message was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No peer of that identity is connected.
    #[error("the peer is not connected")]
    Unreachable,
    /// What may wait for the peer does; the message was not taken. [`Change::Room`](crate::Change::Room) tells when
    /// there is room again.
    #[error("the peer does not keep up and its send queue is full")]
    Full,
}
