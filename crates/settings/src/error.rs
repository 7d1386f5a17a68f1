// SPDX-License-Identifier: AGPL-3.0-or-later
//! What can be wrong with a configuration, always with the place and what to change.

use std::fmt;
use std::path::PathBuf;

/// Why no settings could be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file named on the command line, or found, cannot be read.
    #[error("failed to open config file: {} ({reason})", file.display())]
    Unreadable {
        /// Path as it was given.
        file: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// A value that its key cannot hold.
    #[error("{place}: {key}: {problem}")]
    BadValue {
        /// Where it stands.
        place: Place,
        /// Name of the key.
        key: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

/// A line of a configuration file, or the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name as it was given, or what stands for it.
    pub file: String,
    /// Line, from 1; 0 when the value is a default.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something in a configuration that has no effect, or not the one that its writer may expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}
