// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets to backends: packets become frames, frames packets (outbound, WebSocket client). Without I/O and clock.
//!
//! - [`handshake`]: the request that asks for one, and whether the answer grants it.
//! - [`refusal`]: an answer that does not.
//! - [`socket`]: frames both ways.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod handshake;
pub mod kept;
pub mod refusal;
pub mod socket;
