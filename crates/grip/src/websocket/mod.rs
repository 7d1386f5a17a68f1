// SPDX-License-Identifier: AGPL-3.0-or-later
//! What GRIP says on and about WebSockets.
//!
//! - [`control`]: what a backend tells the handler over a WebSocket.
//! - [`events`]: WebSocket-over-HTTP, where a backend is told of each thing that happens by a request.

pub mod control;
pub mod events;
