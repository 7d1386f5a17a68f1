// SPDX-License-Identifier: AGPL-3.0-or-later
//! The configuration file for Pushpin's own proxy and handler, beside ours: what our files say, with every address written out.
//!
//! They know neither our names for sockets nor the rules by which ours find each other, and ports must not be moved twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::error::Error;
use crate::model::Settings;
use crate::original::Original;
use crate::part::Part;
use crate::raw::Raw;
use crate::routes::RoutesSource;
use crate::source::Source;
use crate::table;
use crate::values::Values;

/// What the file is called, in the run directory.
pub const FILE_NAME: &str = "pushpin.conf";

/// By section and key, the items of each value.
type Lines = BTreeMap<(String, String), Vec<String>>;

/// Sections that Pushpin reads.
const SECTIONS: [&str; 4] = ["global", "runner", "proxy", "handler"];

/// What our files say is left out here: it has been done already, or is written out below.
const DONE: [(&str, &str); 4] =
    [("global", "include"), ("global", "libdir"), ("runner", "rundir"), ("handler", "push_in_sub_spec")];

/// The text of the file. `directory` is where relative paths start from, that is the current directory.
pub fn text(raw: &Raw, source: &Source, settings: &Settings, directory: &Path) -> Result<String, Error> {
    let values = Values::new(raw, source)?;
    let mut lines = Lines::new();
    for entry in raw.included.entries.iter().chain(&raw.main.entries) {
        let name = (entry.section.clone(), entry.key.clone());
        if !SECTIONS.contains(&name.0.as_str()) || DONE.contains(&(&name.0, &name.1)) || is_address(&name.0, &name.1) {
            continue;
        }
        let items = values.written(&name.0, &name.1, entry.items.clone());
        lines.insert(name.clone(), items.map_err(|problem| values.error(&name.0, &name.1, problem))?);
    }
    let mut set = |section: &str, key: &str, items: Vec<String>| {
        lines.insert((section.into(), key.into()), items);
    };
    for (section, key, items) in own_lines(settings, directory) {
        set(section, key, items);
    }
    Ok(write(&lines))
}

/// Whether a key names sockets inside the suite.
fn is_address(section: &str, key: &str) -> bool {
    let is_spec = table::find(section, key).is_some_and(|s| matches!(s.kind, table::Kind::Spec | table::Kind::Specs));
    let public =
        section == "handler" && ["push_in_", "stats_", "command_", "state_"].iter().any(|p| key.starts_with(p));
    is_spec && !public
}

fn own_lines(settings: &Settings, directory: &Path) -> Vec<(&'static str, &'static str, Vec<String>)> {
    const P: &str = "proxy";
    const H: &str = "handler";
    let (proxy, handler) = (&settings.proxy, &settings.handler);
    let absolute = |path: &Path| directory.join(path).display().to_string();
    // Pushpin finds out by its services which addresses count.
    let mongrel2 = settings.runner.originals.of(Part::Frontend) == Some(Original::Mongrel2);
    let frontend: &[&str] = if mongrel2 { &["mongrel2", "m2adapter"] } else { &["condure"] };
    let services = frontend.iter().chain(&["zurl", "pushpin-proxy", "pushpin-handler"]);
    let one = |value: &String| vec![value.clone()];
    let first = |values: &[String]| values.iter().take(1).cloned().collect::<Vec<_>>();
    let (clients, others) = if mongrel2 { (M2A, CONDURE) } else { (CONDURE, M2A) };
    let mut lines = vec![
        ("global", "rundir", vec![absolute(&settings.global.rundir)]),
        ("global", "ipc_prefix", one(&settings.global.ipc_prefix)),
        ("global", "port_offset", vec!["0".into()]),
        ("runner", "services", services.map(|name| name.to_string()).collect()),
        (P, clients[0], proxy.client_in_specs.clone()),
        (P, clients[1], proxy.client_in_stream_specs.clone()),
        (P, clients[2], proxy.client_out_specs.clone()),
        (P, "zurl_out_specs", proxy.origin_out_specs.clone()),
        (P, "zurl_out_stream_specs", proxy.origin_out_stream_specs.clone()),
        (P, "zurl_in_specs", proxy.origin_in_specs.clone()),
        (P, "handler_inspect_spec", one(&proxy.inspect_spec)),
        (P, "handler_accept_spec", one(&proxy.accept_spec)),
        (P, "handler_retry_in_spec", one(&proxy.retry_spec)),
        (P, "handler_ws_control_in_spec", one(&proxy.ws_control_in_spec)),
        (P, "handler_ws_control_out_spec", one(&proxy.ws_control_out_spec)),
        (P, "stats_spec", one(&proxy.stats_spec)),
        (P, "command_spec", one(&proxy.command_spec)),
        (P, "intreq_in_specs", one(&proxy.intreq_in_spec)),
        (P, "intreq_in_stream_specs", one(&proxy.intreq_in_stream_spec)),
        (P, "intreq_out_specs", one(&proxy.intreq_out_spec)),
        (H, clients[1], handler.client_in_stream_specs.clone()),
        (H, clients[2], handler.client_out_specs.clone()),
        // Pushpin's handler does not start without these, used or not.
        (H, others[1], handler.client_in_stream_specs.clone()),
        (H, others[2], handler.client_out_specs.clone()),
        (H, "proxy_inspect_spec", first(&handler.proxy_inspect_specs)),
        (H, "proxy_accept_spec", first(&handler.proxy_accept_specs)),
        (H, "proxy_retry_out_spec", first(&handler.proxy_retry_specs)),
        (H, "proxy_ws_control_in_spec", one(&handler.proxy_ws_control_in_spec)),
        (H, "proxy_ws_control_out_spec", one(&handler.proxy_ws_control_out_spec)),
        (H, "proxy_stats_spec", first(&handler.proxy_stats_specs)),
        (H, "proxy_command_spec", one(&handler.proxy_command_spec)),
        (H, "proxy_intreq_out_specs", handler.proxy_intreq_out_specs.clone()),
        (H, "proxy_intreq_out_stream_specs", handler.proxy_intreq_out_stream_specs.clone()),
        (H, "proxy_intreq_in_specs", handler.proxy_intreq_in_specs.clone()),
        (H, "push_in_sub_specs", handler.push_in_sub_specs.clone()),
    ];
    if let RoutesSource::File(file) = &proxy.routes {
        lines.push((P, "routesfile", vec![absolute(file)]));
    }
    if let Some(address) = handler.push_in_http {
        lines.push((H, "push_in_http_addr", vec![address.ip().to_string()]));
        lines.push((H, "push_in_http_port", vec![address.port().to_string()]));
    }
    lines
}

/// Addresses of the side of clients, by the names that they have with Condure and with Mongrel2.
const CONDURE: [&str; 3] = ["condure_in_specs", "condure_in_stream_specs", "condure_out_specs"];
const M2A: [&str; 3] = ["m2a_in_specs", "m2a_in_stream_specs", "m2a_out_specs"];

fn write(lines: &Lines) -> String {
    let mut text = String::from("# Made by pushpin-runner at each start, for programs of Pushpin's.\n");
    let mut section = "";
    for ((of, key), items) in lines {
        if of != section {
            section = of;
            let _ = write!(text, "\n[{of}]\n");
        }
        let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
        let _ = writeln!(text, "{key}={}", items.join(", "));
    }
    text
}

/// An item as both we and Qt, by which Pushpin reads its files, read it back.
fn quoted(item: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/*".contains(c);
    if item.chars().all(plain) {
        return item.into();
    }
    let escaped = item.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;

    fn made(text: &str) -> (Settings, Settings, String) {
        let source = Source { origin: Origin::Text(text.into()), supervised: true, ..Source::default() };
        let raw = Raw::read(&source).unwrap();
        let before = raw.settings(&source).unwrap().0;
        let made = super::text(&raw, &source, &before, Path::new("/here")).unwrap();
        let source = Source { origin: Origin::Text(made.clone()), ..Source::default() };
        (before, Settings::load(&source).unwrap().0, made)
    }

    const FILE: &str = "[global]\ninclude={libdir}/internal.conf\nrundir=r\nipc_prefix=x-\nport_offset=10\n[runner]\n\
        proxy_bin=/usr/bin/pushpin-proxy\nclient_maxconn=77\n[proxy]\nsig_key=a \"b;c\nroutesfile=routes\n\
        zurl_out_specs=ipc:///elsewhere\n[handler]\npush_in_spec=tcp://127.0.0.1:5560\npush_in_http_port=5561\n\
        push_in_http_addr=*\npush_in_sub_specs=tcp://127.0.0.1:5562\nstats_spec=ipc://{rundir}/{ipc_prefix}stats\n\
        command_spec=tcp://127.0.0.1:5563\n";

    #[test]
    fn what_it_says_is_what_our_own_processes_have() {
        let (before, after, text) = made(FILE);
        assert_eq!(after.proxy.client_in_specs, before.proxy.client_in_specs);
        assert_eq!(after.proxy.origin_out_specs, ["ipc://r/x-outbound-in"]);
        assert_eq!(after.handler.proxy_accept_specs, before.handler.proxy_accept_specs);
        assert_eq!(after.handler.push_in_http, Some("0.0.0.0:5571".parse().unwrap()));
        assert_eq!(after.handler.push_in_spec.as_deref(), Some("tcp://127.0.0.1:5570"));
        assert_eq!(after.handler.push_in_sub_specs, ["tcp://127.0.0.1:5572"]);
        assert_eq!(after.handler.command_spec.as_deref(), Some("tcp://127.0.0.1:5573"));
        assert_eq!(after.handler.stats_spec.as_deref(), Some("ipc://r/x-stats"));
        assert_eq!(after.proxy.sig_key, before.proxy.sig_key);
        assert_eq!(after.frontend.client_maxconn, 77);
        assert_eq!(after.proxy.routes, RoutesSource::File("/here/routes".into()));
        assert!(text.contains("\nservices=condure, zurl, pushpin-proxy, pushpin-handler\n"), "{text}");
        assert!(
            text.contains("\nport_offset=0\n") && !text.contains("include") && !text.contains("elsewhere"),
            "{text}"
        );
    }

    #[test]
    fn mongrel2_has_addresses_of_its_own() {
        let text = "[runner]\nservices=mongrel2,proxy,handler\nmongrel2_bin=sh\nm2sh_bin=sh\nm2adapter_bin=sh\n";
        let (_, after, text) = made(text);
        assert_eq!(after.proxy.client_in_specs, ["ipc://run/pushpin-m2zhttp-out", "ipc://run/pushpin-m2zws-out"]);
        assert!(text.contains("services=mongrel2, m2adapter, zurl"), "{text}");
    }
}
