// SPDX-License-Identifier: AGPL-3.0-or-later
//! SockJS: WebSockets for browsers and networks that have none (proxy, SockJS).
//!
//! A route with `sockjs=PREFIX` serves it below that path. Towards backends each session is a WebSocket like any other.
//!
//! - [`place`]: what a path below the prefix means.
//! - [`page`]: what is answered at once.
//! - [`framing`]: messages inside the messages of a WebSocket.
//! - [`call`]: what a poll asks for; [`session`]: a session of polls; [`table`]: all of these.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod call;
pub mod framing;
pub mod page;
pub mod place;
pub mod session;
pub mod table;
