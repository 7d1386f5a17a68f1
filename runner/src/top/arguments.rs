// SPDX-License-Identifier: AGPL-3.0-or-later
//! Command line of `pushpin-top`, and how `pushpin-runner top` hands it on.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self as system, ExitCode};

use clap::{Args, Parser};

use crate::control::client::{self, AskError};
use crate::instance;

/// Name of the program.
pub const NAME: &str = "pushpin-top";

const HELP: &str = "\
Keys:
  n c m o    processes by name, CPU, memory, or what they have open
  s a        channels by subscribers, or by name
  q Esc      quit, as Ctrl-C does

Rates are those of the last 5 seconds. With NO_COLOR set to anything, nothing is coloured.

The runner is found by its configuration, as it finds that itself: give --config and --id as you did when you started it.
The socket is open to the suite's own user and root. `pushpin-runner ctl status` shows less, once, without a terminal.";

/// Shows a running suite in the terminal, live: clients, channels, rates, losses, processes.
#[derive(Clone, Debug, Parser)]
#[command(name = NAME, version, after_help = HELP)]
pub struct Arguments {
    /// Configuration file of the suite [default: as for pushpin-runner]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Number of the instance, if it was started with one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=6000))]
    pub id: Option<u16>,

    /// Where the runner is.
    #[command(flatten)]
    pub options: Options,
}

/// Options of `pushpin-runner top` beside those of the runner.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct Options {
    /// The socket of the runner [default: RUNDIR/IPC_PREFIXctl of the configuration]
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
}

impl Arguments {
    /// Where the runner listens.
    ///
    /// # Errors
    /// The configuration is not good.
    pub fn socket(&self) -> Result<PathBuf, AskError> {
        client::socket(self.options.socket.as_deref(), &instance::source(self.config.as_deref(), self.id))
    }
}

/// Becomes `pushpin-top`: the one beside this program, else the first in `PATH`. Comes back only if there is none.
pub fn start(config: Option<&Path>, id: Option<u16>, options: &Options) -> ExitCode {
    let beside = std::env::current_exe().map(|own| own.with_file_name(NAME)).ok().filter(|path| path.is_file());
    let mut command = system::Command::new(beside.as_deref().unwrap_or(Path::new(NAME)));
    if let Some(file) = config {
        command.arg("--config").arg(file);
    }
    if let Some(id) = id {
        command.arg("--id").arg(id.to_string());
    }
    if let Some(file) = &options.socket {
        command.arg("--socket").arg(file);
    }
    let error = command.exec();
    let text = match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{NAME} is neither beside pushpin-runner nor in PATH; packages have it, \
             and in a checkout `cargo build --release --bin {NAME}` makes it"
        ),
        _ => format!("{NAME} can not be started: {error}"),
    };
    process::fail(crate::NAME, text)
}
