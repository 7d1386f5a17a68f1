// SPDX-License-Identifier: AGPL-3.0-or-later
//! Passing a session from one server to another (ZHTTP, handoff).

use crate::id::{Id, PeerId};

/// What a session's next owner must know (internal RPC, taking over a client request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The client's instance.
    pub client: PeerId,
    /// The session's id.
    pub id: Id,
    /// Number of the next packet from the client.
    pub in_seq: u32,
    /// Number of the next packet to the client.
    pub out_seq: u32,
    /// Body bytes that may be sent.
    pub credits: u32,
    /// Responses go through the ROUTER socket.
    pub by_router: bool,
}

/// Whose a session is, as one of its servers sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Ours.
    Own,
    /// Ours, and nothing has come yet: the former owner's last keep-alive may have crossed the hand-off, in which case
    /// the first packet is one ahead.
    JustTakenOver,
    /// The client was asked to pause and has not agreed.
    Offered,
    /// The client waits for whoever speaks next. Nothing is sent, and what comes is ignored.
    Given,
}
