// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the files of a configuration say, with line numbers, before anything is checked.
//!
//! It is also what the runner hands to the processes that it starts: a part that is started again reads what the runner
//! has checked, not a file that somebody may just be editing. Texts are handed down and not checked values, so that a
//! program of another version finds what it knows and has its own defaults for the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Place, Warning};
use crate::ini::{Document, Entry};
use crate::keys::KeyFiles;
use crate::original::Programs;
use crate::table::{self, Kind};

/// The texts of a configuration: `pushpin.conf`, what it includes, and the files of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    pub(crate) texts: Texts,
    pub(crate) main: Document,
    pub(crate) included: Document,
}

/// What was read, which is all that another process needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Texts {
    /// Name of the main file, for messages.
    pub(crate) name: String,
    pub(crate) main: String,
    /// Name and text of the included file.
    pub(crate) included: Option<(String, String)>,
    /// Why there is none, though one is named.
    pub(crate) not_included: Option<String>,
    /// What was read for keys that begin with `file:`, by what stands behind it; or why it could not be read.
    pub(crate) key_files: BTreeMap<String, Result<String, String>>,
    /// Programs of Pushpin's that `services` names, as far as they are installed, by the setting that names them. Only the
    /// runner looks for them: its parts have to be of one mind.
    #[serde(default)]
    pub(crate) programs: Programs,
}

/// What another process handed down cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the configuration that the runner handed down cannot be read: {0}")]
pub struct HandedDownError(#[from] tnetstring::Error);

impl Raw {
    pub(crate) fn parse(texts: Texts) -> Self {
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

    /// Where programs of Pushpin's are that `services` names, by the setting that names them.
    pub(crate) fn programs(&self) -> &Programs {
        &self.texts.programs
    }
}

impl KeyFiles for Raw {
    fn read(&self, name: &str) -> Result<String, String> {
        self.texts.key_files.get(name).cloned().unwrap_or_else(|| Err(format!("{name} has not been read")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_that_is_handed_down_is_an_error() {
        assert!(Raw::from_bytes(b"nonsense").is_err());
    }
}
