// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets with one client: what it sends becomes packets, what servers send becomes frames (frontend, WebSocket).
//! Without I/O.
//!
//! - [`extension`]: whether messages are compressed.
//! - [`debt`]: how much compressed data without content a client may send.
//! - [`deflate`]: compressed content, both ways.
//! - [`handshake`]: which requests may become one, and how they are answered.
//! - [`lanes`]: the order of what two servers send.
//! - [`socket`]: the frames both ways, and how they end.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod debt;
pub mod deflate;
pub mod extension;
pub mod handshake;
pub mod lanes;
pub mod socket;

pub use socket::WebSocket;
