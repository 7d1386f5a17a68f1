// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the files of a configuration, and looks for the programs that it names.

use std::path::{Path, PathBuf};

use crate::BUILT_IN_CONFIG;
use crate::error::Error;
use crate::keys::KeyFiles as _;
use crate::original::{self, Original, Programs};
use crate::raw::{Raw, Texts};
use crate::source::{Origin, Source};
use crate::table::{self, Kind};
use crate::variables::Variables;

/// Where packages of Pushpin put their `internal.conf`.
const LIBDIRS: [&str; 2] = ["/usr/lib/pushpin", "/usr/local/lib/pushpin"];

impl Raw {
    /// Reads all files of a configuration.
    pub fn read(source: &Source) -> Result<Self, Error> {
        let main = match &source.origin {
            Origin::BuiltIn => BUILT_IN_CONFIG.to_string(),
            Origin::Text(text) => text.clone(),
            Origin::File(path) => read(path).map_err(|reason| Error::Unreadable { file: path.clone(), reason })?,
        };
        let mut raw = Self::parse(Texts { name: source.origin.name(), main, ..Texts::default() });
        let directory = source.origin.directory();
        if let Some(path) = raw.path_to_include(source, &directory) {
            match read(&path) {
                Ok(text) => raw.texts.included = Some((path.display().to_string(), text)),
                Err(reason) => {
                    let text = format!("included file {} is not read: {reason}", path.display());
                    raw.texts.not_included = Some(text);
                }
            }
            raw = Self::parse(raw.texts);
        }
        if source.supervised {
            raw.texts.programs = raw.find_programs(source);
        }
        raw.texts.key_files = raw.key_files().map(|name| (name.to_string(), directory.read(name))).collect();
        Ok(raw)
    }

    /// The file to include, if one is named. Pushpin's `internal.conf` describes the sockets between its processes, which
    /// have other names here; our runner's parts read it only when somebody says where it is. Without our runner, the
    /// processes beside this one may be Pushpin's, and the file means what it means to them.
    fn path_to_include(&self, source: &Source, directory: &Path) -> Option<PathBuf> {
        let named = self.main.find("global", "include")?.items.first().filter(|name| !name.is_empty())?;
        let mut variables = Variables::of(self, source);
        if !source.supervised && variables.libdir.is_empty() {
            let installed = LIBDIRS.into_iter().find(|directory| Path::new(directory).join("internal.conf").is_file());
            variables.libdir = installed.unwrap_or_default().into();
        }
        if matches!(named.as_str(), "internal.conf" | "{libdir}/internal.conf") {
            return (!variables.libdir.is_empty()).then(|| Path::new(&variables.libdir).join("internal.conf"));
        }
        Some(directory.join(variables.fill_in(named)))
    }

    fn find_programs(&self, source: &Source) -> Programs {
        let variables = Variables::of(self, source);
        let services = self.entry("runner", "services").map(|entry| entry.items.join(",")).unwrap_or_default();
        let services =
            services.split(',').filter_map(|name| Original::named(name.trim().trim_start_matches("pushpin-")));
        let mut found = Programs::new();
        for key in services.flat_map(Original::programs) {
            let default = table::find("runner", key).map_or("", |setting| setting.default);
            let name = variables.fill_in(self.item("runner", key).unwrap_or(default));
            if let Some(path) = original::find_program(&name) {
                found.insert(key.to_string(), path.to_string_lossy().into_owned());
            }
        }
        found
    }

    fn key_files(&self) -> impl Iterator<Item = &str> {
        let keys = table::SETTINGS.iter().filter(|setting| setting.kind == Kind::Key);
        keys.filter_map(|setting| self.item(setting.section, setting.name)?.strip_prefix("file:"))
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str, text: &str) -> Source {
        std::fs::write(directory.join(name), text).unwrap();
        Source { origin: Origin::File(directory.join(name)), ..Source::default() }
    }

    #[test]
    fn what_is_handed_down_is_read_as_it_was_whatever_happens_to_the_files() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "more.conf", "[handler]\ncommand_spec=tcp://127.0.0.1:1\n");
        write(directory.path(), "key", "00ff\n");
        let text = "[global]\ninclude=more.conf\n[proxy]\nsig_key=file:key\n";
        let source = write(directory.path(), "pushpin.conf", text);
        let raw = Raw::read(&source).unwrap();
        let before = raw.settings(&source).unwrap();
        for name in ["more.conf", "key", "pushpin.conf"] {
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        let handed_down = Raw::from_bytes(&raw.to_bytes()).unwrap();
        let after = handed_down.settings(&source).unwrap();
        assert_eq!(after, before);
        assert_eq!(after.0.handler.command_spec.as_deref(), Some("tcp://127.0.0.1:1"));
        assert!(after.0.proxy.sig_key.is_some());
    }

    #[test]
    fn a_key_file_that_is_not_there_is_an_error_with_the_line_of_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let source = write(directory.path(), "pushpin.conf", "[proxy]\nsig_key=file:nothing\n");
        let error = Raw::read(&source).unwrap().settings(&source).unwrap_err().to_string();
        assert!(error.contains("pushpin.conf:2: sig_key") && error.contains("nothing"), "{error}");
    }
}
