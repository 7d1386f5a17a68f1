// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is known of what the frontend keeps of a WebSocket, for a successor of this proxy.

use zhttp::PeerId;
use zhttp::recovery;
use zhttp::retained::Received;

/// What is known of what the frontend keeps.
#[derive(Debug, Default)]
pub struct Kept {
    /// The client's packets before this number have been taken, as the frontend knows, and of the message behind so many bytes.
    pub(super) position: (u32, u32),
    /// That has changed.
    pub(super) moved: bool,
    /// The record has.
    pub(super) changed: bool,
    /// The last message of the handler that has left for the client.
    pub(super) run: u64,
    /// Where both ends stand, if they count.
    pub(super) counted: Option<Box<Counted>>,
    /// Packets of the client that a predecessor has got before us, and that are still to come.
    pub(super) repeated: u32,
    /// The last packet was one of them.
    pub(super) is_repeated: bool,
    /// Bytes of the next message that the backend has taken already.
    pub(super) taken: u32,
    /// Bytes of those that the client may send again as its frontend knows.
    pub(super) granted: u32,
}

impl Kept {
    /// Whether the record has changed since that was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        self.moved = false;
        std::mem::take(&mut self.changed)
    }
}

/// Positions of both directions.
#[derive(Debug, Default)]
pub struct Counted {
    /// All that has come of the backend's.
    pub(super) down: u64,
    /// What the frontend has been sent of it, or needs not be.
    pub(super) shown: Received,
    /// What the frontend has had of it.
    pub(super) had: Received,
    /// All that has come of the client's.
    pub(super) up: u64,
    /// What the outbound process has had of it.
    pub(super) taken: Received,
    /// What the backend has told the handler in front of this position has been done.
    pub(super) handled: u64,
    /// We have closed ourselves: positions mean nothing any more.
    pub(super) is_ours: bool,
    /// The outbound process has not answered yet.
    pub(super) claim: Option<Box<Claim>>,
}

/// What is known of a WebSocket of a predecessor until its outbound process has answered.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) positions: recovery::Counted,
    /// The client is gone.
    pub(super) gone: bool,
    pub(super) outbound: PeerId,
    pub(super) is_sent: bool,
}

impl Counted {
    /// What a predecessor has left, but for positions.
    pub(super) fn of_predecessor(handled: u64, is_ours: bool) -> Self {
        Counted { handled, is_ours, ..Counted::default() }
    }

    /// Whether both ends have all, so that nothing would have to be sent again.
    pub(super) fn is_settled(&self) -> bool {
        self.is_ours || (self.had.position() >= self.down && self.taken.position() >= self.up)
    }
}
