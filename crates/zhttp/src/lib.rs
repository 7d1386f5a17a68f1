// SPDX-License-Identifier: AGPL-3.0-or-later
//! ZHTTP, the protocol between frontend, proxy, handler and outbound client, without any I/O.
//!
//! A *session* is one HTTP request and its response. The side that sends the first packet is its *client* (a frontend,
//! or the proxy towards the outbound client), the side that answers its *server* (proxy, handler, outbound client).
//! Packets come from and go to the sockets of the `transport` crate; this crate says what they mean and which are
//! allowed when. It has no sockets and no clock: the time comes in as an argument.
//!
//! # Layout
//! - [`packet`]: bytes to [`Packet`] and back, with what our own parts add ([`Ext`]); [`id`]: who and which session.
//! - [`session`]: one session seen from either end: numbers, credits, hand-off from proxy to handler, and time.
//! - [`recovery`]: how the successor of a server comes to its sessions; [`retained`]: what is sent again then, within a [`budget`].
//! - [`bulk`]: one packet for many sessions; [`wheel`]: when sessions have something to do.
//! - `testing` (feature): two ends joined by a wire that loses packets, and a clock turned by hand.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod budget;
pub mod bulk;
pub mod id;
pub mod inquiry;
pub mod packet;
pub mod recovery;
pub mod retained;
pub mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wheel;

pub use bulk::Bulk;
pub use id::{Id, PeerId, Peers};
pub use packet::{Ext, Headers, Ids, Kind, Packet, Record, Run};
pub use session::Violation;
pub use session::credits::Window;
pub use session::sequence::Sequence;
pub use wheel::Wheel;

use std::time::Duration;

/// A session ends when nothing valid has come from the other side for this long (ZHTTP, expiry).
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Each side lets the other hear of each session at least this often (ZHTTP, keep-alive).
pub const KEEP_ALIVE: Duration = Duration::from_secs(45);
/// Sessions one packet may name; original peers drop packets that name more (ZHTTP, size limits).
pub const MAX_IDS: usize = 128;
/// Body bytes that the first packet of a request may carry without any credits (ZHTTP, initial body).
pub const INITIAL_BODY: usize = 200_000;
/// How long a server waits for something better to say before it acknowledges a complete request with a keep-alive.
///
/// The first packet, whatever it is, tells the client whom to talk to, so a request that is answered at once costs two
/// packets instead of three. A client that gives up in the meantime can send its cancel this much later.
pub const ACK_DELAY: Duration = Duration::from_millis(10);
