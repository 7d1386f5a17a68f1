//! PUSH and PULL: first packets of sessions, publishes, and one-way notices. One part a message.

use crate::error::{Error, SendError};
use crate::socket::{Context, Core, Handle, Message, Options, socket_common};

/// Sends each message to one of the connected peers.
pub struct Push {
    core: Handle,
}

socket_common!(Push);

impl Push {
    /// A socket that is not connected yet.
    pub fn new(context: &Context, options: &Options) -> Result<Self, Error> {
        Ok(Push { core: Core::new(context, zmq::PUSH, "PUSH", options)? })
    }

    /// Sends a message, or keeps it until a peer is there, within the backlog.
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        self.core.send(&[message])
    }
}

/// Receives from all connected peers.
pub struct Pull {
    core: Handle,
}

socket_common!(Pull);

impl Pull {
    /// A socket that is not connected yet.
    pub fn new(context: &Context, options: &Options) -> Result<Self, Error> {
        Ok(Pull { core: Core::new(context, zmq::PULL, "PULL", options)? })
    }

    /// The next message, if one is there. Messages of several parts are skipped and counted.
    pub fn recv(&self) -> Option<Message> {
        self.core.recv_single()
    }
}
