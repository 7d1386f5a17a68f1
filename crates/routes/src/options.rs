// SPDX-License-Identifier: AGPL-3.0-or-later
//! The options that lines may have, and what is wrong with those that are not among them.

use crate::line::Section;

/// How an option is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `name`
    Flag,
    /// `name=value`
    Value,
    /// `name=value`, where the value may be empty.
    MayBeEmpty,
    /// As in Pushpin, but not built yet.
    Planned,
}
use Form::{Flag, MayBeEmpty, Planned, Value};

/// Of conditions (proxy, condition section).
const CONDITION: &[(&str, Form)] = &[
    ("proto", Value),
    ("ssl", Value),
    ("path_beg", Value),
    ("id", Value),
    ("sig_iss", Value),
    ("sig_key", Value),
    ("prefix", MayBeEmpty),
    ("orig_headers", Flag),
    ("as_host", Value),
    ("path_rem", Value),
    ("replace_beg", MayBeEmpty),
    ("debug", Flag),
    ("session", Planned),
    ("header", Value),
    ("no_grip", Flag),
    ("log_level", Value),
    ("aco", Flag),
    ("jsonp_mode", Value),
    ("jsonp_cb", Value),
    ("jsonp_body", Value),
    ("jsonp_defcb", Value),
    ("jsonp_defmethod", Value),
    ("sockjs", Value),
    ("sockjs_as_path", Value),
];

/// Of targets (proxy, target sections).
const TARGET: &[(&str, Form)] = &[
    ("ssl", Flag),
    ("untrusted", Flag),
    ("trust_connect_host", Flag),
    ("insecure", Flag),
    ("host", Value),
    ("sub", MayBeEmpty),
    ("over_http", Flag),
    ("one_event", Flag),
    ("ipc_file_mode", Value),
    ("client_cert", Value),
    ("client_key", Value),
];

/// What is wrong with the options of a condition.
pub(crate) fn of_condition(section: &Section) -> Vec<String> {
    mistakes(section, CONDITION, TARGET, "target")
}

/// What is wrong with the options of a target.
pub(crate) fn of_target(section: &Section) -> Vec<String> {
    mistakes(section, TARGET, CONDITION, "condition")
}

fn mistakes(section: &Section, own: &[(&str, Form)], others: &[(&str, Form)], place: &str) -> Vec<String> {
    let find = |options: &[(&str, Form)], name: &str| options.iter().find(|(n, _)| *n == name).map(|(_, form)| *form);
    let mistake = |(name, value): &(String, String)| match find(own, name) {
        None if find(others, name).is_some() => {
            Some(format!("`{name}` is an option of the {place}; it has no effect here"))
        }
        None => Some(format!("unknown option `{name}`{}; it has no effect", meant(name, own))),
        Some(Planned) => Some(format!("`{name}` is not supported yet; it has no effect")),
        Some(Flag) if !value.is_empty() => Some(format!(
            "`{name}` takes no value: `{name}={value}` means `{name}`; leave it out if you do not want it"
        )),
        Some(Value) if value.is_empty() => Some(format!("`{name}` needs a value; it has no effect")),
        Some(_) => None,
    };
    section.props.iter().filter_map(mistake).collect()
}

/// What somebody who wrote this unknown name probably wanted.
fn meant(name: &str, options: &[(&str, Form)]) -> String {
    let likeness = |option: &str| strsim::jaro_winkler(option, &name.to_ascii_lowercase());
    let best = options.iter().map(|(option, _)| *option).max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) > 0.85 => format!(", did you mean `{best}`?"),
        _ => String::new(),
    }
}
