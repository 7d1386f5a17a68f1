// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the owner of a socket is told of its peers.

use bytes::Bytes;

/// A peer that came, went, or takes messages again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The peer can be sent to from now on.
    Joined(Bytes),
    /// The peer is gone. All it sent before has been received; nothing that is sent to it from now on reaches it, unless
    /// it joins again.
    Left(Bytes, Reason),
    /// A peer for which a message was refused ([`SendError::Full`](crate::error::SendError::Full)) has room again.
    Room(Bytes),
}

impl Change {
    /// Whose it is, and whether that one has come or gone.
    pub fn parts(&self) -> (&[u8], Option<bool>) {
        match self {
            Change::Joined(peer) => (peer, Some(true)),
            Change::Left(peer, _) => (peer, Some(false)),
            Change::Room(peer) => (peer, None),
        }
    }

    /// The same of a name that is made of this one; none if it can not be.
    pub(crate) fn map(self, name: impl FnOnce(Bytes) -> Option<Bytes>) -> Option<Self> {
        Some(match self {
            Change::Joined(peer) => Change::Joined(name(peer)?),
            Change::Left(peer, reason) => Change::Left(name(peer)?, reason),
            Change::Room(peer) => Change::Room(name(peer)?),
        })
    }
}

/// Why a peer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It closed its connection or ended its subscription.
    Closed,
    /// Another connection has taken its name.
    Replaced,
    /// It took nothing for so long that its connection was broken off.
    Stuck,
    /// It broke the protocol or its limits and was disconnected.
    Expelled,
}

/// What waits in a socket for its owner, in the order in which it came.
pub(crate) enum Arrival {
    Part(crate::message::Message),
    Change(Change),
}
