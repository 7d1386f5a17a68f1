// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner ctl ...`: asks a running runner, and shows what it answers.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use process::Failure;

use crate::NAME;
use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::control::{Answer, Request};

/// Longer than any step of what is asked may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer, of which a suite with hundreds of frontends needs less.
const MAX_ANSWER: u64 = 4 << 20;

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

/// Does what was asked on the command line.
pub fn run(arguments: &Arguments, ctl: &Ctl) -> ExitCode {
    match converse(arguments, ctl) {
        Ok(code) => code,
        Err(failure) => process::fail(NAME, failure),
    }
}

fn converse(arguments: &Arguments, ctl: &Ctl) -> Result<ExitCode, Failure> {
    let path = match &ctl.socket {
        Some(path) => path.clone(),
        None => {
            let configuration = Configuration::read(arguments).map_err(|error| {
                format!("{error}; --socket names the runner's socket without reading the configuration")
            })?;
            configuration.settings.global.control_socket()
        }
    };
    let request = match &ctl.command {
        Command::Status { .. } => Request::Status,
        Command::Restart { component } => Request::Restart { component: component.clone() },
        Command::LogLevel { component, level } => Request::LogLevel { component: component.clone(), level: *level },
    };
    let json = matches!(ctl.command, Command::Status { json: true });
    let stream = UnixStream::connect(&path).map_err(|error| explain(&path, &error))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("the runner at {} has not answered for {} s", path.display(), PATIENCE.as_secs())
        }
        _ => format!("the runner at {} broke off: {error}", path.display()),
    };
    let mut question = serde_json::to_vec(&request)?;
    question.push(b'\n');
    (&stream).write_all(&question).map_err(broken)?;
    let mut reader = BufReader::new(stream.take(MAX_ANSWER));
    let mut out = io::stdout().lock();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(broken)? == 0 {
            return Err(format!("the runner at {} ended before it was done", path.display()).into());
        }
        let answer = serde_json::from_str(&line)
            .map_err(|error| format!("the runner at {} answers what is not understood: {error}", path.display()))?;
        match answer {
            Answer::Status(status) if json => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
            Answer::Status(status) => write!(out, "{status}")?,
            Answer::Progress(text) => {
                writeln!(out, "{text}")?;
                out.flush()?;
                continue;
            }
            Answer::Done(text) => writeln!(out, "{text}")?,
            Answer::Failed(text) => return Err(text.into()),
        }
        return Ok(ExitCode::SUCCESS);
    }
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no pushpin-runner answers at {path}: none runs with this configuration; \
             give --config and --id as it was started with, or its --socket"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{path} is open to the user of the suite and to root only: use sudo")
        }
        _ => format!("unable to reach pushpin-runner at {path}: {error}"),
    }
}
