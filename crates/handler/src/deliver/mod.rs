// SPDX-License-Identifier: AGPL-3.0-or-later
//! From an item to packets.
//!
//! [`fanout`] finds those who get an item and decides what they get. Content for streams is collected in [`runs`] until
//! the end of the turn, answers to long-polls leave at once ([`responses`]). [`sender`] groups what is equal into packets,
//! and sends what waits when it can; [`slow`] says for whom too much waits, and [`fate`] what became of an item.
//! What filters ask a backend about waits in [`inquiries`]; [`answers`] says for whom, and delivers it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod answers;
pub mod fanout;
pub mod fate;
pub mod inquiries;
pub mod responses;
pub mod runs;
pub mod sender;
pub mod slow;
