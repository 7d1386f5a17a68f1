// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-top`: a running suite in the terminal, live; `pushpin-runner top` starts it.
//!
//! Once a second it asks the runner for a snapshot, at the socket that `ctl` asks at.
//!
//! - [`arguments`]: the command line.
//! - [`view`]: what is shown; it is told snapshots and keys, and has neither clock nor terminal.
//! - [`history`]: rates, from snapshots of the last seconds.
//! - [`render`]: the screen, of [`tables`]; [`theme`] has its colours, [`text`] its numbers.
//! - [`shell`]: terminal, signals and the runner's socket.

pub mod arguments;
pub mod history;
pub mod render;
pub mod shell;
pub mod tables;
pub mod text;
pub mod theme;
pub mod view;

use std::process::ExitCode;

use clap::Parser as _;

use self::arguments::{Arguments, NAME};

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.socket().map_err(Into::into).and_then(|socket| shell::run(&socket)) {
        Ok(code) => code,
        Err(failure) => process::fail(NAME, failure),
    }
}
