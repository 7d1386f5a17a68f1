// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a backend gets: URI, headers, signatures.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod forwarded;
pub mod headers;
pub mod jsonp;
pub mod signatures;
pub mod uri;
