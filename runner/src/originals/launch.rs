// SPDX-License-Identifier: AGPL-3.0-or-later
//! A program of others, tied to the runner.
//!
//! Ours ask the kernel for a signal at the death of their runner; others do not, and would hold their ports for ever. So the
//! runner starts itself by another name, asks for the signal, and becomes the program: the wish outlives that.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use process::{RUNNER, inherit};

/// The name by which the runner's executable is called to do so.
pub const NAME: &str = "pushpin-launch";

/// Becomes the program that the arguments name. Comes back only if that fails.
pub fn main() -> ExitCode {
    process::die_with_runner();
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let mut command = Command::new(&program);
    let error = command.args(arguments).env_remove(RUNNER).env_remove(inherit::LISTEN_FDS).exec();
    eprintln!("{}: {error}", program.display());
    ExitCode::FAILURE
}
