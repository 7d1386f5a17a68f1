// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the files of a configuration say, with line numbers, before anything is checked.
//!
//! It is also what the runner hands to the processes that it starts: a part that is started again reads what the runner
//! has checked, not a file that somebody may just be editing. Texts are handed down and not checked values, so that a
//! program of another version finds what it knows and has its own defaults for the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::BUILT_IN_CONFIG;
use crate::error::{Error, Place, Warning};
use crate::ini::{Document, Entry};
use crate::keys::KeyFiles;
use crate::original::{self, Original, Programs};
use crate::source::{Origin, Source};
use crate::table::{self, Kind};

/// Where packages of Pushpin put their `internal.conf`.
const LIBDIRS: [&str; 2] = ["/usr/lib/pushpin", "/usr/local/lib/pushpin"];

/// The texts of a configuration: `pushpin.conf`, what it includes, and the files of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    texts: Texts,
    pub(crate) main: Document,
    pub(crate) included: Document,
}

/// The part of it that another process needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Texts {
    /// Name of the main file, for messages.
    name: String,
    main: String,
    /// Name and text of the included file.
    included: Option<(String, String)>,
    /// Why there is none, though one is named.
    not_included: Option<String>,
    /// What was read for keys that begin with `file:`, by what stands behind it; or why it could not be read.
    key_files: BTreeMap<String, Result<String, String>>,
    /// Programs of Pushpin's that `services` names, as far as they are installed, by the setting that names them. Only the
    /// runner looks for them: its parts have to be of one mind.
    #[serde(default)]
    programs: Programs,
}

/// What another process handed down cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the configuration that the runner handed down cannot be read: {0}")]
pub struct HandedDownError(#[from] tnetstring::Error);

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

    fn parse(texts: Texts) -> Self {
        let mut main = Document::parse(&texts.main, &texts.name);
        if let (Some(text), Some(entry)) = (&texts.not_included, main.find("global", "include")) {
            let place = entry.place.clone();
            main.warnings.push(Warning { place, text: text.clone() });
        }
        let included = texts.included.as_ref().map(|(name, text)| Document::parse(text, name)).unwrap_or_default();
        Self { texts, main, included }
    }

    /// What to hand down to another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        tnetstring::to_vec(&self.texts).expect("texts have a form in tnetstring")
    }

    /// Takes what another process handed down.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HandedDownError> {
        Ok(Self::parse(tnetstring::from_slice(bytes)?))
    }

    /// Name of the main file, for messages.
    pub fn name(&self) -> &str {
        &self.texts.name
    }

    /// The line that counts for a key. An empty one counts as not written where no value is empty: many files have all keys
    /// that there are, without values.
    pub(crate) fn entry(&self, section: &str, key: &str) -> Option<&Entry> {
        let kind = table::find(section, key).map(|setting| setting.kind);
        let never_empty = matches!(kind, Some(Kind::Int(..) | Kind::Octal | Kind::Levels | Kind::Choice(_)));
        let counts = |entry: &&Entry| !never_empty || entry.items.iter().any(|item| !item.is_empty());
        self.main.find(section, key).filter(counts).or_else(|| self.included.find(section, key).filter(counts))
    }

    /// The one item of a key, if it has one.
    pub(crate) fn item(&self, section: &str, key: &str) -> Option<&str> {
        self.entry(section, key)?.items.first().map(String::as_str).filter(|item| !item.is_empty())
    }

    /// Where something is not as its writer may expect, apart from lines that cannot be read.
    pub(crate) fn place_of(&self, section: &str, key: &str) -> Option<Place> {
        self.entry(section, key).map(|entry| entry.place.clone())
    }

    /// The file to include, if one is named. Pushpin's `internal.conf` describes the sockets between its processes, which
    /// have other names here; our runner's parts read it only when somebody says where it is. Without our runner, the
    /// processes beside this one may be Pushpin's, and the file means what it means to them.
    fn path_to_include(&self, source: &Source, directory: &Path) -> Option<PathBuf> {
        let named = self.main.find("global", "include")?.items.first().filter(|name| !name.is_empty())?;
        let mut variables = crate::values::Variables::of(self, source);
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
        let variables = crate::values::Variables::of(self, source);
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

    /// Where programs of Pushpin's are that `services` names, by the setting that names them.
    pub(crate) fn programs(&self) -> &Programs {
        &self.texts.programs
    }

    fn key_files(&self) -> impl Iterator<Item = &str> {
        let keys = table::SETTINGS.iter().filter(|setting| setting.kind == Kind::Key);
        keys.filter_map(|setting| self.item(setting.section, setting.name)?.strip_prefix("file:"))
    }
}

impl KeyFiles for Raw {
    fn read(&self, name: &str) -> Result<String, String> {
        self.texts.key_files.get(name).cloned().unwrap_or_else(|| Err(format!("{name} has not been read")))
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

    #[test]
    fn nonsense_that_is_handed_down_is_an_error() {
        assert!(Raw::from_bytes(b"nonsense").is_err());
    }
}
