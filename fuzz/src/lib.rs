// SPDX-License-Identifier: AGPL-3.0-or-later
//! Readers of foreign bytes, each with what must hold whatever the bytes are.
//!
//! The functions are called by the [cargo-fuzz](https://rust-fuzz.github.io) programs in `cargo-fuzz/`, and by the smoke test
//! with the seeds in `corpus/` and changed ones.
//!
//! - [`zeromq`]: what comes from other processes.
//! - [`http1`]: what comes from clients and backends.
//! - [`push`]: what comes from backends and publishers inside of that.
//! - [`text`]: what comes from operators.

#![forbid(unsafe_code)]

pub mod http1;
pub mod push;
pub mod text;
pub mod zeromq;

/// A name, which is that of the corpus and of the cargo-fuzz program, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("packet", zeromq::packet),
    ("tnetstring", zeromq::tnetstring),
    ("zmtp", zeromq::zmtp),
    ("request", http1::request),
    ("response", http1::response),
    ("chunks", http1::chunks),
    ("proxied", http1::proxied),
    ("item", push::item),
    ("instruct", push::instruct),
    ("filter", push::filter),
    ("events", push::events),
    ("routes", text::routes),
    ("ini", text::ini),
];
