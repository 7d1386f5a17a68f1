// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that a runner before this one has left behind: found at their doors in the run directory (see [`process::adoption`]).
//!
//! They are no children of this runner. It sees their end, and sends them signals, by descriptors that stand for a process and not for
//! a number, which the system may have given to another one.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use process::adoption::{self, About, TAKE, WHO};
use process::passing::Channel;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// How long one may take to answer. Its door is looked after by a thread that does nothing else.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one may take to end before it is killed.
const END: Duration = Duration::from_secs(5);

/// A running process that is not a child of ours.
#[derive(Debug)]
pub struct Stranger {
    /// Its process id.
    pub pid: u32,
    fd: OwnedFd,
}

impl Stranger {
    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
            // Fails when it has ended.
            let _ = pidfd_send_signal(&self.fd, signal);
        }
    }

    /// Waits for its end.
    pub fn wait(&self) {
        // Interrupted by signals, perhaps.
        while !self.ended_within(PATIENCE) {}
    }

    /// The same; whether it came in time.
    fn ended_within(&self, time: Duration) -> bool {
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], time), Ok(1..))
    }
}

/// One that waits for a runner.
#[derive(Debug)]
pub struct Orphan {
    /// The process.
    pub process: Stranger,
    /// What it says of itself; none if it says nothing that is understood.
    pub about: Option<About>,
    /// Copies of its listening sockets, in the order in which it names them.
    pub sockets: Vec<OwnedFd>,
    channel: Channel,
}

impl Orphan {
    /// Has it tell this runner from now on, and log to it.
    ///
    /// # Errors
    /// It has gone.
    pub fn take(&self, files: [BorrowedFd<'_>; adoption::TAKEN]) -> io::Result<()> {
        self.channel.send(TAKE, &files)
    }
}

/// All that are there. Doors of which nobody is behind are removed.
pub fn find(rundir: &Path, ipc_prefix: &str) -> Vec<Orphan> {
    let prefix = adoption::door_prefix(ipc_prefix);
    let entries = fs::read_dir(rundir).into_iter().flatten().flatten();
    let doors = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    let mut found = Vec::new();
    for door in doors {
        let path = door.path();
        match ask(&path) {
            Ok(orphan) => found.push(orphan),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Another one may have removed it.
                let _ = fs::remove_file(&path);
            }
            Err(error) => tracing::warn!("{}: {error}", path.display()),
        }
    }
    found
}

fn ask(door: &Path) -> io::Result<Orphan> {
    let mut channel = Channel::connect_within(door, PATIENCE)?;
    let pid = getsockopt(&channel, sockopt::PeerCredentials)?.pid();
    let unknown = || io::Error::other("the process behind it is not to be seen from here");
    let fd = pidfd_open(Pid::from_raw(pid).ok_or_else(unknown)?, PidfdFlags::empty())?;
    // The number was that of whoever listens. If that one still does, the descriptor is its own; one that has ended answers nothing.
    let process = Stranger { pid: pid.unsigned_abs(), fd };
    let answer = channel.send(WHO, &[]).and_then(|()| channel.receive());
    let (about, sockets) = match answer {
        Ok(Some((message, sockets))) => (About::from_bytes(&message), sockets),
        Ok(None) => return Err(io::ErrorKind::ConnectionRefused.into()),
        // It hangs, but the connection is there, and so is the process.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => (None, Vec::new()),
        Err(error) => return Err(error),
    };
    let about = about.filter(|about| about.sockets.len() == sockets.len());
    Ok(Orphan { process, about, sockets, channel })
}

/// Has these end in order, by force if they take too long, and waits for it.
pub fn end(orphans: &[Orphan]) {
    orphans.iter().for_each(|orphan| orphan.process.signal(Signal::SIGTERM));
    let late = std::time::Instant::now() + END;
    for orphan in orphans {
        let left = late.saturating_duration_since(std::time::Instant::now());
        if !orphan.process.ended_within(left) {
            tracing::warn!("process {} of a former runner takes too long to end and is killed", orphan.process.pid);
            orphan.process.signal(Signal::SIGKILL);
            let _ = orphan.process.ended_within(END);
        }
    }
}
