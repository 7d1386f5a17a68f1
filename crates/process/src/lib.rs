// SPDX-License-Identifier: AGPL-3.0-or-later
//! What every process of the suite does alike: command line, settings, log, signals, inherited sockets, exit codes.
//!
//! A component's `main` is one call of [`run`], which prepares all of this and then gives control to the component's loop.

#![deny(unsafe_code)]

pub mod adoption;
pub mod arguments;
pub mod identity;
pub mod inherit;
pub mod local;
pub mod log;
mod orders;
mod parent;
pub mod passing;
mod reporter;
mod secret;
pub mod signals;
pub mod zmq;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

pub use arguments::{Arguments, Component};
pub use identity::instance_id;
pub use orders::ORDERS;
pub use parent::SUCCESSOR;
pub use parent::{BEAT, PAGE, READY, RUNNER, VERSION, die_with_runner, name_this_process};
pub use reporter::{HEARTBEAT, MAX_PAGE, Reporter};
pub use secret::Secret;
pub use signals::{Signal, Signals};

use settings::{Part, Port, Raw, Settings, Warning};

use crate::adoption::Keeper;
use crate::parent::Parent;

/// Frontends without runner end first, so that they can tell their clients, and the others so long after them.
const FRONTENDS_FIRST: Duration = Duration::from_secs(1);

/// A program that ends waits so long for its reason to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a component ended early. At this edge only the text matters: it is shown to the user.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a component's loop starts with.
#[derive(Debug)]
pub struct Started {
    /// The checked configuration.
    pub settings: Settings,
    /// Signals to the process; they are blocked in this thread and in those it starts.
    pub signals: Signals,
    /// Which of several equal processes this is, from 0 (`--process`).
    pub process: usize,
    /// A process of the same number runs, and this one is to replace it.
    pub is_successor: bool,
    /// What only the processes of one runner know; none without runner.
    pub secret: Option<Secret>,
    /// To tell that the component serves.
    pub ready: Ready,
}

/// Tells, once, that a component serves.
#[derive(Debug)]
pub struct Ready {
    parent: Option<Parent>,
    /// None if this process ends with its runner.
    keeper: Option<Keeper>,
    is_watched: bool,
}

impl Ready {
    /// Whether a runner has started this process.
    pub fn has_runner(&self) -> bool {
        self.parent.is_some()
    }

    /// Says so in the log, and to the runner if that started it. What comes back tells the runner more.
    ///
    /// # Errors
    /// The system has no timer for that.
    pub fn tell(self) -> std::io::Result<Reporter> {
        tracing::info!("started");
        let Some(mut parent) = self.parent else {
            if self.is_watched {
                tracing::warn!(
                    "prometheus_port, health_port and dashboard_port have no effect: pushpin-runner serves them"
                );
            }
            return Ok(Reporter::default());
        };
        let line = parent.line();
        let waits = self.keeper.map(|keeper| adoption::wait(keeper, line)).transpose();
        let waits = waits.unwrap_or_else(|error| {
            tracing::warn!("this process can not go on without its runner: {error}");
            None
        });
        if waits.is_some() {
            parent::outlive_runner();
        }
        parent.ready();
        Reporter::new(parent.into_file(), waits)
    }
}

/// Runs a component with the arguments of this process: parses them, loads the settings, opens the log, and calls `body`.
///
/// With `--check` it ends where `body` would begin, and has neither opened the log nor touched a socket; `mistakes` says what else
/// would keep it from its work: files that it reads.
///
/// Ends with 0 after an orderly stop, 1 when `body` fails or cannot be started (the reason is on stderr and in the log), 2 when
/// the command line is wrong.
pub fn run(
    component: &Component,
    mistakes: impl FnOnce(&Settings) -> Vec<String>,
    body: impl FnOnce(Started) -> Result<(), Failure>,
) -> ExitCode {
    let arguments = Arguments::parse(component);
    let outcome = match arguments.check {
        true => read(&arguments).and_then(|read| match mistakes(&read.settings) {
            mistakes if mistakes.is_empty() => Ok(()),
            mistakes => Err(mistakes.join("\n").into()),
        }),
        false => prepare(component, &arguments).and_then(body),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(component.name, failure),
    };
    log::flush();
    code
}

/// The configuration, from the runner if that started this process.
struct Read {
    settings: Settings,
    warnings: Vec<Warning>,
    /// What the runner has handed down; empty if nothing.
    handed_down: Vec<u8>,
    parent: Option<Parent>,
}

fn read(arguments: &Arguments) -> Result<Read, Failure> {
    let source = arguments.source();
    let mut parent = Parent::of_this_process()?;
    let handed_down = parent.as_mut().map_or(Ok(Vec::new()), Parent::handed_down)?;
    let raw = if handed_down.is_empty() { Raw::read(&source)? } else { Raw::from_bytes(&handed_down)? };
    let (settings, warnings) = raw.settings(&source)?;
    Ok(Read { settings, warnings, handed_down, parent })
}

fn prepare(component: &Component, arguments: &Arguments) -> Result<Started, Failure> {
    parent::die_with_runner();
    // By another file than the program's, as the runner starts a former version, it would have that one's name.
    name_this_process(component.name);
    // Before any thread is started, because threads inherit which signals are blocked.
    let signals = Signals::block()?;
    raise_file_limit();
    let Read { mut settings, warnings, handed_down, parent } = read(arguments)?;
    // The runner may have been told other ports than the configuration has.
    if inherit::any_for_clients() {
        let frontend = &mut settings.frontend;
        frontend.http_ports = inherited(inherit::HTTP, &frontend.http_ports);
        frontend.https_ports = inherited(inherit::HTTPS, &frontend.https_ports);
        frontend.local_ports.retain(|port| inherit::has_local(&port.path));
    }
    let level = arguments.level().unwrap_or_else(|| settings.runner.log_levels.of(component.name));
    log::start(log::Options {
        process: component.label(arguments.process),
        level,
        file: arguments.logfile.as_deref().map(PathBuf::from),
        buffer: settings.runner.log_buffer_size,
        format: settings.runner.log_format,
    })?;
    if let Err(error) = orders::follow() {
        tracing::warn!("orders of the runner can not be read: {error}");
    }
    // The runner has told the user already.
    if parent.is_none() {
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
    }
    let secret = Secret::behind_configuration(&handed_down);
    let keeper = keeper(component, arguments.process, &settings, handed_down);
    let ready = Ready { parent, keeper, is_watched: settings.runner.is_watched() };
    Ok(Started { settings, signals, process: arguments.process, is_successor: parent::is_successor(), secret, ready })
}

/// What the next runner will want to know; none if this process is to end with its runner.
fn keeper(component: &Component, process: usize, settings: &Settings, handed_down: Vec<u8>) -> Option<Keeper> {
    let (global, grace) = (&settings.global, settings.runner.orphan_grace);
    let is_frontend = component.name == Part::Frontend.program();
    let keeper = Keeper {
        rundir: global.rundir.clone(),
        ipc_prefix: global.ipc_prefix.clone(),
        name: component.file_name(process),
        grace: if is_frontend { grace } else { grace + FRONTENDS_FIRST },
        handed_down,
    };
    (!grace.is_zero() && !keeper.handed_down.is_empty()).then_some(keeper)
}

/// The ports that were inherited, as the configuration has them.
fn inherited(usage: &str, written: &[Port]) -> Vec<Port> {
    let port = |address| {
        let found = written.iter().find(|port| port.address == address);
        found.copied().unwrap_or(Port { address, proxied: false })
    };
    inherit::addresses(usage).into_iter().map(port).collect()
}

/// Shows why a program ends, where the user looks: on stderr, and in the log if that is a file.
pub fn fail(program: &str, failure: impl Display) -> ExitCode {
    let text = format!("{program}: {failure}");
    if log::is_file() {
        tracing::error!("{failure}");
    }
    // In a thread, because whoever reads stderr may have stopped.
    let (said, is_said) = mpsc::channel();
    std::thread::spawn(move || {
        eprintln!("{text}");
        let _ = said.send(());
    });
    let _ = is_said.recv_timeout(LAST_WORDS);
    ExitCode::from(1)
}

/// Allows this process as many open files as the system lets it have: every client connection is one.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it the limit is as it was, which is no reason not to start.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
