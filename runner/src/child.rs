//! One running process: its start, its output, its signals and its end.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::{RUNNER, inherit};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::listeners::{Listeners, Passed};
use crate::output;
use crate::services::{Program, Service, find_own};

/// A program that cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{name}: Error running: {program} ({reason})")]
pub struct SpawnError {
    name: String,
    program: String,
    reason: std::io::Error,
}

/// The end of a process.
#[derive(Debug)]
pub struct Ended {
    /// Which service it was.
    pub service: usize,
    /// How it ended.
    pub status: ExitStatus,
    /// When it had been started.
    pub started: Instant,
    /// What it said last on stderr.
    pub last_words: VecDeque<String>,
}

/// Signals to a process go this way, so that they never reach another one that got its number after its end.
#[derive(Debug)]
pub struct Handle {
    /// Its process id.
    pub pid: u32,
    signals: mpsc::UnboundedSender<Signal>,
}

impl Handle {
    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        // Fails when it has ended; that is told by [`Ended`].
        let _ = self.signals.send(signal);
    }
}

/// Starts service number `index`. Its end will be told to `ended`.
pub fn start(
    index: usize,
    service: &Service,
    listeners: &Listeners,
    ended: mpsc::UnboundedSender<Ended>,
) -> Result<Handle, SpawnError> {
    let program = match &service.program {
        Program::Other(path) => path.clone(),
        Program::Own => find_own(service.part.program()),
    };
    let spawn_error = |reason| SpawnError { name: service.name(), program: program.display().to_string(), reason };
    let passed = Passed::new(service.listeners(listeners)).map_err(spawn_error)?;
    let mut child = Command::new(&program)
        .arg0(service.part.program())
        .args(&service.arguments)
        .env(inherit::LISTEN_FDS, passed.variable())
        .env(RUNNER, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that Ctrl-C reaches the runner only.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn_error)?;
    drop(passed);
    let pid = child.id().unwrap_or_default();
    let (signals, received) = mpsc::unbounded_channel();
    let name = service.name();
    tokio::spawn(async move {
        let started = Instant::now();
        let (status, last_words) = watch(&mut child, &name, received).await;
        if let Ok(status) = status {
            let _ = ended.send(Ended { service: index, status, started, last_words });
        }
    });
    Ok(Handle { pid, signals })
}

async fn watch(
    child: &mut Child,
    name: &str,
    mut signals: mpsc::UnboundedReceiver<Signal>,
) -> (std::io::Result<ExitStatus>, VecDeque<String>) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let log_name = name.to_string();
    tokio::spawn(async move {
        if let Some(stdout) = stdout {
            output::pass_on(&log_name, stdout).await;
        }
    });
    let error_name = name.to_string();
    let errors = tokio::spawn(async move {
        match stderr {
            Some(stderr) => output::pass_on(&error_name, stderr).await,
            None => VecDeque::new(),
        }
    });
    let status = loop {
        let pid = child.id();
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = signals.recv() => if let Some(pid) = pid {
                // Until it is waited for above, the number is its own.
                let _ = kill(Pid::from_raw(pid as i32), signal);
            },
        }
    };
    // What it left behind may hold the other end of the pipe open for ever; its last words do not.
    let last_words = tokio::time::timeout(std::time::Duration::from_millis(200), errors).await;
    (status, last_words.ok().and_then(Result::ok).unwrap_or_default())
}
