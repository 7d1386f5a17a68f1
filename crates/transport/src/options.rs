// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the owner of a socket chooses.

use std::time::Duration;

/// Limits and names of a socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages that may be queued for one peer, each way.
    pub high_water_mark: i32,
    /// Messages that may wait beyond that.
    pub backlog: usize,
    /// Bytes that may wait for one peer; where any peer will do, bytes that wait for the next one with room.
    pub peer_bytes: usize,
    /// Bytes that a received message may have; the sender of a longer one is disconnected.
    pub max_message: usize,
    /// A peer that takes nothing for so long while something waits for it is disconnected.
    pub stuck_after: Duration,
    /// A peer that has not said in this time who it is is disconnected.
    pub handshake: Duration,
    /// Peers that may be connected (`ipc:`).
    pub max_peers: usize,
    /// How long closing waits for queued messages to leave, in ms; to peers on this machine, [`Reactor::drain`] does that.
    ///
    /// [`Reactor::drain`]: crate::Reactor::drain
    pub linger: i32,
    /// The routing identity that peers see; for ROUTER sockets that peers address.
    pub identity: Option<Vec<u8>>,
    /// Permission bits of the file of a bound `ipc:` socket; none: only the user of this process may connect.
    pub file_mode: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            high_water_mark: 10_000,
            backlog: 100_000,
            peer_bytes: 64 << 20,
            max_message: 64 << 20,
            stuck_after: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            max_peers: 4096,
            linger: 500,
            identity: None,
            file_mode: None,
        }
    }
}

impl Options {
    /// The same, with the identity that peers address.
    pub fn named(self, identity: &str) -> Self {
        Options { identity: Some(identity.as_bytes().to_vec()), ..self }
    }
}
