// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes from operators.

use routes::{Protocol, Table};
use settings::ini::Document;
use settings::{Origin, Settings, Source};

/// A routes file: problems have lines of the file, and what is left can be searched.
pub fn routes(data: &[u8]) {
    let (table, problems) = Table::parse(data, "routes", &());
    let lines = data.split(|&byte| byte == b'\n').count();
    assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
    for host in ["", "example.com", "a.example.com"] {
        for path in [&b""[..], b"/", b"/a/b"] {
            for protocol in [Protocol::Http, Protocol::Ws] {
                let _ = table.lookup(protocol, true, host, path);
            }
        }
    }
}

/// A configuration file: it is read, or refused with a text.
pub fn ini(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let document = Document::parse(&text, "pushpin.conf");
    let lines = text.split('\n').count();
    assert!(document.entries.iter().all(|entry| (1..=lines).contains(&entry.place.line)));
    // These two name other files, which are none of the input.
    if text.contains("include") || text.contains("file:") {
        return;
    }
    let source = Source { origin: Origin::Text(text.into_owned()), ..Source::default() };
    if let Err(error) = Settings::load(&source) {
        assert!(!error.to_string().is_empty());
    }
}
