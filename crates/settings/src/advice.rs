//! What in a configuration has no effect, or not the one that its writer may expect.

use crate::error::Warning;
use crate::ini::Entry;
use crate::model::Settings;
use crate::original::Original;
use crate::parts::Part;
use crate::raw::Raw;
use crate::table::{self, SETTINGS, State};

/// All of it, with the lines.
pub(crate) fn of(raw: &Raw, settings: &Settings, missing: &[Original], supervised: bool) -> Vec<Warning> {
    let mut found: Vec<Warning> = raw.main.warnings.iter().chain(&raw.included.warnings).cloned().collect();
    for entry in &raw.main.entries {
        if let Some(text) = about(entry) {
            found.push(Warning { place: entry.place.clone(), text });
        }
    }
    let mut note = |section, key, text: &str| {
        let place = raw.place_of(section, key);
        found.extend(place.map(|place| Warning { place, text: text.into() }));
    };
    note("runner", "rundir", "rundir in [runner] section is deprecated. put in [global]");
    if settings.handler.push_in_http.is_some() && raw.item("handler", "push_in_http_addr").is_none() {
        let text =
            "push_in_http_port is open to this machine only; write push_in_http_addr=* for all, if all may publish";
        note("handler", "push_in_http_port", text);
    }
    if supervised {
        for original in missing {
            let keys = original.programs().join(", ");
            let text = format!("{} is not installed ({keys}): ours takes its place", original.name());
            note("runner", "services", &text);
        }
        for part in settings.runner.own_parts() {
            let key = socket_keys(part).find(|key| raw.item("proxy", key).is_some());
            if let Some(key) = key {
                let text = format!("`{key}` and the like are not used: the runner starts {} itself", part.program());
                note("proxy", key, &text);
            }
        }
    }
    found
}

/// Keys that name the sockets of another program in the place of this part.
fn socket_keys(part: Part) -> impl Iterator<Item = &'static str> {
    let prefixes: &[&str] = match part {
        Part::Frontend => &["connmgr_in_", "connmgr_out_", "condure_in_", "condure_out_", "m2a_"],
        Part::Outbound => &["connmgr_client_", "condure_client_", "zurl_"],
        Part::Proxy | Part::Handler => &[],
    };
    let keys = SETTINGS.iter().filter(|setting| setting.section == "proxy").map(|setting| setting.name);
    keys.filter(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)))
}

fn about(entry: &Entry) -> Option<String> {
    let Some(setting) = table::find(&entry.section, &entry.key) else {
        let unknown = format!("unknown setting `{}` in [{}] is ignored", entry.key, entry.section);
        return Some(match meant(entry) {
            Some(meant) => format!("{unknown}; {meant}"),
            None => unknown,
        });
    };
    let without_effect = setting.state == State::Planned && entry.items.join(",") != setting.default;
    (without_effect && !is_shipped(entry)).then(|| format!("`{}` has no effect yet", entry.key))
}

/// What somebody who wrote this unknown key probably wanted.
fn meant(entry: &Entry) -> Option<String> {
    if let Some(other) = SETTINGS.iter().find(|setting| setting.name == entry.key) {
        return Some(format!("it belongs in [{}]", other.section));
    }
    let likeness = |name: &str| strsim::jaro_winkler(name, &entry.key);
    let names = SETTINGS.iter().filter(|setting| setting.section == entry.section).map(|setting| setting.name);
    let best = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.9).then(|| format!("did you mean `{best}`?"))
}

/// Keys without an effect yet whose value in Pushpin's example file differs from the default: that file must pass in silence.
fn is_shipped(entry: &Entry) -> bool {
    let value = entry.items.join(",");
    value.is_empty() || value.starts_with("ipc://")
}
