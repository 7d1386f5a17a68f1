// SPDX-License-Identifier: AGPL-3.0-or-later
//! One process to start, and the program that it is started from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use settings::Part;

/// One process to start.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is.
    pub part: Part,
    /// Number among those of the same part, from 0.
    pub number: usize,
    /// Program to start.
    pub program: Program,
    /// Name of pid and log files: `pushpin-proxy`, `pushpin-frontend-1`.
    pub file_name: String,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The log file of a program that has no option for one: it gets its output.
    pub output: Option<PathBuf>,
    /// The option by which a program is told its instance id, which must be another one at each start: peers of one that
    /// died still have sessions with it.
    pub instance_option: Option<&'static str>,
}

/// Where a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Named by a setting, or one of Pushpin's.
    Other(PathBuf),
    /// Ours: looked for at each start.
    Own,
}

impl Service {
    /// Name in log lines: `proxy`, `frontend-1`.
    pub fn name(&self) -> String {
        self.file_name.strip_prefix("pushpin-").unwrap_or(&self.file_name).into()
    }

    /// Whether a signal that ours know is good for it. Condure ends when it gets HUP.
    pub fn knows_hup(&self) -> bool {
        self.instance_option.is_none()
    }

    /// Has it log as much as this level says when it is started again.
    pub fn set_log_level(&mut self, level: u8) {
        let is_level = |argument: &&mut OsString| argument.to_str().is_some_and(|text| text.starts_with("--loglevel="));
        if let Some(argument) = self.arguments.iter_mut().find(is_level) {
            *argument = format!("--loglevel={level}").into();
        }
    }

    /// Whether it tells when it serves, as ours do.
    pub fn tells_when_ready(&self) -> bool {
        self.program == Program::Own
    }

    /// Whether it makes session tickets for clients with TLS.
    pub fn makes_tickets(&self) -> bool {
        self.part == Part::Frontend && self.program == Program::Own
    }
}

/// By this name it is still the file that we were started from, even if a newer one has been put in its place.
pub const OWN_FILE: &str = "/proc/self/exe";

/// A file that [`Program::path`] names, for an operator.
pub fn describe(program: &Path) -> String {
    if program.to_str() != Some(OWN_FILE) {
        return program.display().to_string();
    }
    std::env::current_exe().map_or_else(|_| OWN_FILE.into(), |own| own.display().to_string())
}

/// Where the program of a part is that a package installs, if one does.
pub fn beside(part: Part) -> Option<PathBuf> {
    std::env::current_exe().ok().map(|own| own.with_file_name(part.program()))
}

impl Program {
    /// The file to start for this part. Ours is the one beside the runner, as a package installs it, whatever its age: it may
    /// have been rolled back. Where there is none, the runner has the part inside, and recognises it by the name that it is
    /// called by.
    pub fn path(&self, part: Part) -> PathBuf {
        match self {
            Self::Other(path) => path.clone(),
            Self::Own => beside(part).filter(|path| path.is_file()).unwrap_or_else(|| OWN_FILE.into()),
        }
    }
}
