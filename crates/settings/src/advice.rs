// SPDX-License-Identifier: AGPL-3.0-or-later
//! What in a configuration has no effect, or not the one that its writer may expect.

use std::net::IpAddr;

use crate::error::{Place, Warning};
use crate::ini::Entry;
use crate::keys::Key;
use crate::model::Settings;
use crate::original::Original;
use crate::part::Part;
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
    for (section, key) in [("handler", "prometheus_port"), ("proxy", "prometheus_port")] {
        if let Some(port) = raw.item(section, key).filter(|value| value.parse::<u16>().is_ok()) {
            let text = format!("{key} is open to this machine only; write {key}=*:{port} for all");
            note(section, key, &text);
        }
    }
    if supervised {
        for original in missing {
            let keys = original.programs().join(", ");
            let text = format!("{} is not installed ({keys}): ours takes its place", original.name());
            note("runner", "services", &text);
        }
        if let Some(original) = settings.runner.originals.of(Part::Frontend)
            && raw.item("runner", "frontend_processes").is_some_and(|count| count != "1")
        {
            let text = format!("frontend_processes has no effect: {} is one process", original.name());
            note("runner", "frontend_processes", &text);
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

/// What would start as it is written, and is a risk: to be told to who asks, not at every start.
pub(crate) fn risks(raw: &Raw, settings: &Settings, open_files: u64) -> Vec<Warning> {
    let mut found = Vec::new();
    // What stands in no file is a default, and those are harmless but for their number.
    let place = |section, key| {
        raw.place_of(section, key).unwrap_or_else(|| Place { file: format!("default of {key}"), line: 0 })
    };
    let mut note = |section, key, text: String| found.push(Warning { place: place(section, key), text });
    let open = "takes what anybody who reaches it sends, without a password";
    let advice = "write 127.0.0.1, or let a firewall choose who reaches it";
    let handler = &settings.handler;
    let addresses = [
        ("push_in_spec", handler.push_in_spec.as_slice()),
        ("push_in_sub_specs", &handler.push_in_sub_specs),
        ("command_spec", handler.command_spec.as_slice()),
    ];
    for (key, specs) in addresses {
        for spec in specs.iter().filter(|spec| listens_beyond_loopback(spec)) {
            note("handler", key, format!("{key} {open} ({spec}): {advice}"));
        }
    }
    let guarded = handler.control_key.is_some() || handler.control_token.is_some();
    if let Some(address) = handler.push_in_http.filter(|address| !guarded && !address.ip().is_loopback()) {
        let advice = format!("{advice}, or set control_key");
        note("handler", "push_in_http_port", format!("push_in_http_port {open} ({address}): {advice}"));
    }
    if settings.proxy.sig_key == Some(Key::Secret(SAMPLE_KEY.into())) {
        let text = "sig_key is the one of the example, which everybody knows: backends that trust it trust everybody";
        note("proxy", "sig_key", text.into());
    }
    let clients = settings.frontend.client_maxconn as u64;
    if clients + FILES_KEPT_BACK > open_files {
        let text = format!(
            "client_maxconn is {clients}, but a process may open {open_files} files: raise the limit (`ulimit -n`, \
             LimitNOFILE of systemd) to {} or more",
            clients + FILES_KEPT_BACK
        );
        note("runner", "client_maxconn", text);
    }
    found
}

/// The key in the shipped file, and in Pushpin's.
const SAMPLE_KEY: &str = "changeme";
/// Open files that are not for clients, as in the frontend.
const FILES_KEPT_BACK: u64 = 32;

/// Whether a socket that binds there is reached from other machines.
fn listens_beyond_loopback(spec: &str) -> bool {
    let Some(host) = spec.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).map(|(host, _)| host) else {
        return false;
    };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => !address.is_loopback(),
        Err(_) => !matches!(host, "localhost" | "lo"),
    }
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
