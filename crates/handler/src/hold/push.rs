// SPDX-License-Identifier: AGPL-3.0-or-later
//! What we push into a WebSocket: frames as clients get them, on lane 1 of a session that the proxy has.

use std::time::Instant;

use crate::subscribe::channels::SocketKey;

/// What the lane of a WebSocket has beside its numbers and credits.
pub struct PushHold {
    /// The WebSocket.
    pub socket: SocketKey,
    /// What is pushed comes after so many packets of the proxy. None: the proxy will say after how many, and until then
    /// nothing leaves.
    pub after: Option<u32>,
    /// When something was pushed last.
    pub pushed_at: Option<Instant>,
}
