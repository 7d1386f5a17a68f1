// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who gets what.
//!
//! [`channels`] is the table of channels and their subscribers; [`counts`] says how many, and [`presence`] who. Subscribers of a channel
//! with the same filters and data are one [class](classes): a message is evaluated once for all of them. Lists of one entry are small
//! ([`few`]). [`audience`] joins the table and the holds, and [`sockets`] the WebSockets.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod audience;
pub mod channels;
pub mod classes;
pub mod counts;
pub mod few;
pub mod presence;
pub mod sockets;
