// SPDX-License-Identifier: AGPL-3.0-or-later
//! Talking to the handler process. The messages are the `rpc` crate's; here is what the proxy makes of them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod accept;
pub mod command;
pub mod inspect;

use std::time::Duration;

/// How long an answer is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(8);
