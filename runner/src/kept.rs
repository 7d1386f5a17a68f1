// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program of a running process, kept so that it can be started again.
//!
//! What a process runs is a file that stays when another one takes its name, as long as somebody has it open. So the way back
//! from an upgrade needs no copies, and no care of whoever has put the new files there.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// See the module.
#[derive(Debug)]
pub struct Kept(OwnedFd);

impl Kept {
    /// That of a process which runs.
    ///
    /// # Errors
    /// The process has ended, or its files can not be seen.
    pub fn of(pid: u32) -> io::Result<Self> {
        // Not opened for reading, which need not be allowed.
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        Ok(Self(open(format!("/proc/{pid}/exe").as_str(), flags, Mode::empty())?))
    }

    /// By this name the runner, and a child that is not the program yet, can start it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Where it was, for an operator.
    pub fn describe(&self) -> String {
        fs::read_link(self.path()).unwrap_or_else(|_| self.path()).display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_can_be_started_again_after_its_file_was_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("program");
        // By another process, so that no test in this one holds it open for writing when it is to be started.
        assert!(Command::new("/bin/cp").arg("/bin/cat").arg(&file).status().unwrap().success());
        let mut old = Command::new(&file).stdin(Stdio::piped()).spawn().unwrap();
        let kept = Kept::of(old.id()).unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, "another").unwrap();
        drop(old.stdin.take());
        assert!(old.wait().unwrap().success());
        let again = Command::new(kept.path()).arg("--version").output().unwrap();
        assert!(String::from_utf8(again.stdout).unwrap().starts_with("cat "));
        assert!(kept.describe().ends_with("program (deleted)"), "{}", kept.describe());
    }

    #[test]
    fn that_of_a_process_that_has_ended_can_not_be_kept() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Kept::of(child.id()).is_err());
    }
}
