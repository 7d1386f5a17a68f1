// SPDX-License-Identifier: AGPL-3.0-or-later
//! `docs/configuration.md`, written from the table of settings.

use crate::table::{Kind, SETTINGS, Setting, State};

/// Text of the page.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for (section, about) in SECTIONS {
        page.push_str(&format!("\n## [{section}]\n\n{about}\n\n"));
        page.push_str("| Key | Value | Default | What it does | Since |\n|---|---|---|---|---|\n");
        for setting in SETTINGS.iter().filter(|s| s.section == section) {
            page.push_str(&row(setting));
        }
    }
    page
}

const SECTIONS: [(&str, &str); 4] = [
    ("global", "For all processes."),
    ("runner", "What is started, where clients connect, and where logs go."),
    ("proxy", "Requests on their way to the backend."),
    ("handler", "Held connections and publishing."),
];

const INTRODUCTION: &str = "\
# Configuration

(Written by `cargo run -p settings --example configuration > docs/configuration.md` from the table in
`crates/settings/src/table.rs`; a test fails when it is out of date.)

`pushpin-runner` and every other process read one file, `pushpin.conf`. It is the file named by `--config`, else the first that exists of
`config/pushpin.conf`, `pushpin.conf`, `examples/config/pushpin.conf` (in the current directory) and `/etc/pushpin/pushpin.conf`, else the
copy that is built in: port 7999, and every request answered by the built-in test backend.

A file of Pushpin 1.x or 2.0 can be used as it is. A key that nobody knows is named in a warning with file and line, a value that makes no
sense is an error with file, line and what to write instead.

`pushpin-runner --check` tells all that is wrong with the file, the routes and the certificates, and starts nothing; its output is every setting as it
counts, with the line it comes from.

## Syntax

Keys stand in sections, one a line: `key=value`. Lines that begin with `#` or `;` are comments, and an unquoted `;` starts one inside a
line. A comma makes a list; `\"...\"` protects commas and semicolons, and `\\` escapes as in C. Of a repeated key the last one counts.

`{rundir}`, `{ipc_prefix}` and `{libdir}` in a value stand for the settings of these names. Relative paths of `rundir` and `logdir` start
from the current directory, `routesfile` and `file:` keys from the directory of the configuration file.

\"Since\" is the version of Pushpin that has the key from then on; \"own\" are keys that Pushpin does not have.
";

fn row(setting: &Setting) -> String {
    let default = match setting.default {
        "" => String::new(),
        text => format!("`{text}`"),
    };
    let state = match setting.state {
        State::Used => "",
        State::Planned => " *(accepted, without effect yet)*",
        State::Ignored => " *(accepted and ignored)*",
    };
    format!("| {} | {} | {default} | {}{state} | {} |\n", setting.name, kind(setting.kind), setting.doc, setting.since)
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".into(),
        Kind::Path => "path".into(),
        Kind::Bool => "true, false".into(),
        Kind::Int(min, max) if max == i64::from(i32::MAX) => format!("number from {min}"),
        Kind::Int(min, max) => format!("{min} to {max}"),
        Kind::Octal => "octal".into(),
        Kind::List => "list".into(),
        Kind::Spec => "address".into(),
        Kind::Specs => "list of addresses".into(),
        Kind::Address => "IP address".into(),
        Kind::Ports => "list of ports".into(),
        Kind::Levels => "0 to 4".into(),
        Kind::Choice(words) => words.join(", "),
        Kind::Key => "key".into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == super::markdown(), "write it again with `cargo run -p settings --example configuration`");
    }
}
