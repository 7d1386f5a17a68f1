// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets, as far as the handler knows them (internal RPC, ws-control; GRIP, WebSocket sessions).
//!
//! The proxy has the connections. It tells of each in items, and passes on what backends say behind `c:`; it is sent items
//! in return, of which messages for clients are most. [`session`]: what is known of one WebSocket; [`kind`]: what many have in common; [`table`]: all of them;
//! [`outbox`]: items on their way to the proxy. [`sent`]: those that a successor of the proxy may have to be sent again.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod cid;
pub mod kind;
pub mod outbox;
pub mod reply;
pub mod sent;
pub mod session;
pub mod table;
