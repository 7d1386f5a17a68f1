// SPDX-License-Identifier: AGPL-3.0-or-later
//! PUSH and PULL: first packets of sessions, publishes, and one-way notices. One part a message.

use crate::error::{SendError, Taken};
use crate::message::Message;
use crate::role::Role;
use crate::socket::{Handle, socket_common};

/// Sends each message to one of the connected peers.
pub struct Push {
    core: Handle,
}

socket_common!(Push, Role::Push);

impl Push {
    /// Sends a message, or keeps it until a peer takes it, within the backlog.
    ///
    /// # Errors
    /// [`SendError::Full`]: too much waits already.
    pub fn send(&self, message: &[u8]) -> Result<Taken, SendError> {
        self.core.send(&[message])
    }

    /// Whether a peer takes a message now.
    pub fn is_writable(&self) -> bool {
        self.core.is_writable()
    }

    /// Whether a peer is there. Only of those on this machine (`ipc:`) it is known; others are taken to be.
    pub fn has_peer(&self) -> bool {
        self.core.has_peer()
    }

    /// Takes back the messages that no peer has got anything of, as far as that is known.
    pub fn take_unsent(&self) -> Vec<Vec<u8>> {
        self.core.take_unsent()
    }
}

/// Receives from all connected peers.
pub struct Pull {
    core: Handle,
}

socket_common!(Pull, Role::Pull);

impl Pull {
    /// The next message, if one is there. Messages of several parts are skipped and counted.
    pub fn recv(&self) -> Option<Message> {
        self.core.recv_single()
    }
}
