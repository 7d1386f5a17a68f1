// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bodies on their way: bounded by credits in both directions.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod download;
pub mod upload;
