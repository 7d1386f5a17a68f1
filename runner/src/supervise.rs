//! The runner's loop: starts the services, starts again those that die, stops all when told to.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use process::{Failure, log};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::child::{self, Ended, Handle, SpawnError};
use crate::files::RunFiles;
use crate::listeners::Listeners;
use crate::services::Service;

/// How long services may take to stop before they are killed.
const GRACE: Duration = Duration::from_secs(4);

/// A service that fails with a message of its own so soon after its first start will not do better the next time.
const STARTING: Duration = Duration::from_secs(5);

/// One service and how it is.
struct Slot {
    service: Service,
    state: State,
    backoff: Backoff,
    restarts: u32,
}

enum State {
    Running(Handle),
    /// To be started then.
    Waiting(Instant),
    Stopped,
}

/// A service that cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot start (exit status {code}): {reason}")]
struct StartError {
    name: String,
    code: i32,
    reason: String,
}

/// Runs the services until a signal ends them or one cannot start.
pub async fn run(services: Vec<Service>, listeners: &Listeners, files: &RunFiles) -> Result<ExitCode, Failure> {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    let slots = services.into_iter().map(|service| Slot {
        service,
        state: State::Stopped,
        backoff: Backoff::default(),
        restarts: 0,
    });
    let mut supervisor = Supervisor { slots: slots.collect(), listeners, files, ended, unclean: false };
    for index in 0..supervisor.slots.len() {
        if let Err(error) = supervisor.start(index) {
            supervisor.stop(&mut ends, std::future::pending()).await;
            return Err(error.into());
        }
    }
    loop {
        tokio::select! {
            Some(end) = ends.recv() => if let Err(error) = supervisor.ended(end) {
                supervisor.stop(&mut ends, std::future::pending()).await;
                return Err(error.into());
            },
            () = sleep_until(supervisor.next_start()) => supervisor.start_due(),
            _ = hup.recv() => supervisor.reload(),
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    tracing::info!("stopping...");
    let again = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    supervisor.stop(&mut ends, again).await;
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
    listeners: &'a Listeners,
    files: &'a RunFiles,
    ended: mpsc::UnboundedSender<Ended>,
    /// Whether one did not stop as it should.
    unclean: bool,
}

impl Supervisor<'_> {
    fn start(&mut self, index: usize) -> Result<(), SpawnError> {
        let slot = &mut self.slots[index];
        tracing::info!("starting {}", slot.service.name());
        let handle = child::start(index, &slot.service, self.listeners, self.ended.clone())?;
        self.files.write_pid(&slot.service.file_name(), handle.pid);
        slot.state = State::Running(handle);
        Ok(())
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
        let slot = &mut self.slots[end.service];
        let name = slot.service.name();
        self.files.remove_pid(&slot.service.file_name());
        slot.state = State::Stopped;
        let lived = end.started.elapsed();
        if let Some(code) = end.status.code().filter(|code| *code != 0)
            && slot.restarts == 0
            && lived < STARTING
        {
            let own = format!("{}: ", slot.service.part.program());
            let words: Vec<_> = end.last_words.iter().map(|line| line.strip_prefix(&own).unwrap_or(line)).collect();
            return Err(StartError { name, code, reason: words.join("\n") });
        }
        let wait = self.wait(end.service, lived);
        tracing::error!(
            "{name}: Exited unexpectedly ({}); starting it again in {} ms",
            describe(end.status),
            wait.as_millis()
        );
        Ok(())
    }

    fn reload(&self) {
        tracing::info!("reloading");
        log::reopen();
        self.signal(Signal::SIGHUP);
    }

    fn signal(&self, signal: Signal) {
        for slot in &self.slots {
            if let State::Running(handle) = &slot.state {
                handle.signal(signal);
            }
        }
    }

    /// Stops all that run: asks, waits, and kills those that take too long, or at once when told `again`.
    async fn stop(&mut self, ends: &mut mpsc::UnboundedReceiver<Ended>, again: impl Future<Output = ()>) {
        self.signal(Signal::SIGTERM);
        let deadline = tokio::time::sleep(GRACE);
        tokio::pin!(again, deadline);
        let mut killed = false;
        while self.slots.iter().any(|slot| matches!(slot.state, State::Running(_))) {
            tokio::select! {
                Some(end) = ends.recv() => self.stopped(&end),
                () = &mut again, if !killed => {
                    killed = true;
                    self.signal(Signal::SIGKILL);
                }
                () = &mut deadline, if !killed => {
                    killed = true;
                    for slot in &self.slots {
                        if let State::Running(_) = slot.state {
                            tracing::warn!("{} taking too long, forcing quit", slot.service.name());
                        }
                    }
                    self.signal(Signal::SIGKILL);
                }
            }
        }
    }

    fn stopped(&mut self, end: &Ended) {
        let slot = &mut self.slots[end.service];
        slot.state = State::Stopped;
        self.files.remove_pid(&slot.service.file_name());
        // TERM may have come before it was ready to take it.
        if !end.status.success() && end.status.signal() != Some(Signal::SIGTERM as i32) {
            self.unclean = true;
            tracing::error!("{}: Exited uncleanly ({})", slot.service.name(), describe(end.status));
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(Ok(signal))) => signal.to_string(),
        _ => status.to_string(),
    }
}
