// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs of Pushpin's in the place of ours: their command lines, and the files that they read.
//!
//! They are told everything by files in the run directory, which are made anew at each start of the runner, and when the
//! configuration changes. They take over no sockets and do not say when they serve.

mod condure;
pub mod launch;
pub mod mongrel2;
mod zurl;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use process::Failure;
use settings::original::Original;
use settings::{Part, Settings, pushpin_conf};

use crate::configuration::Configuration;
use crate::files::RunFiles;
use crate::service::{Program, Service};

/// What Pushpin's programs need to know, as they are to be told it.
struct Context<'a> {
    settings: &'a Settings,
    files: &'a RunFiles,
    /// Current directory: paths and addresses are made absolute, because Mongrel2 changes to another one.
    here: PathBuf,
}

impl Context<'_> {
    fn program(&self, setting: &str) -> PathBuf {
        self.settings.runner.original_programs.get(setting).cloned().unwrap_or_default()
    }

    /// Begins the addresses of the suite's sockets.
    fn base(&self) -> String {
        let Settings { global, .. } = self.settings;
        format!("ipc://{}/{}", self.here.join(&global.rundir).display(), global.ipc_prefix)
    }

    fn level(&self, name: &str) -> u8 {
        self.settings.runner.log_levels.of(name)
    }

    /// A service of this name. What it has no option for, its output, becomes its log file.
    fn service(&self, part: Part, name: &str, program: &str, arguments: Vec<OsString>) -> Service {
        Service {
            part,
            number: 0,
            file_name: name.into(),
            program: Program::Other(self.program(program)),
            arguments,
            output: None,
            instance_option: None,
        }
    }

    /// Where clients connect, and whether with TLS.
    fn ports(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let runner = &self.settings.runner;
        let plain = runner.http_ports.iter().map(|port| (port.address, false));
        plain.chain(runner.https_ports.iter().map(|port| (port.address, true)))
    }

    fn certificates(&self) -> PathBuf {
        self.here.join(&self.settings.frontend.certificates)
    }
}

/// The services that do the work of this part, for one of Pushpin's programs.
pub fn services(original: Original, part: Part, configuration: &Configuration, files: &RunFiles) -> Vec<Service> {
    let context = Context { settings: &configuration.settings, files, here: here() };
    match original {
        Original::Condure => vec![condure::condure(&context)],
        // One program is both parts; it is started for the first of them.
        Original::Connmgr if part == Part::Frontend => vec![condure::connmgr(&context)],
        Original::Connmgr => Vec::new(),
        Original::Mongrel2 => mongrel2::services(&context),
        Original::Zurl => vec![zurl::service(&context)],
    }
}

/// Writes the files that these services read.
pub fn write_files(configuration: &Configuration, files: &RunFiles) -> Result<(), Failure> {
    let settings = &configuration.settings;
    let context = Context { settings, files, here: here() };
    let programs = &settings.runner.programs;
    if [Part::Frontend, Part::Outbound, Part::Proxy, Part::Handler].iter().any(|part| programs.of(*part).is_some()) {
        let text = configuration.for_pushpin(&context.here)?;
        files.generate(pushpin_conf::FILE_NAME, &text)?;
    }
    for original in settings.runner.originals.iter() {
        match original {
            Original::Mongrel2 => mongrel2::write_files(&context)?,
            Original::Zurl => files.generate(zurl::FILE, &zurl::configuration(&context))?,
            Original::Condure | Original::Connmgr => {}
        }
    }
    Ok(())
}

/// The configuration of Pushpin's proxy and handler.
pub fn pushpin_conf(files: &RunFiles) -> PathBuf {
    files.generated(pushpin_conf::FILE_NAME)
}

fn here() -> PathBuf {
    // Fails when the directory has been removed; then nothing relative can be found by anybody.
    std::env::current_dir().unwrap_or_default()
}

fn option(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut text = OsString::from(format!("--{name}="));
    text.push(value);
    text
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
