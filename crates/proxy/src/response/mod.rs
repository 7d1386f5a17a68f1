// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a client gets: responses of backends, and those that the proxy gives itself.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod answer;
pub mod backend;
pub mod cross_origin;
pub mod test_target;
