// SPDX-License-Identifier: AGPL-3.0-or-later
//! The configuration in force: what the files said when they were last read and good, and what the command line adds.

use std::path::Path;
use std::sync::Arc;

use settings::{Error, Origin, Raw, Settings, Source, Warning};

use crate::arguments::Arguments;

/// What all parts start with, until a better one is read.
#[derive(Debug)]
pub struct Configuration {
    source: Source,
    raw: Raw,
    /// Checked, with the command line's say.
    pub settings: Settings,
    /// Lines without effect, for the log.
    pub warnings: Vec<Warning>,
}

/// What became of the files since they were read.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// Parts take this over when they start again.
    Later(Box<Configuration>),
}

/// Why the configuration in force stays.
#[derive(Debug, thiserror::Error)]
pub enum RereadError {
    /// A mistake, with file and line.
    #[error(transparent)]
    Wrong(#[from] Error),
    /// Parts that run and parts that start later would not find each other.
    #[error(
        "addresses, directories, services or programs have changed in {file}; only a restart of the runner takes that over"
    )]
    Structure {
        /// Name of the file.
        file: String,
    },
}

impl Configuration {
    /// Reads what the command line names, or what is found without.
    pub fn read(arguments: &Arguments) -> Result<Self, Error> {
        Self::from(arguments.source(), arguments)
    }

    fn from(source: Source, arguments: &Arguments) -> Result<Self, Error> {
        let raw = Raw::read(&source)?;
        let (mut settings, warnings) = raw.settings(&source)?;
        if let Some(port) = &arguments.port {
            settings.runner.http_ports = vec![settings::Port { address: *port, proxied: false }];
            settings.runner.https_ports.clear();
            settings.runner.local_ports.clear();
        }
        if let Some(levels) = &arguments.loglevel {
            settings.runner.log_levels = levels.clone();
        }
        Ok(Self { source, raw, settings, warnings })
    }

    /// Reads the same files again. Nothing changes here before the new configuration has been found good.
    pub fn reread(&self, arguments: &Arguments) -> Result<Change, RereadError> {
        let new = Self::from(self.source.clone(), arguments)?;
        if new.raw == self.raw {
            return Ok(Change::None);
        }
        if new.settings.structure() != self.settings.structure() {
            return Err(RereadError::Structure { file: self.raw.name().into() });
        }
        Ok(Change::Later(Box::new(new)))
    }

    /// Whether processes that were handed down this by another runner find those of this one.
    pub fn fits(&self, handed_down: &[u8]) -> bool {
        let settings = Raw::from_bytes(handed_down).ok().and_then(|raw| raw.settings(&self.source).ok());
        // What the command line says of ports is in none of both; sockets are compared beside this.
        let own = self.raw.settings(&self.source).ok();
        matches!((settings, own), (Some((theirs, _)), Some((own, _))) if theirs.structure() == own.structure())
    }

    /// The same for Pushpin's own proxy and handler, as a file; `here` is the current directory.
    pub fn for_pushpin(&self, here: &Path) -> Result<String, Error> {
        settings::pushpin_conf::text(&self.raw, &self.source, &self.settings, here)
    }

    /// The file that it was read from, or what stands in for it.
    pub fn name(&self) -> String {
        match &self.source.origin {
            Origin::File(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
            _ => self.raw.name().into(),
        }
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What parts are handed.
    pub fn to_bytes(&self) -> Arc<[u8]> {
        self.raw.to_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn change(before: &str, after: &str) -> Result<Change, RereadError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pushpin.conf");
        let arguments = Arguments::parse_from(["r", "--config", file.to_str().unwrap()]);
        std::fs::write(&file, before).unwrap();
        let configuration = Configuration::read(&arguments).unwrap();
        std::fs::write(&file, after).unwrap();
        configuration.reread(&arguments)
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_nothing_changes() {
        let error = change("", "[proxy]\n\ndebug=perhaps\n").unwrap_err().to_string();
        assert!(error.contains("pushpin.conf:3: debug: `perhaps`"), "{error}");
    }

    #[test]
    fn what_only_one_part_needs_is_taken_over_later() {
        let Ok(Change::Later(new)) = change("[handler]\nmessage_wait=1\n", "[handler]\nmessage_wait=2\n") else {
            panic!("it was not taken over");
        };
        assert_eq!(new.settings.handler.message_wait.as_millis(), 2);
        assert!(matches!(change("[proxy]\n", "[proxy]\n"), Ok(Change::None)));
    }

    #[test]
    fn what_parts_must_agree_on_is_not() {
        for line in
            ["[global]\nrundir=other", "[global]\nipc_prefix=x", "[runner]\nhttp_port=1", "[runner]\nservices=proxy"]
        {
            assert!(matches!(change("", line), Err(RereadError::Structure { .. })), "{line}");
        }
        let spec = "[proxy]\nhandler_inspect_spec=ipc://elsewhere";
        assert!(matches!(change("", spec), Err(RereadError::Structure { .. })));
    }
}
