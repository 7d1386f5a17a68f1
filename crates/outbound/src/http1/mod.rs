// SPDX-License-Identifier: AGPL-3.0-or-later
//! One request over HTTP/1.1: what its first packet asks for ([`request`]), and the [`exchange`] that it becomes, made of
//! [`upload`] (bytes that go to the backend) and [`download`] (bytes that come from it). None of these has I/O or a clock.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod coding;
pub mod download;
pub mod exchange;
pub mod request;
pub mod upload;
