// SPDX-License-Identifier: AGPL-3.0-or-later
//! One running process: its start, its output, its signals and its end.

use std::collections::VecDeque;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::signals::hold_back;
use process::{BEAT, MAX_PAGE, ORDERS, PAGE, READY, RUNNER, SUCCESSOR, VERSION, inherit};
use settings::Part;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Level;

use crate::candidates::{Fit, Unfit};
use crate::line;
use crate::listeners::{Listeners, Passed};
use crate::originals::launch;
use crate::output;
use crate::service::{OWN_FILE, Program, Service};
use crate::systemd;

/// A program that cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{name}: Error running: {program} ({reason})")]
pub struct SpawnError {
    name: String,
    program: String,
    reason: io::Error,
}

/// The end of a process.
#[derive(Debug)]
pub struct Ended {
    /// Which service it was.
    pub service: usize,
    /// The process id that it had.
    pub pid: u32,
    /// How it ended; none if only its parent could know, which is not this runner.
    pub status: Option<ExitStatus>,
    /// When it had been started.
    pub started: Instant,
    /// What it said last on stderr.
    pub last_words: VecDeque<String>,
}

impl Ended {
    /// Whether it ended as it should, as far as can be known.
    pub fn ended_well(&self) -> bool {
        self.status.is_none_or(|status| status.success())
    }
}

/// Signals to a process go this way, so that they never reach another one that got its number after its end.
#[derive(Debug)]
pub struct Handle {
    /// Its process id.
    pub pid: u32,
    /// What it was started from.
    pub program: PathBuf,
    signals: mpsc::UnboundedSender<Signal>,
    /// Where one of ours reads orders.
    orders: Option<PipeWriter>,
}

impl Handle {
    pub(crate) fn new(
        pid: u32,
        program: PathBuf,
        signals: mpsc::UnboundedSender<Signal>,
        orders: Option<PipeWriter>,
    ) -> Self {
        Self { pid, program, signals, orders }
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        // Fails when it has ended; that is told by [`Ended`].
        let _ = self.signals.send(signal);
    }

    /// Has it log as much as this level says.
    ///
    /// # Errors
    /// It is not one of ours, or does not read.
    pub fn set_log_level(&self, level: u8) -> io::Result<()> {
        // Behind a level that it does not read there is room for some thousand, and then an error: this does not block.
        let mut orders = self.orders.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        orders.write_all(&[level])
    }
}

/// What the runner is told of its children.
#[derive(Debug)]
pub enum News {
    /// A service serves.
    Ready {
        /// Which service.
        service: usize,
        /// Its process, which may have ended since.
        pid: u32,
    },
    /// Its work loop goes round.
    Beat {
        /// Which service.
        service: usize,
        /// Its process, which may have ended since.
        pid: u32,
    },
    /// It tells which version it is.
    Version {
        /// Which service.
        service: usize,
        /// Its process, which may have ended since.
        pid: u32,
        /// The version.
        version: String,
    },
    /// It tells how it is.
    Told {
        /// Which service.
        service: usize,
        /// Its process, which may have ended since.
        pid: u32,
        /// Its metrics.
        page: String,
    },
    /// It has ended.
    Ended(Ended),
    /// Programs have been asked whether they can replace those that run.
    Examined(Vec<(Part, Result<Fit, Unfit>)>),
}

/// Starts service number `index` from this program, perhaps beside the process that it is to replace, and hands it this configuration. What becomes of it will be told to `news`.
pub fn start(
    index: usize,
    service: &Service,
    program: PathBuf,
    configuration: Arc<[u8]>,
    listeners: &Listeners,
    beside: bool,
    news: mpsc::UnboundedSender<News>,
) -> Result<Handle, SpawnError> {
    match program.to_str() {
        Some(OWN_FILE) => tracing::info!("starting {}, which this program has inside", service.name()),
        _ => tracing::info!("starting {} from {}", service.name(), program.display()),
    }
    let spawn_error = |reason| SpawnError { name: service.name(), program: program.display().to_string(), reason };
    let own = service.program == Program::Own;
    let passed = Passed::new(listeners.of(service)).map_err(spawn_error)?;
    let (ours, theirs) = line::line().map_err(spawn_error)?;
    let mut command = if own { Command::new(&program) } else { Command::new(OWN_FILE) };
    command.env(RUNNER, std::process::id().to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What systemd wants to know, the runner tells it, and what it has kept is the runner's.
    for variable in [systemd::SOCKET, systemd::WATCHDOG, systemd::WATCHDOG_PID].into_iter().chain(inherit::KEPT) {
        command.env_remove(variable);
    }
    // A group of its own, so that Ctrl-C reaches the runner only.
    command.process_group(0).kill_on_drop(true);
    if own {
        command.arg0(service.part.program()).args(&service.arguments).stdin(theirs);
        command.env(inherit::LISTEN_FDS, passed.variable());
        if beside {
            command.env(SUCCESSOR, "1");
        }
    } else {
        other(&mut command, &program, service).map_err(spawn_error)?;
    }
    let mut orders = None;
    let mut read_orders = None;
    if own {
        let (reader, writer) = line::pipe().map_err(spawn_error)?;
        command.env(ORDERS, reader.as_raw_fd().to_string());
        (orders, read_orders) = (Some(writer), Some(reader));
    }
    // Others may never take them over.
    let spawned = if own { hold_back(|| command.spawn()) } else { Ok(command.spawn()) };
    let mut child = spawned.flatten().map_err(spawn_error)?;
    drop((passed, read_orders));
    let pid = child.id().unwrap_or_default();
    let (signals, received) = mpsc::unbounded_channel();
    let name = service.name();
    let told = news.clone();
    tokio::spawn(async move {
        let mut line = ours;
        // A child that does not read, or has ended, does not serve either.
        if line.write_all(&configuration).await.is_ok() && line.shutdown().await.is_ok() {
            listen(line, index, pid, told).await;
        }
    });
    tokio::spawn(async move {
        let started = Instant::now();
        let (status, last_words) = watch(&mut child, name, received).await;
        if let Ok(status) = status {
            let _ = news.send(News::Ended(Ended { service: index, pid, status: Some(status), started, last_words }));
        }
    });
    Ok(Handle { pid, program, signals, orders })
}

/// Passes on what a child tells, from that it serves on. A program that does not say that tells nothing.
pub async fn listen(mut line: UnixStream, service: usize, pid: u32, news: mpsc::UnboundedSender<News>) {
    let mut answer = [0];
    if line.read_exact(&mut answer).await.is_err() || answer != [READY] {
        return;
    }
    let _ = news.send(News::Ready { service, pid });
    while let Some((kind, text)) = frame(&mut line).await {
        let _ = match kind {
            VERSION => news.send(News::Version { service, pid, version: text }),
            PAGE => news.send(News::Told { service, pid, page: text }),
            BEAT => news.send(News::Beat { service, pid }),
            // Of a newer version.
            _ => Ok(()),
        };
    }
}

/// The command of a program that is not ours: it gets neither sockets nor a line to the runner.
fn other(command: &mut Command, program: &Path, service: &Service) -> io::Result<()> {
    command.arg0(launch::NAME).arg(program).args(&service.arguments).stdin(Stdio::null());
    if let Some(name) = service.instance_option {
        command.arg(format!("--{name}={}", process::instance_id(&service.name())));
    }
    if let Some(file) = &service.output {
        let file = process::log::append(file)?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    Ok(())
}

/// The next thing that it tells, and of which kind that is; none at the end, or if it is nothing of the sort.
async fn frame(line: &mut UnixStream) -> Option<(u8, String)> {
    let mut head = [0; 5];
    line.read_exact(&mut head).await.ok()?;
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PAGE {
        return None;
    }
    let mut text = vec![0; length];
    line.read_exact(&mut text).await.ok()?;
    Some((kind, String::from_utf8(text).ok()?))
}

async fn watch(
    child: &mut Child,
    name: String,
    mut signals: mpsc::UnboundedReceiver<Signal>,
) -> (io::Result<ExitStatus>, VecDeque<String>) {
    let errors = pass_on(name, child.stdout.take(), child.stderr.take());
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
    (status, last_words(errors).await)
}

/// Passes on what a process of this name writes; what comes back has what it writes last on stderr.
pub fn pass_on<O, E>(name: String, stdout: Option<O>, stderr: Option<E>) -> JoinHandle<VecDeque<String>>
where
    O: AsyncRead + Unpin + Send + 'static,
    E: AsyncRead + Unpin + Send + 'static,
{
    let log_name = name.clone();
    tokio::spawn(async move {
        if let Some(stdout) = stdout {
            output::pass_on(&log_name, Level::INFO, stdout).await;
        }
    });
    tokio::spawn(async move {
        match stderr {
            Some(stderr) => output::pass_on(&name, Level::ERROR, stderr).await,
            None => VecDeque::new(),
        }
    })
}

/// What a process that has ended wrote last on stderr.
pub async fn last_words(errors: JoinHandle<VecDeque<String>>) -> VecDeque<String> {
    // What it left behind may hold the other end of the pipe open for ever; its last words do not.
    let last_words = tokio::time::timeout(std::time::Duration::from_millis(200), errors).await;
    last_words.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_named_pipe_as_the_log_of_another_program_does_not_wait_for_its_reader() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let service = Service {
            part: Part::Outbound,
            number: 0,
            program: crate::service::Program::Other("/usr/bin/zurl".into()),
            file_name: "zurl".into(),
            arguments: Vec::new(),
            output: Some(path),
            instance_option: None,
        };
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let opened = other(&mut Command::new("true"), Path::new("/usr/bin/zurl"), &service);
            done.send(opened.is_ok()).unwrap();
        });
        assert!(is_done.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}
