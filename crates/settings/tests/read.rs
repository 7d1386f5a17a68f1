// SPDX-License-Identifier: AGPL-3.0-or-later
//! A setting that is said to have an effect is read by a process.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_checked_setting_is_read_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for place in ["crates/frontend", "crates/proxy", "crates/handler", "crates/outbound", "crates/process", "runner"] {
        sources(&root.join(place).join("src"), &mut files);
    }
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let model = fs::read_to_string(root.join("crates/settings/src/model.rs")).unwrap();
    let fields = model
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": ").map(|(name, _)| name))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    let is_read = |name: &str| {
        let read = format!(".{name}");
        let mut places = code.match_indices(&read).map(|(at, found)| at + found.len());
        places.any(|end| !code[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '('))
    };
    let unread: Vec<&str> = fields.filter(|name| !is_read(name)).collect();
    assert!(unread.is_empty(), "no process reads {unread:?}: mark the keys as planned");
}
