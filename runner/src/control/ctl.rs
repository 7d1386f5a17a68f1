// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner ctl ...`: asks a running runner, and shows what it answers.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use process::Failure;
use settings::Source;

use crate::NAME;
use crate::control::{Answer, Request, client};

/// Longer than any step of what is asked may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of `ctl`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The runner is found by its configuration, as it finds that itself: give --config and --id as you did when you started it.
The socket is open to the suite's own user and root.

Ends with status 0 when what was asked is done, 1 when it is not, 2 when the command line is wrong.")]
pub struct Ctl {
    /// The socket of the runner [default: RUNDIR/IPC_PREFIXctl of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    pub socket: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What an operator can ask.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show all processes: state, process id, uptime, restarts and their reason, what is open, version, program, sockets
    Status {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Replace processes by new ones, which take over configuration and programs as they are now
    ///
    /// One after the other: the next is ended when the successor of the one before serves. If one does not, those behind it
    /// are left alone. A changed configuration has to be read first: send the runner HUP.
    Restart {
        /// frontend, proxy, outbound or handler; or one process by its name in the status; or all
        component: String,
    },
    /// Replace all processes by the programs that are on disk now, one after the other, or none of them
    ///
    /// Before anything is ended, each program has to answer --version and to take the configuration that the runner has read. If one
    /// does not serve later, those before it go back to the programs that they had. Frontends are the last, and their clients move
    /// to the successor. The report says which version each process had and has. The runner itself stays.
    Upgrade,
    /// Have processes log more or less, from now on
    ///
    /// A process that is started again keeps the level. The next change of the configuration that HUP finds, and the next start of
    /// the runner, bring back the levels of the configuration.
    #[command(allow_missing_positional = true)]
    LogLevel {
        /// frontend, proxy, outbound or handler; or one process by its name in the status; or runner; or all
        #[arg(default_value = "all")]
        component: String,
        /// 0 errors, 1 warnings, 2 information, 3 debug, 4 trace
        #[arg(required = true, value_parser = settings::log_level::parse_level)]
        level: u8,
    },
}

/// Asks the runner with this configuration what the command line says.
pub fn run(source: &Source, ctl: &Ctl) -> ExitCode {
    match converse(source, ctl) {
        Ok(code) => code,
        Err(failure) => process::fail(NAME, failure),
    }
}

fn converse(source: &Source, ctl: &Ctl) -> Result<ExitCode, Failure> {
    let path = client::socket(ctl.socket.as_deref(), source)?;
    let request = match &ctl.command {
        Command::Status { .. } => Request::Status,
        Command::Restart { component } => Request::Restart { component: component.clone() },
        Command::Upgrade => Request::Upgrade,
        Command::LogLevel { component, level } => Request::LogLevel { component: component.clone(), level: *level },
    };
    let json = matches!(ctl.command, Command::Status { json: true });
    let mut out = io::stdout().lock();
    for answer in client::ask(&path, &request, PATIENCE)? {
        match answer? {
            Answer::Status(status) if json => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
            Answer::Status(status) => write!(out, "{status}")?,
            Answer::Progress(text) => {
                writeln!(out, "{text}")?;
                out.flush()?;
            }
            Answer::Done(text) => writeln!(out, "{text}")?,
            Answer::Failed(text) => return Err(text.into()),
            // Not asked for.
            Answer::Snapshot(_) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}
