// SPDX-License-Identifier: AGPL-3.0-or-later
//! One session, seen from either end: numbers, credits, hand-off, and time.
//!
//! An end is told what comes ([`on_packet`](client::Session::on_packet)) and what time it is
//! ([`on_timer`](client::Session::on_timer)), and says what that means. Before a packet is sent, the end is asked for its
//! address and number ([`send`](client::Session::send)); it does not write packets itself, because one packet may
//! be for many sessions. It says when it has something to do next ([`next_due`](client::Session::next_due)).
//!
//! # What time does
//! - *Expiry*: a session ends when no valid packet of the peer has come for 60 s. Nobody is told.
//! - *Keep-alive*: due 40 s after the one before (the packet that opens a session counts as one), and to be sent within 5
//!   s, so that those of many sessions can share a packet. Other packets do not put it off: as in the original, every
//!   session has one in 45 s, and sending a body need not look at the clock. A client sends none before it knows its
//!   server nor during a hand-off, a server none after it has offered the session.
//! - *Acknowledgement*: a server that has not said anything 10 ms after the first packet sends a keep-alive.
//! - *Late credits*: a client grants what is owed when it is half of the window, or after 100 ms. Owners do that for many
//!   sessions at a time, so it is not part of `on_timer`.
//!
//! # Taking a number is sending
//! Between [`send`](client::Session::send) and the packet's leaving, nothing else of the session may leave. Packets that
//! are collected for many sessions ([`Bulk`](crate::Bulk)) have their numbers already: send them before anything else, or take
//! the number when they are sent.

pub mod client;
pub mod credits;
mod handoff;
pub mod sequence;
pub mod server;
mod snapshot;
#[cfg(test)]
mod tests;
mod timing;
mod violation;

pub use handoff::HandedOver;
pub use snapshot::RestoreError;
pub use timing::KEEP_ALIVE_SLACK;
pub use violation::Violation;

use crate::packet::Packet;

/// What the client of the suite speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One request, one response.
    Http,
    /// Messages both ways until both sides have closed. Every packet has a number.
    WebSocket,
}

impl Protocol {
    /// Of a session, by the scheme in its first packet.
    pub fn of(first: &Packet<'_>) -> Self {
        let uri = first.uri.unwrap_or_default();
        let is = |scheme: &[u8]| uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if is(b"ws:") || is(b"wss:") { Protocol::WebSocket } else { Protocol::Http }
    }
}
