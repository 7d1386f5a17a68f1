// SPDX-License-Identifier: AGPL-3.0-or-later
//! HTTP/1.1 with one client: requests become exchanges, responses become bytes. Without I/O.
//!
//! - [`connection`]: what is read, one request after the other.
//! - [`response`]: head and body of a response, [`shared_body`]: bytes that many clients get, [`page`]: error pages.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod connection;
pub mod page;
pub mod refusal;
pub mod response;
pub mod shared_body;

pub use connection::Http1;
pub use shared_body::SharedBody;
