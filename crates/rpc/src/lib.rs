// SPDX-License-Identifier: AGPL-3.0-or-later
//! The messages between proxy and handler, beside ZHTTP, and what operators ask the handler: both ends of each as one
//! struct. No I/O.
//!
//! | module | who asks or sends | what |
//! |---|---|---|
//! | [`call`] | all of those with an answer | envelope, answer, failure |
//! | [`inspect`] | proxy -> handler | whether a request is to be proxied |
//! | [`accept`] | proxy -> handler | a response with instructions, and the requests to be held |
//! | [`passthrough`] | handler -> proxy | requests of its own, with ZHTTP |
//! | [`retry`] | handler -> proxy | requests to be proxied anew |
//! | [`command`] | operator -> handler, handler -> proxy | command sockets |
//! | [`ws_control`] | both ways | held WebSockets |
//! | [`uuid`] | | how WebSockets are named there |
//! | [`stats`] | proxy -> handler -> whoever listens | connections, subscriptions, counts |
//!
//! All are maps of tnetstrings (internal RPC, encoding rules). What is strict: a known key with a value of another type
//! makes the whole message invalid, a required key must be there, and lists and maps are nested no deeper than
//! [`tnetstring::MAX_DEPTH`]. What is lenient: keys in any order, unknown keys are skipped unread, flags may be absent,
//! numbers may be strings of digits. Byte strings are borrowed from the message.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod accept;
pub mod call;
pub mod command;
mod headers;
pub mod inspect;
mod octets;
pub mod passthrough;
mod request;
pub mod retry;
pub mod stats;
pub mod uuid;
pub mod ws_control;

pub use call::{Call, CallError, Failure, Reply};
pub use headers::Headers;
pub use octets::Octets;
pub use request::{RequestData, RequestState, ResponseData, Rid, StateError};
pub use tnetstring::Error;

/// Flags that are not set are left out.
fn is_false(flag: &bool) -> bool {
    !flag
}
