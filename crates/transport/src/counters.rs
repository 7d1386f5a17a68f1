// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a socket counts.

use std::ops::{AddAssign, SubAssign};

/// What a socket has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages received.
    pub received: u64,
    /// Messages on their way to a peer.
    pub sent: u64,
    /// Messages that could not be sent: the peer was gone or did not come, or what may wait for it was used up.
    pub refused: u64,
    /// Messages received in a shape that the socket type does not have, and skipped.
    pub malformed: u64,
    /// Peers that were disconnected because they took nothing.
    pub stuck: u64,
    /// Peers that were disconnected because they broke the protocol or their limits.
    pub expelled: u64,
    /// Peers whose connection has ended, for whatever reason. Only those on this machine (`ipc:`) are counted.
    pub left: u64,
    /// Peers that were turned away because too many were connected.
    pub turned_away: u64,
}

/// What waits, for one peer or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages.
    pub messages: usize,
    /// Bytes as they are sent, or of contents where that is not known.
    pub bytes: usize,
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Load) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Load) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}
