// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where a configuration comes from.

use std::path::{Path, PathBuf};

/// A configuration to load, with what the command line says about it.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The text.
    pub origin: Origin,
    /// `--ipc-prefix`: replaces the setting.
    pub ipc_prefix: Option<String>,
    /// `--port-offset`: replaces the setting.
    pub port_offset: Option<u16>,
    /// `--route`: these lines are the routes, and no file is read.
    pub routes: Vec<String>,
    /// Whether our runner starts the parts: then those that it starts have our sockets, whatever other addresses the file has
    /// for their counterparts in Pushpin.
    pub supervised: bool,
}

/// The text of a configuration.
#[derive(Clone, Debug, Default)]
pub enum Origin {
    /// What is built into the program.
    #[default]
    BuiltIn,
    /// A file.
    File(PathBuf),
    /// A text at hand, for tests.
    Text(String),
}

/// Tried in this order when no file is named.
const PLACES: [&str; 4] =
    ["config/pushpin.conf", "pushpin.conf", "examples/config/pushpin.conf", "/etc/pushpin/pushpin.conf"];

impl Origin {
    /// The file named on the command line, else the first that exists of those in the usual places, else what is built in.
    pub fn find(named: Option<&Path>) -> Self {
        match named {
            Some(path) => Self::File(path.to_path_buf()),
            None => PLACES.iter().map(Path::new).find(|p| p.is_file()).map_or(Self::BuiltIn, |p| Self::File(p.into())),
        }
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn => "built-in configuration".into(),
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "text".into(),
        }
    }

    /// The directory that relative names in it start from.
    pub fn directory(&self) -> PathBuf {
        match self {
            Self::File(path) => path.parent().map_or_else(PathBuf::new, Path::to_path_buf),
            Self::BuiltIn | Self::Text(_) => PathBuf::new(),
        }
    }
}
