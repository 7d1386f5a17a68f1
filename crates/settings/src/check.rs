// SPDX-License-Identifier: AGPL-3.0-or-later
//! A configuration looked at as a whole: every mistake in it, and where each value that counts comes from.

use std::fmt;

use crate::advice;
use crate::error::{Error, Place, Warning};
use crate::ini::Document;
use crate::model::Settings;
use crate::raw::Raw;
use crate::source::Source;
use crate::table::{Kind, SETTINGS, Setting, State};
use crate::values::Values;

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// What the processes would see if every line with a mistake were left out. None if the command line is wrong too.
    pub settings: Option<Settings>,
    /// All mistakes. With one of them, nothing would start.
    pub mistakes: Vec<Error>,
    /// What would start, and not do what its writer may expect or what is safe.
    pub warnings: Vec<Warning>,
    /// Every setting that has an effect, in the order of the shipped file.
    pub effective: Vec<Effective>,
}

/// A setting as it counts.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Which.
    pub setting: &'static Setting,
    /// Its value as it would be written in a file, with variables and port offset already filled in. Keys are not shown.
    pub value: String,
    /// Where it was written; none for defaults.
    pub place: Option<Place>,
}

impl fmt::Display for Effective {
    /// A line of a configuration file, with the place as its comment; all of it a comment if there is no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, place } = self;
        match place {
            Some(place) => write!(f, "{}={value} ; {place}", setting.name),
            None if value.is_empty() => write!(f, "#{}= ; default", setting.name),
            None => write!(f, "{}={value} ; default", setting.name),
        }
    }
}

impl Raw {
    /// Looks for all mistakes at once. `open_files` is how many files each process may open.
    pub fn check(&self, source: &Source, open_files: u64) -> Checked {
        let mut rest = self.clone();
        let mut mistakes = Vec::new();
        let (settings, warnings) = loop {
            match rest.settings(source) {
                Ok((settings, mut warnings)) => {
                    warnings.extend(advice::risks(&rest, &settings, open_files));
                    break (Some(settings), warnings);
                }
                // A line is a mistake only once, so that this ends.
                Err(error) => {
                    let found = matches!(&error, Error::BadValue { place, .. } if rest.leave_out(place));
                    mistakes.push(error);
                    if !found {
                        break (None, Vec::new());
                    }
                }
            }
        };
        Checked { settings, mistakes, warnings, effective: rest.effective(source) }
    }

    /// Takes the line at this place out; false if there is none.
    fn leave_out(&mut self, place: &Place) -> bool {
        let without = |document: &mut Document| {
            let before = document.entries.len();
            document.entries.retain(|entry| entry.place != *place);
            document.entries.len() < before
        };
        without(&mut self.main) || without(&mut self.included)
    }

    fn effective(&self, source: &Source) -> Vec<Effective> {
        let Ok(values) = Values::new(self, source) else { return Vec::new() };
        let used = SETTINGS.iter().filter(|setting| setting.state == State::Used);
        used.map(|setting| {
            let entry = self.entry(setting.section, setting.name);
            let items = entry.map_or_else(|| vec![setting.default.to_string()], |entry| entry.items.clone());
            let items = values.written(setting.section, setting.name, items.clone()).unwrap_or(items);
            let value = match setting.kind {
                Kind::Key if items.iter().any(|item| !item.is_empty()) => "(not shown)".into(),
                _ => items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(","),
            };
            Effective { setting, value, place: entry.map(|entry| entry.place.clone()) }
        })
        .collect()
    }
}

/// An item as it has to be written to be read as it is.
fn quoted(item: &str) -> String {
    if !item.contains([';', ',', '"', '\\']) && item.trim() == item {
        return item.into();
    }
    format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    fn check(text: &str) -> Checked {
        let source = Source { origin: Origin::Text(text.into()), ..Source::default() };
        Raw::read(&source).unwrap().check(&source, 1_000_000)
    }

    fn told(text: &str) -> Vec<String> {
        check(text).warnings.iter().map(Warning::to_string).collect()
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let checked = check("[proxy]\ndebug=perhaps\n[runner]\nclient_maxconn=many\nhttp_port=7999\nhttp_port=x\n");
        let mut mistakes: Vec<_> = checked.mistakes.iter().map(Error::to_string).collect();
        mistakes.sort();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].starts_with("text:2: debug") && mistakes[1].starts_with("text:4: client_maxconn"));
        assert!(mistakes[2].starts_with("text:6: http_port"));
        assert!(checked.settings.is_some());
    }

    #[test]
    fn a_mistake_of_the_command_line_is_told_as_well() {
        let origin = Origin::Text("[handler]\npush_in_http_port=5561\n".into());
        let source = Source { origin, port_offset: Some(65_000), ..Source::default() };
        let checked = Raw::read(&source).unwrap().check(&source, 1_000_000);
        assert!(!checked.mistakes.is_empty());
    }

    #[test]
    fn each_value_that_counts_has_its_place() {
        let checked = check("[global]\nrundir=/r\n[handler]\ncommand_spec=ipc://{rundir}/c\n[proxy]\nsig_key=secret\n");
        let line = |section, name| {
            let is_it = |one: &&Effective| one.setting.section == section && one.setting.name == name;
            checked.effective.iter().find(is_it).unwrap().to_string()
        };
        assert_eq!(line("global", "rundir"), "rundir=/r ; text:2");
        assert_eq!(line("handler", "command_spec"), "command_spec=ipc:///r/c ; text:4");
        assert_eq!(line("proxy", "sig_key"), "sig_key=(not shown) ; text:6");
        assert_eq!(line("runner", "client_maxconn"), "client_maxconn=50000 ; default");
        assert_eq!(line("runner", "https_ports"), "#https_ports= ; default");
    }

    #[test]
    fn what_is_special_in_a_file_is_quoted() {
        for item in ["plain", "a b", "a;b", "a,b", "\"", "\\n", " x "] {
            let text = format!("[proxy]\nsig_iss={} ; place\n", quoted(item));
            assert_eq!(Document::parse(&text, "text").entries[0].items, [item], "{text}");
        }
    }

    #[test]
    fn publishing_that_is_open_to_others_is_told() {
        let text = "[handler]\npush_in_spec=tcp://*:5560\npush_in_http_port=5561\npush_in_http_addr=0.0.0.0\n\
                    command_spec=tcp://127.0.0.1:5563\npush_in_sub_specs=tcp://[::]:5562\n";
        let told = told(text);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().any(|text| text.starts_with("text:2: push_in_spec")), "{told:?}");
        assert!(told.iter().any(|text| text.starts_with("text:3: push_in_http_port")), "{told:?}");
        assert!(told.iter().any(|text| text.starts_with("text:6: push_in_sub_specs")), "{told:?}");
    }

    #[test]
    fn a_port_that_wants_a_token_may_be_open() {
        let text = "[handler]\npush_in_http_port=5561\npush_in_http_addr=0.0.0.0\ncontrol_key=secret\n";
        assert_eq!(told(text), Vec::<String>::new());
    }

    #[test]
    fn a_key_that_everybody_knows_is_told() {
        assert!(told("[proxy]\nsig_key=changeme\n")[0].starts_with("text:2: sig_key is the one of the example"));
        assert_eq!(told("[proxy]\nsig_key=mine\n"), Vec::<String>::new());
    }

    #[test]
    fn more_clients_than_files_are_told() {
        let source = Source { origin: Origin::Text("[runner]\nclient_maxconn=50000\n".into()), ..Source::default() };
        let warnings = Raw::read(&source).unwrap().check(&source, 1024).warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().starts_with("text:2: client_maxconn"), "{warnings:?}");
    }
}
