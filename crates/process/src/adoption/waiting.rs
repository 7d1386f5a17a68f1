// SPDX-License-Identifier: AGPL-3.0-or-later
//! The thread of a component that notices the end of its runner, and lets in the next one.
//!
//! It is a thread because a process that hangs must end too when nobody is left to kill it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout};

use super::orphan::{Action, Event, Orphan};
use super::{About, LEAVING, PROTOCOL, TAKE, TAKEN, WHO, door};
use crate::passing::{Channel, Door, Received};
use crate::{inherit, log, orders, parent};

/// How long a runner at the door may take for a message that it has begun.
const PATIENCE: Duration = Duration::from_secs(1);

/// When nobody can be let in.
const AGAIN: Duration = Duration::from_millis(100);

/// What a component remembers for the next runner.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    /// Where the doors are.
    pub(crate) rundir: PathBuf,
    pub(crate) ipc_prefix: String,
    /// Which process this is: `pushpin-frontend-1`.
    pub(crate) name: String,
    /// How long it goes on without runner.
    pub(crate) grace: Duration,
    pub(crate) handed_down: Vec<u8>,
}

/// The file of a door, removed at the end of the process.
#[derive(Debug)]
pub(crate) struct DoorFile(PathBuf);

impl Drop for DoorFile {
    fn drop(&mut self) {
        // It may be gone together with its directory.
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits for the end of the runner at the other end of `line`, and for the next one. Each new line comes by the receiver.
///
/// # Errors
/// There can be no door or thread: then this process should end with its runner.
pub(crate) fn wait(keeper: Keeper, line: &File) -> io::Result<(DoorFile, mpsc::Receiver<File>)> {
    let path = door(&keeper.rundir, &keeper.ipc_prefix, &keeper.name, std::process::id());
    let door = Door::open(&path)?;
    let file = DoorFile(path);
    let (lines, receiver) = mpsc::channel();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let about = About {
        protocol: PROTOCOL,
        name: keeper.name,
        since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        arguments: std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect(),
        handed_down: keeper.handed_down,
        leaving: false,
        ending: false,
        sockets: Vec::new(),
    };
    let grace = keeper.grace;
    let mut waiting =
        Waiting { door, line: Some(line.try_clone()?), caller: None, orphan: Orphan::new(grace), grace, about, lines };
    thread::Builder::new().name("runner".into()).spawn(move || {
        loop {
            waiting.turn();
        }
    })?;
    Ok((file, receiver))
}

struct Waiting {
    door: Door,
    /// The line to the runner, until that is gone.
    line: Option<File>,
    /// A runner that has come.
    caller: Option<Channel>,
    orphan: Orphan,
    grace: Duration,
    about: About,
    lines: mpsc::Sender<File>,
}

impl Waiting {
    fn turn(&mut self) {
        let (lost, at_door, spoken) = self.look();
        if lost {
            self.line = None;
            tracing::warn!("the runner has ended; this process goes on for {} s", self.grace.as_secs());
            self.handle(Event::Lost);
        }
        self.handle(Event::Time);
        if at_door {
            match self.door.accept() {
                Ok(caller) => self.caller = caller,
                // For want of descriptors.
                Err(_) => thread::sleep(AGAIN),
            }
        }
        if spoken && let Some(mut caller) = self.caller.take() {
            match self.answer(&mut caller) {
                Ok(true) => self.caller = Some(caller),
                Ok(false) => {}
                Err(error) => tracing::warn!("a runner that has come breaks off: {error}"),
            }
        }
    }

    /// Waits, and says whether the runner has gone, whether another is at the door, and whether one that was let in says something.
    fn look(&self) -> (bool, bool, bool) {
        let timeout = self.orphan.deadline().map_or(PollTimeout::NONE, |deadline| {
            // The next whole millisecond, so that it does not come early and turn round and round.
            let wait = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
        });
        let ends = PollFlags::empty();
        let watched: [Option<(BorrowedFd<'_>, PollFlags)>; 3] = [
            self.line.as_ref().map(|line| (line.as_fd(), ends)),
            // Others wait until the one that is here is done.
            self.caller.is_none().then(|| (self.door.as_fd(), PollFlags::POLLIN)),
            self.caller.as_ref().map(|caller| (caller.as_fd(), PollFlags::POLLIN)),
        ];
        let mut fds: Vec<_> = watched.iter().flatten().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
        if poll(&mut fds, timeout).is_err() {
            return (false, false, false);
        }
        let mut happened = fds.iter().map(|fd| fd.any().unwrap_or_default());
        let [line, door, caller] = watched.map(|one| one.is_some() && happened.next().unwrap_or_default());
        (line, door, caller)
    }

    fn handle(&mut self, event: Event) {
        match self.orphan.handle(event, Instant::now()) {
            Some(Action::End) => {
                tracing::warn!("no runner has come; ending");
                // To the work loop, which takes it as from a runner.
                let _ = kill(Pid::this(), Signal::SIGTERM);
            }
            Some(Action::Kill) => {
                log::flush();
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            None => {}
        }
    }

    /// Does what a runner wants; whether it may want more.
    fn answer(&mut self, caller: &mut Channel) -> io::Result<bool> {
        caller.wait_for(Some(PATIENCE))?;
        let Some((message, files)) = caller.receive()? else { return Ok(false) };
        match message.as_slice() {
            WHO => {
                let (sockets, copies): (Vec<_>, Vec<_>) = inherit::copies()?.into_iter().unzip();
                let about = About {
                    leaving: LEAVING.load(std::sync::atomic::Ordering::Relaxed),
                    ending: self.orphan.is_ending(),
                    sockets,
                    ..self.about.clone()
                };
                let copies: Vec<_> = copies.iter().map(OwnedFd::as_fd).collect();
                caller.send(&about.to_bytes(), &copies)?;
                Ok(true)
            }
            TAKE => self.taken((message, files)).map(|()| false),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Another runner goes on with this process.
    fn taken(&mut self, (_, files): Received) -> io::Result<()> {
        let files: [OwnedFd; TAKEN] = files.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        let [line, orders, stdout, stderr] = files;
        dup2_stdout(stdout)?;
        dup2_stderr(stderr)?;
        log::reopen();
        orders::read(File::from(orders))?;
        let mut line = File::from(line);
        line.write_all(&parent::readiness())?;
        let watched = line.try_clone()?;
        // It is gone when the work loop has ended.
        let _ = self.lines.send(line);
        self.line = Some(watched);
        self.handle(Event::Adopted);
        tracing::info!("another runner goes on with this process");
        Ok(())
    }
}
