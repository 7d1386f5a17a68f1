// SPDX-License-Identifier: AGPL-3.0-or-later
//! The file in which a successor finds the frontends that have not got everything.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use transport::Reason;

use super::Worker;
use crate::take_over::arrears::{Arrears, MAX_FILE};

/// See the module.
pub(super) struct ArrearsFile {
    /// None if frontends keep nothing.
    path: Option<PathBuf>,
    /// What it says.
    pub(super) arrears: Arrears,
}

impl ArrearsFile {
    /// Reads what a predecessor has left at this path.
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        let left = path.as_deref().map(read).unwrap_or_default();
        ArrearsFile { path, arrears: Arrears::read(&left) }
    }

    /// Writes it, at once for whoever reads it.
    pub(super) fn write(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.arrears.is_empty() {
            return fs::remove_file(path).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            });
        }
        let new = path.with_extension("new");
        fs::write(&new, self.arrears.file())?;
        fs::rename(&new, path)
    }
}

/// One that can not be read says nothing, as one that is not there.
fn read(path: &Path) -> Vec<u8> {
    let mut left = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut left));
    left
}

impl Worker {
    /// These frontends have not got everything, and their publishers are about to be told that they need not wait.
    pub(super) fn owe<'a>(&mut self, frontends: impl Iterator<Item = &'a [u8]>, now: Instant) {
        let file = &mut self.arrears;
        if frontends.filter(|name| file.arrears.add_waiting(name)).count() > 0 {
            self.write_arrears(now);
        }
    }

    /// The link to a frontend has ended.
    pub(super) fn note_end(&mut self, frontend: &[u8], reason: Reason, now: Instant) {
        let arrears = &mut self.arrears.arrears;
        // Only if it hangs, it may still have its clients.
        let changed = if reason == Reason::Stuck { arrears.add_cut(frontend) } else { arrears.on_gone(frontend) };
        if changed {
            self.write_arrears(now);
        }
    }

    /// Forgets frontends that have got everything.
    pub(super) fn settle_arrears(&mut self, now: Instant) {
        if self.arrears.arrears.is_settled() {
            return;
        }
        let behind = self.outputs.behind(&self.engine);
        if self.arrears.arrears.settle(|name| behind.iter().any(|(other, _)| other == name)) {
            self.write_arrears(now);
        }
    }

    pub(super) fn write_arrears(&mut self, now: Instant) {
        if let Err(error) = self.arrears.write() {
            let text = format_args!(
                "frontends that have not got everything can not be written down: {error}; if this process ends now, their clients miss messages"
            );
            self.outputs.warnings.warn("arrears", now, text);
        }
    }
}
