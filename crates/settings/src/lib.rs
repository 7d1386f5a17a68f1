// SPDX-License-Identifier: AGPL-3.0-or-later
//! Configuration of the whole suite: `pushpin.conf` and `routes`.
//!
//! Text comes in from files (or from the copy that is built in), typed and checked values go out to every process.
//! The way of a value: [`Raw`] is what the files say, which [`ini`] has split into keys with their line numbers; [`table`]
//! knows what each key may hold; `values` replaces variables and converts, `resolve` puts them together, and [`Settings`] is
//! what the engines see. `advice` collects the warnings, [`check`] all mistakes at once. The routes file is the
//! `routes` crate's.
//!
//! A mistake is an [`Error`] that names file and line and says what to write instead; what does no harm (an unknown key)
//! is a [`Warning`], so that the configuration of another version still starts.

#![forbid(unsafe_code)]

mod advice;
mod bound;
pub mod check;
pub mod docs;
mod error;
pub mod ini;
pub mod keys;
pub mod listen;
pub mod log_level;
pub mod model;
pub mod original;
pub mod part;
pub mod plain_file;
pub mod pushpin_conf;
mod raw;
mod reading;
mod resolve;
pub mod routes;
mod services;
mod source;
pub mod specs;
pub mod table;
mod values;
mod variables;

pub use error::{Error, Warning};
pub use listen::{Endpoint, LocalPort, Port};
pub use model::{
    Exposition, FirstSubscription, Frontend, Global, Handler, LogFormat, Outbound, Proxy, Runner, Settings, Statistics,
    Zmq,
};
pub use part::Part;
pub use raw::{HandedDownError, Raw};
pub use source::{Origin, Source};

/// The configuration that is used when there is none, also shipped as a file to start from.
pub const BUILT_IN_CONFIG: &str = include_str!("../../../config/pushpin.conf");

/// The routes that belong to [`BUILT_IN_CONFIG`].
pub const BUILT_IN_ROUTES: &str = include_str!("../../../config/routes");
