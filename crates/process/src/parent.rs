// SPDX-License-Identifier: AGPL-3.0-or-later
//! A component and the runner that started it.
//!
//! The runner is at the other end of stdin, which is a socket: it sends the configuration that it has checked, and maybe a
//! secret, and closes its direction; the component answers with one byte when it serves, and then tells its version and how it is.
//! Programs of others may ignore it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Variable in which the runner tells its process id to the components that it starts.
pub const RUNNER: &str = "PUSHPIN_RUNNER";

/// Variable in which the runner tells a component that it is to replace one which still runs.
pub const SUCCESSOR: &str = "PUSHPIN_SUCCESSOR";

pub(crate) fn is_successor() -> bool {
    started_by_runner() && std::env::var_os(SUCCESSOR).is_some()
}

/// What a component sends when it serves. Frames follow: a byte that says what it is, four bytes of length, text.
pub const READY: u8 = b'r';

/// A frame with the component's version.
pub const VERSION: u8 = b'v';

/// An empty frame: the work loop goes round.
pub const BEAT: u8 = b'b';

/// A frame with a page of metrics.
pub const PAGE: u8 = b'p';

/// The beginning of a frame with a text of this length; none if a length can not say it.
pub(crate) fn frame_head(kind: u8, length: usize) -> Option<[u8; 5]> {
    let [a, b, c, d] = u32::try_from(length).ok()?.to_le_bytes();
    Some([kind, a, b, c, d])
}

fn runner() -> Option<Pid> {
    Some(Pid::from_raw(std::env::var(RUNNER).ok()?.parse().ok()?))
}

/// Whether the runner started this process.
pub(crate) fn started_by_runner() -> bool {
    runner().is_some()
}

/// Has this process, and what it may become, stopped when its runner dies, however it dies: a suite without runner would hold its ports for ever.
pub fn die_with_runner() {
    let Some(runner) = runner() else { return };
    // Fails on no system that has the call.
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    if getppid() != runner {
        // It died before the line above.
        std::process::exit(0);
    }
}

/// Has this process go on when its runner dies; it takes care of its end itself.
pub(crate) fn outlive_runner() {
    // As above. If the runner has died before, the signal is there already.
    let _ = prctl::set_pdeathsig(None);
}

/// What a component says first: that it serves, and which version it is.
pub(crate) fn readiness() -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let head = frame_head(VERSION, version.len()).unwrap_or_default();
    [&[READY], &head[..], version.as_bytes()].concat()
}

/// The line to the runner.
#[derive(Debug)]
pub(crate) struct Parent(File);

impl Parent {
    /// Takes over stdin; none when somebody else started this process.
    pub(crate) fn of_this_process() -> io::Result<Option<Self>> {
        if !started_by_runner() {
            return Ok(None);
        }
        Ok(Some(Self(io::stdin().as_fd().try_clone_to_owned()?.into())))
    }

    /// The configuration and the secret that it hands down; empty if it does not.
    pub(crate) fn handed_down(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Tells it that this component serves, and which version it is.
    pub(crate) fn ready(&mut self) {
        // A runner that is not there any more is noticed otherwise.
        let _ = self.0.write_all(&readiness());
    }

    /// The line.
    pub(crate) fn line(&self) -> &File {
        &self.0
    }

    /// The line, for what is told later.
    pub(crate) fn into_file(self) -> File {
        self.0
    }
}

/// Shows `name` in `ps` and `/proc`, of which the kernel keeps 15 bytes.
pub fn name_this_process(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|b| *b != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        // A name is for people; without it all works.
        let _ = prctl::set_name(&name);
    }
}
