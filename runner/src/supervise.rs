// SPDX-License-Identifier: AGPL-3.0-or-later
//! The runner's loop: starts the services, starts again those that die, stops all when told to.
//!
//! - [`slot`]: one service and its processes; [`stopping`]: their end.
//! - [`calls`]: what an operator asks in between; [`replacing`]: processes by new ones; [`upgrade`]: all, from the programs on disk, as [`upgrading`] knows.
//! - [`estate`]: processes that a former runner has left behind.
//! - [`beside`]: processes that are started beside those that they replace.

mod beside;
mod calls;
mod estate;
mod replacing;
mod slot;
mod stopping;
mod upgrade;
mod upgrading;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use frontend::accept::tickets::Chain;
use nix::sys::signal::Signal;
use process::{Failure, Secret, log};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::arguments::Arguments;
use crate::asked::{Ask, Asked};
use crate::child::{self, Ended, Handle, News, SpawnError};
use crate::configuration::{Change, Configuration};
use crate::control::rolling::Event;
use crate::control::{self, Call};
use crate::dashboard::Dashboard;
use crate::files::RunFiles;
use crate::heartbeats::{Finding, Heartbeats, TICK};
use crate::listeners::Listeners;
use crate::observers::Observers;
use crate::originals;
use crate::output;
use crate::service::{self, Program};
use crate::services;
use crate::systemd::Systemd;
use crate::vitals::Shared;

pub use self::estate::Estate;
use self::replacing::Replacing;
use self::slot::{STARTING, Slot, State};

/// Why a process ended, with what it said last.
fn with_words(reason: &str, words: &str) -> String {
    if words.is_empty() { reason.into() } else { format!("{reason}: {words}") }
}

/// A service that cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{name} cannot start (exit status {code}): {reason}")]
    Refused { name: String, code: i32, reason: String },
    #[error("{name} cannot start: {program} has ended each time it was started, and never served ({reason}){hint}")]
    Hopeless { name: String, program: String, reason: String, hint: String },
}

/// Where others ask, listened on and not served yet.
pub type Asking = (Observers, Option<Dashboard>, control::server::Server);

/// Runs the services until a signal ends them or one cannot start.
pub async fn run(
    configuration: Configuration,
    arguments: &Arguments,
    listeners: &Listeners,
    (observers, dashboard, control): Asking,
    files: &RunFiles,
    estate: Estate,
    systemd: Systemd,
) -> Result<ExitCode, Failure> {
    let mut asked = Asked::new()?;
    let (news, mut told) = mpsc::unbounded_channel();
    let slots: Vec<_> = services::of(&configuration, arguments, files).into_iter().map(Slot::from).collect();
    let places =
        slots.iter().map(|slot| (slot.service.name(), listeners.places(&slot.service, &configuration.settings)));
    let vitals = Shared::new(places);
    let _files = observers.serve(&vitals)?;
    if let Some(dashboard) = dashboard {
        dashboard.serve(&configuration.settings, configuration.name(), &vitals)?;
    }
    let (mut calls, _file) = control.serve()?;
    let handed_down = configuration.to_bytes();
    let tickets = estate.tickets().map_or_else(|| Chain::new(std::time::SystemTime::now()), Ok);
    let tickets = tickets.map_err(|_| "the system has no random numbers for keys")?;
    let heartbeats = Heartbeats::new(slots.len(), configuration.settings.runner.heartbeat_timeout);
    let mut supervisor = Supervisor {
        slots,
        configuration,
        handed_down,
        tickets,
        arguments,
        listeners,
        files,
        news,
        vitals,
        systemd,
        heartbeats,
        replacing: None,
        failed_beside: None,
        has_started: false,
        unclean: false,
    };
    let outcome = supervisor.supervise(estate, &mut told, &mut asked, &mut calls).await;
    if outcome.is_ok() {
        tracing::info!("stopping...");
    }
    supervisor.systemd.stopping();
    supervisor.stop(&mut told, &mut asked).await;
    outcome?;
    Ok(if supervisor.unclean { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Supervisor<'a> {
    slots: Vec<Slot>,
    configuration: Configuration,
    /// The same, as the parts get it.
    handed_down: Arc<[u8]>,
    /// Keys of TLS session tickets, which all frontends have alike.
    tickets: Chain,
    arguments: &'a Arguments,
    listeners: &'a Listeners,
    files: &'a RunFiles,
    news: mpsc::UnboundedSender<News>,
    /// What those are told who watch over the suite.
    vitals: Shared,
    systemd: Systemd,
    /// Who hangs.
    heartbeats: Heartbeats,
    /// The restart that an operator has asked for.
    replacing: Option<Replacing>,
    /// Why the last successor failed that was started beside another.
    failed_beside: Option<String>,
    /// Whether it has been said that everything has started.
    has_started: bool,
    /// Whether one did not stop as it should.
    unclean: bool,
}

impl Supervisor<'_> {
    /// Starts all, and again what dies. Ends when told to stop, or when one cannot start.
    async fn supervise(
        &mut self,
        estate: Estate,
        told: &mut mpsc::UnboundedReceiver<News>,
        asked: &mut Asked,
        calls: &mut mpsc::Receiver<Call>,
    ) -> Result<(), Failure> {
        let outdated = self.take_over(estate);
        for index in 0..self.slots.len() {
            if self.slots[index].running().is_none() {
                self.start(index)?;
            }
        }
        self.replace_outdated(outdated);
        let mut ticks = tokio::time::interval(TICK);
        // What was missed meanwhile is no silence of others.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(news) = told.recv() => match news {
                    News::Ready { service, pid } if self.runs(service, pid) => self.serves(service),
                    News::Beat { service, pid } if self.runs(service, pid) => self.heartbeats.heard(service),
                    News::Ready { service, pid } if self.is_successor(service, pid) => self.takes_over(service),
                    News::Version { service, pid, version } if self.runs(service, pid) => {
                        self.vitals.lock().tell_version(service, version, std::time::Instant::now());
                        self.report_when_told();
                    }
                    News::Told { service, pid, page } if self.runs(service, pid) => {
                        self.heartbeats.heard(service);
                        self.vitals.lock().tell(service, page, std::time::Instant::now());
                        self.report_when_told();
                    }
                    News::Ended(end) => self.ended(end)?,
                    News::Examined(verdicts) => self.examined(verdicts),
                    // By one that has ended since.
                    _ => {}
                },
                () = sleep_until(self.next_start()) => self.start_due(),
                () = sleep_until(self.replacing.as_ref().and_then(Replacing::deadline)) => self.replacing_sees(Event::Time),
                _ = ticks.tick() => {
                    self.look_who_hangs();
                    self.tell_systemd();
                }
                () = sleep_until(self.systemd.due().map(Instant::from_std)) => {
                    self.systemd.alive(std::time::Instant::now());
                }
                Some(call) = calls.recv() => self.called(call),
                ask = asked.next() => match ask {
                    Ask::Stop => return Ok(()),
                    Ask::Reload => self.reload(),
                    Ask::Reopen => self.reopen(),
                },
            }
        }
    }

    fn start(&mut self, index: usize) -> Result<(), SpawnError> {
        let handle = self.spawn(index, false)?;
        self.runs_now(index, handle);
        if !self.slots[index].service.tells_when_ready() {
            self.serves(index);
        }
        Ok(())
    }

    /// Starts a process for a service, perhaps beside the one that it is to replace.
    fn spawn(&mut self, index: usize, beside: bool) -> Result<Handle, SpawnError> {
        let slot = &self.slots[index];
        let mut handed_down = self.handed_down.clone();
        if slot.service.makes_tickets() {
            self.tickets.advance(std::time::SystemTime::now());
            handed_down = Secret::from(self.tickets.to_bytes()).append_to(&handed_down).into();
        }
        child::start(index, &slot.service, slot.program(), handed_down, self.listeners, beside, self.news.clone())
    }

    /// This is the process of a service now.
    fn runs_now(&mut self, index: usize, handle: Handle) {
        let slot = &mut self.slots[index];
        self.files.write_pid(&slot.service.file_name, handle.pid);
        let program = slot.kept.as_ref().map_or_else(|| service::describe(&handle.program), |kept| kept.describe());
        self.vitals.lock().start(index, handle.pid, program);
        slot.state = State::Running(handle);
        slot.hung = None;
    }

    /// One says that it serves. When all do for the first time, whoever has started us may go on.
    fn serves(&mut self, index: usize) {
        self.slots[index].has_served = true;
        self.vitals.lock().serve(index);
        if self.slots[index].service.tells_when_ready() {
            self.heartbeats.begin(index);
        }
        if !self.has_started && self.slots.iter().all(|slot| slot.has_served) {
            self.has_started = true;
            tracing::info!("started");
            self.systemd.ready();
            self.tell_systemd();
        }
        self.replacing_sees(Event::Serves(index));
    }

    fn tell_systemd(&mut self) {
        let missing = self.vitals.lock().missing(std::time::Instant::now());
        self.systemd.status(self.slots.len(), &missing);
    }

    /// Kills those that have been silent for too long: there is nothing else that one that hangs would notice.
    fn look_who_hangs(&mut self) {
        self.kill_late();
        for (index, finding) in self.heartbeats.tick() {
            let slot = &mut self.slots[index];
            let Some(handle) = slot.running() else { continue };
            let (name, pid) = (slot.service.name(), handle.pid);
            match finding {
                Finding::Silent(time) => tracing::warn!("{name}: has not answered for {} s", time.as_secs()),
                Finding::Hangs(time) => {
                    let seconds = time.as_secs();
                    tracing::error!("{name}: hangs, has not answered for {seconds} s; killing its process {pid}");
                    handle.signal(Signal::SIGKILL);
                    slot.hung = Some(time);
                    self.vitals.lock().hang(index);
                }
            }
        }
    }

    /// Whether this is the process of a service, and not one before it.
    fn runs(&self, service: usize, pid: u32) -> bool {
        self.slots[service].running().is_some_and(|handle| handle.pid == pid)
    }

    /// Starts those whose time has come.
    fn start_due(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if !matches!(self.slots[index].state, State::Waiting(time) if time <= now) {
                continue;
            }
            if let Err(error) = self.start(index) {
                tracing::error!("{error}");
                self.wait(index, Duration::ZERO);
            }
        }
    }

    fn next_start(&self) -> Option<Instant> {
        let waiting = self.slots.iter().filter_map(|slot| match slot.state {
            State::Waiting(time) => Some(time),
            _ => None,
        });
        waiting.min()
    }

    /// Has a service started again, later if it keeps dying.
    fn wait(&mut self, index: usize, lived: Duration) -> Duration {
        let slot = &mut self.slots[index];
        let wait = slot.backoff.died(lived);
        slot.restarts += 1;
        slot.state = State::Waiting(Instant::now() + wait);
        wait
    }

    /// One has ended that should not have.
    fn ended(&mut self, end: Ended) -> Result<(), StartError> {
        self.files.remove_door(&self.slots[end.service].service.file_name, end.pid);
        if self.has_another(&end) {
            return Ok(());
        }
        let slot = &mut self.slots[end.service];
        let name = slot.service.name();
        self.files.remove_pid(&slot.service.file_name);
        slot.state = State::Stopped;
        self.heartbeats.end(end.service);
        let reason = match slot.hung.take() {
            Some(time) => format!("killed because it had not answered for {} s", time.as_secs()),
            None => describe(end.status),
        };
        if self.is_replaced(end.service) {
            self.vitals.lock().end(end.service, "restarted by ctl".into());
            tracing::info!("{name}: Exited ({reason})");
            self.replacing_sees(Event::Ended(end.service));
            return Ok(());
        }
        let slot = &mut self.slots[end.service];
        let words = slot.words(&end);
        self.vitals.lock().end(end.service, with_words(&reason, &words));
        let lived = end.started.elapsed();
        if let Some(code) = end.status.and_then(|status| status.code()).filter(|code| *code != 0)
            && slot.restarts == 0
            && lived < STARTING
        {
            return Err(StartError::Refused { name, code, reason: words });
        }
        if slot.is_hopeless(lived) {
            let program = service::describe(&slot.program());
            let hint = self.files.log(&slot.service.file_name).and_then(|file| output::last_error(&file));
            let hint = hint.map_or_else(|| "; its output says why".into(), |line| format!(": {line}"));
            return Err(StartError::Hopeless { name, program, reason: with_words(&reason, &words), hint });
        }
        let wait = self.wait(end.service, lived);
        tracing::error!("{name}: Exited unexpectedly ({reason}); starting it again in {} ms", wait.as_millis());
        self.replacing_sees(Event::Ended(end.service));
        Ok(())
    }

    /// Reads the configuration again: a good one is what parts get that start from now on, a bad one changes nothing. Then
    /// has the parts read again what they read themselves, the routes, and open their logs again.
    fn reload(&mut self) {
        tracing::info!("reloading");
        self.systemd.reloading();
        log::reopen();
        match self.configuration.reread(self.arguments) {
            Ok(Change::None) => {}
            Ok(Change::Later(new)) => {
                tracing::info!("the configuration has changed; each process takes it over when it is started again");
                for warning in &new.warnings {
                    tracing::warn!("{warning}");
                }
                if let Err(error) = originals::write_files(&new, self.files) {
                    tracing::error!("{error}");
                }
                let services = services::of(&new, self.arguments, self.files);
                for (slot, service) in self.slots.iter_mut().zip(services) {
                    slot.service = service;
                }
                self.handed_down = new.to_bytes();
                self.heartbeats.set_limit(new.settings.runner.heartbeat_timeout);
                self.configuration = *new;
            }
            Err(error) => tracing::error!("{error}; the configuration that was read before stays in force"),
        }
        let slots = self.slots.iter().filter(|slot| slot.service.knows_hup());
        slots.filter_map(Slot::running).for_each(|handle| handle.signal(Signal::SIGHUP));
        self.reopen_beside();
        // One that is being started says so when it serves.
        if self.has_started {
            self.systemd.ready();
        }
    }

    fn reopen(&self) {
        log::reopen();
        // Programs of others may take it for a reason to end.
        let ours = self.slots.iter().filter(|slot| slot.service.program == Program::Own);
        ours.filter_map(Slot::running).for_each(|handle| handle.signal(Signal::SIGUSR1));
        self.reopen_beside();
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "status unknown: another runner had started it".into() };
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(Ok(signal))) => signal.to_string(),
        _ => status.to_string(),
    }
}
