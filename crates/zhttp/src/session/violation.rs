// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a peer did that its session does not survive.

use crate::packet::Kind;

/// What a peer did that its session does not survive, and what was expected instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A packet was lost, repeated or sent to the wrong owner.
    #[error("packet {got} came where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u32,
        /// The number the packet had.
        got: u32,
    },
    /// A WebSocket packet has no number. (In an HTTP session it is taken as the one due.)
    #[error("a packet without a number came where {expected} was due")]
    Unnumbered {
        /// The number that was due.
        expected: u32,
    },
    /// More body bytes than were granted.
    #[error("{excess} body bytes more than were granted")]
    Overrun {
        /// Bytes above the grant.
        excess: u32,
    },
    /// A packet type that is not allowed now.
    #[error("a {} packet came; expected was {expected}", got.name())]
    Kind {
        /// The type that came.
        got: Kind,
        /// What may come at this point.
        expected: &'static str,
    },
    /// Data after the last data of a request or response.
    #[error("a data packet came after the one that had no more to follow")]
    AfterEnd,
    /// The first packet of a server does not say who sent it, so nothing can be sent back.
    #[error("the first packet of a longer response came without from")]
    Anonymous,
    /// A packet of a second server, in a session that has one.
    #[error("a packet for lane {0} came; the session has none")]
    Lane(u8),
    /// The first packet of a session has no usable id.
    #[error("the first packet must have exactly one id, of 1 to 64 bytes")]
    Id,
    /// Something else that is not allowed now.
    #[error("a {0} packet is not allowed at this point")]
    Unexpected(&'static str),
}
