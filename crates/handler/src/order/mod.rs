// SPDX-License-Identifier: AGPL-3.0-or-later
//! The order in which items leave, and how fast. It is decided here, once, for all holds.
//!
//! [`backlog`] takes orders in steps, [`dedup`] drops repetitions, [`sequencer`] keeps back what came too early, and
//! [`rate`] what exceeds the limit.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod backlog;
pub mod dedup;
pub mod owed;
pub mod rate;
pub mod sequencer;
