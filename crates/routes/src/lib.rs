// SPDX-License-Identifier: AGPL-3.0-or-later
//! The routes file: which requests go where.
//!
//! Pure: text comes in, a [`Table`] and what is wrong with the text come out. Who reads the file, when, and what is done
//! about a broken one is the proxy's business.
//!
//! # Layout
//! - `line`: splits a line into sections and properties.
//! - `options`: the names of all properties, and what is wrong with others.
//! - `rule`: gives sections meaning: one [`Route`] with its targets.
//! - [`table`]: keeps routes in order and finds the one for a request.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod files;
mod line;
mod options;
mod rule;
pub mod table;

pub use files::{ClientCertificate, Files};
pub use rule::{Jsonp, JsonpMode, Protocol, Route, Target, TargetKind};
pub use table::{ById, Problem, Table};
