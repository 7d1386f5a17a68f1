//! `pushpin-runner`: starts the processes of the suite, watches them, and stops them.
//!
//! It reads the configuration, opens the sockets that the outside world connects to, and hands them to the processes; it
//! sees none of the traffic. A process that dies is started again, and callers wait in the backlog of its socket meanwhile.
//!
//! # Layout
//! - [`arguments`]: the command line.
//! - [`services`]: which programs to start, with which arguments.
//! - [`listeners`]: the sockets of the outside world.
//! - [`supervise`]: the loop: start, restart, stop. [`backoff`] decides when, [`child`] is one process.
//! - [`files`]: directories, pid files and sockets that are made and removed.
//! - [`output`]: log lines of children, merged into ours.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod backoff;
pub mod child;
pub mod files;
pub mod listeners;
pub mod output;
pub mod services;
pub mod supervise;

use std::path::Path;
use std::process::ExitCode;

use process::{Failure, log};
use settings::{Origin, Settings};

use crate::arguments::Arguments;
use crate::files::RunFiles;
use crate::listeners::Listeners;

/// Name of the program.
pub const NAME: &str = "pushpin-runner";

/// Runs the program under whose name it was called: the runner, or one of its processes.
///
/// It has all of them inside for the sake of `cargo run --release --bin pushpin-runner`, which builds this one executable and
/// nothing beside it, and still has to have something to start.
pub fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let called = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    for (name, component) in services::BUILT_IN {
        if called == name {
            process::name_this_process(name);
            return component();
        }
    }
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => process::fail(NAME, failure),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let source = arguments.source();
    let (mut settings, warnings) = Settings::load(&source)?;
    if let Some(port) = &arguments.port {
        settings.runner.http_ports = vec![*port];
    }
    if let Some(levels) = &arguments.loglevel {
        settings.runner.log_levels = levels.clone();
    }
    log::start(arguments.level(&settings), arguments.logfile.clone())?;
    match (&source.origin, &arguments.config) {
        (Origin::File(path), None) => tracing::info!("using config: {}", path.display()),
        (Origin::BuiltIn, _) => tracing::info!("no configuration file found, using the one that is built in"),
        _ => {}
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }

    let merge = arguments.merge(&source.origin);
    let listeners = Listeners::open(&settings)?;
    let files = RunFiles::prepare(&settings, arguments.file_prefix(), merge)?;
    let services = services::of(&settings, arguments, &source.origin, &files);
    for port in listeners.client_addresses() {
        tracing::info!("listening on {port}");
    }
    if !merge {
        tracing::info!("logs are in {}", settings.runner.logdir.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(supervise::run(services, &listeners, &files));
    files.remove();
    outcome
}
