// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets: each is a client's session and a backend's, and what one says is passed on to the other (proxy, WebSocket).
//!
//! - [`table`]: all of them, and which one a packet is for; [`relays`] keeps them.
//! - [`relay`]: one of them, from its first packet to its end.
//! - [`handshake`]: what its client has asked for.
//! - [`pipe`]: frames on their way to one side, which wait for its credits.
//! - [`over_http`]: a backend that is spoken to by requests.
//! - [`extension`]: a backend that speaks GRIP on its WebSocket, and which of its messages are for whom.
//! - `successor`: what a successor of this proxy must know, and [`recovering`]: how it is asked for.
//! - [`control`]: what proxy and handler tell each other about one WebSocket.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::Duration;

pub mod control;
pub mod extension;
mod had;
pub mod handshake;
pub mod over_http;
pub mod pipe;
mod record;
pub mod recovering;
pub mod relay;
pub mod relays;
pub mod slow;
mod successor;
pub mod table;

/// How long a WebSocket that an outbound process may have taken with it into its end is waited for.
const DOUBT: Duration = Duration::from_secs(1);
