// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner`: starts the processes of the suite, watches them, and stops them.
//!
//! It reads the configuration, opens the sockets that the outside world connects to, and hands them to the processes; it
//! sees none of the traffic. A process that dies is started again, and callers wait in the backlog of its socket meanwhile.
//!
//! # Layout
//! - [`arguments`]: the command line; [`instance`]: which suite it means.
//! - [`configuration`]: what the files say, handed to the processes; read again on HUP.
//! - [`check`]: what is wrong with it, told without starting anything.
//! - [`services`]: which programs to start, with which arguments; [`service`] is one of them.
//! - [`originals`]: programs of Pushpin's in the place of ours, with the files that they read.
//! - [`listeners`]: the sockets of the outside world.
//! - [`supervise`]: the loop: start, restart, stop. [`asked`] are the signals to it, [`backoff`] decides
//!   when to start again, [`child`] is one process, [`line`] what connects it to the runner.
//! - [`orphans`]: processes that a former runner has left behind; [`succession`] decides which of them go on, [`adopted`] is one that does.
//! - [`candidates`]: programs that are to replace those that run; [`kept`] are those that may have to come back.
//! - [`heartbeats`]: which processes hang.
//! - [`control`]: what an operator asks of a running suite, `pushpin-runner ctl`; [`status`] is what it shows, in a [`table`].
//! - [`vitals`]: how the processes are; [`observers`]: who asks for that over HTTP, metrics and health.
//! - [`snapshot`]: everything at one moment; [`dashboard`]: the same in a browser, and [`top`] in a terminal, live.
//! - [`systemd`]: what systemd is told.
//! - [`files`]: directories, pid files and sockets that are made and removed.
//! - [`output`]: log lines of children, merged into ours.

#![forbid(unsafe_code)]

pub mod adopted;
pub mod arguments;
pub mod asked;
pub mod backoff;
pub mod candidates;
pub mod check;
pub mod child;
pub mod configuration;
pub mod control;
pub mod dashboard;
pub mod files;
pub mod heartbeats;
pub mod instance;
pub mod kept;
pub mod line;
pub mod listeners;
pub mod observers;
pub mod originals;
pub mod orphans;
pub mod output;
pub mod service;
pub mod services;
pub mod snapshot;
pub mod status;
pub mod succession;
pub mod supervise;
pub mod systemd;
pub mod table;
pub mod top;
pub mod vitals;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use process::{Failure, inherit, log};
use settings::{Origin, Settings};

use crate::arguments::{Arguments, Command};
use crate::configuration::Configuration;
use crate::control::server::Server;
use crate::dashboard::Dashboard;
use crate::files::RunFiles;
use crate::listeners::{Given, Listeners};
use crate::observers::Observers;
use crate::supervise::{Asking, Estate};
use crate::systemd::Systemd;

/// How long systemd may take to close sockets that it is to forget.
const FORGETTING: Duration = Duration::from_secs(1);

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
    if called == originals::launch::NAME {
        return originals::launch::main();
    }
    let arguments = Arguments::parse();
    if let Some(Command::Ctl(ctl)) = &arguments.command {
        return control::ctl::run(&arguments.source(), ctl);
    }
    if let Some(Command::Top(options)) = &arguments.command {
        return top::arguments::start(arguments.config.as_deref(), arguments.id, options);
    }
    if arguments.check {
        return check::run(&arguments);
    }
    let code = run(&arguments).unwrap_or_else(|failure| process::fail(NAME, failure));
    log::flush();
    code
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let configuration = Configuration::read(arguments)?;
    let settings = &configuration.settings;
    let origin = &configuration.source().origin;
    log::start(log::Options {
        process: "runner".into(),
        level: arguments.level(settings),
        file: arguments.logfile.clone(),
        buffer: settings.runner.log_buffer_size,
        format: settings.runner.log_format,
    })?;
    match (origin, &arguments.config) {
        (Origin::File(path), None) => tracing::info!("using config: {}", path.display()),
        (Origin::BuiltIn, _) => tracing::info!("no configuration file found, using the one that is built in"),
        _ => {}
    }
    for warning in &configuration.warnings {
        tracing::warn!("{warning}");
    }

    let merge = arguments.merge(origin);
    let files = RunFiles::prepare(settings, arguments.file_prefix(), merge)?;
    let systemd = Systemd::of_environment(Instant::now()).unwrap_or_else(|error| {
        tracing::warn!("systemd can not be told how the suite is: {}: {error}", systemd::SOCKET);
        Systemd::default()
    });
    let mut given = Given::default();
    let estate = Estate::find(&configuration, arguments, &files, &mut given);
    let opened = open_kept(&configuration, arguments, &files, &mut given, &systemd);
    let (listeners, asked) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // The sockets of those that go on are theirs.
            if estate.is_empty() {
                files.remove();
            }
            return Err(error);
        }
    };
    drop(given);
    for address in listeners.client_addresses() {
        tracing::info!("listening on {address}");
    }
    if !merge {
        tracing::info!("logs are in {}", settings.runner.logdir.display());
    }
    originals::write_files(&configuration, &files)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome =
        runtime.block_on(supervise::run(configuration, arguments, &listeners, asked, &files, estate, systemd));
    files.remove();
    outcome
}

/// The same, with what systemd has kept from the run before; has it keep what is open now.
fn open_kept(
    configuration: &Configuration,
    arguments: &Arguments,
    files: &RunFiles,
    given: &mut Given,
    systemd: &Systemd,
) -> Result<(Listeners, Asking), Failure> {
    for (name, socket) in inherit::kept() {
        match systemd::parse_name(&name) {
            Some((process, name)) => given.add(process, &name, socket),
            None => tracing::warn!("systemd has a socket of the name {name}, which is none of ours: it is not used"),
        }
    }
    let settings = &configuration.settings;
    let dropped = given.drop_unusable(settings, &services::of(configuration, arguments, files));
    for (process, name) in &dropped {
        systemd.forget(&systemd::stored_name(process, name));
    }
    let mut opened = open(settings, given);
    // Until systemd has closed those that it is to forget, their ports are taken.
    let deadline = Instant::now() + if dropped.is_empty() { Duration::ZERO } else { FORGETTING };
    while opened.is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        opened = open(settings, given);
    }
    if let Ok((listeners, _)) = &opened {
        for (process, name, socket) in listeners.tcp() {
            systemd.store(&systemd::stored_name(&process, &name), socket);
        }
    }
    opened
}

/// Opens all that the outside world and operators connect to.
fn open(settings: &Settings, given: &mut Given) -> Result<(Listeners, Asking), Failure> {
    let mut listeners = Listeners::open(settings, given)?;
    listeners.open_local(settings, given).map_err(|error| format!("local_ports: {error}"))?;
    let control = Server::open(settings).map_err(|error| format!("ctl: {error}"))?;
    Ok((listeners, (Observers::open(settings)?, Dashboard::open(settings)?, control)))
}
