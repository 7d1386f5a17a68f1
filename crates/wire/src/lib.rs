// SPDX-License-Identifier: AGPL-3.0-or-later
//! The protocols that clients and origins speak, as codecs without I/O.
//!
//! Bytes come in as slices (whatever a read returned), heads and payloads go out as slices of the same memory, and what is
//! to be written is appended to a `Vec<u8>` of the caller. There are no sockets, no clocks and no state shared between
//! connections, so everything that can be wrong in a parser is tested with literal bytes.
//!
//! # Layout
//!
//! * [`http1`]: HTTP/1.1 (RFC 9112), server role (used by the frontend) and client role (used by the outbound client).
//! * [`proxied`]: what a proxy in front says before all of that.
//! * [`request_id`]: what a request is called in logs.
//! * [`websocket`]: WebSocket frames (RFC 6455), both roles.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod http1;
pub mod proxied;
pub mod request_id;
pub mod websocket;
