// SPDX-License-Identifier: AGPL-3.0-or-later
//! GRIP, the agreement between a backend, the proxy that holds its clients, and whoever publishes to them. No I/O.
//!
//! A backend answers an ordinary request with an *instruct*: hold this client, subscribe it to these channels. Later
//! somebody publishes an *item* to a channel, and each held client gets the item's content in the form its transport
//! needs.
//!
//! # Layout
//! - [`header`]: lists and parameters inside header values; every `Grip-*` header is written in them.
//! - [`instruct`]: what a backend's response asks for, from headers or from JSON.
//! - [`item`]: what a publisher sends, from JSON or tnetstring.
//! - [`head`]: the head of a response that either of them has written, as far as it can be sent.
//! - [`meta`]: what either of them has set for filters.
//! - [`filter`]: what a subscription lets through, and in which form; [`patch`]: responses that are changes.
//! - [`link`]: where a link leads.
//! - [`cross_origin`]: responses for scripts of other sites, by [`cors`] or [`jsonp`].
//! - [`unbuffered`]: streams that proxies in front are to pass on at once.
//! - [`signature`]: the `Grip-Sig` token by which backend and proxy know each other.
//! - [`websocket`]: what backends tell the handler over a WebSocket, and how they are spoken to by requests instead.
//! - [`reason`]: the standard text of each status code.
//! - [`tree`]: one view on JSON and tnetstring data, with the error texts that clients know; [`json`]: JSON as it is
//!   written in the field.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod cors;
pub mod cross_origin;
pub mod filter;
pub mod head;
pub mod header;
pub mod instruct;
pub mod item;
pub mod json;
pub mod jsonp;
pub mod link;
pub mod meta;
pub mod patch;
pub mod reason;
pub mod signature;
pub mod tree;
pub mod unbuffered;
pub mod websocket;

pub use head::{Headers, StatusCode};
pub use instruct::{Channel, HoldMode, Instruct, KeepAlive, KeepAliveMode};
pub use item::{Action, Formats, HttpResponse, Item, ResponseBody};
pub use meta::Meta;
pub use reason::default_reason;
pub use tree::Malformed;

/// Filters that one subscription may have (GRIP, header fields).
pub const MAX_FILTERS: usize = 5;
