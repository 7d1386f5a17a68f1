// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program as it is started by hand. Cargo builds a package's programs for its integration tests, so this file is
//! also why `cargo test --workspace` in a fresh clone has the proxy that the end-to-end tests start.
#![allow(missing_docs)]

use std::process::{Command, Output};

fn proxy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pushpin-proxy")).args(arguments).output().unwrap()
}

#[test]
fn the_version_names_the_program() {
    let output = proxy(&["--version"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, format!("pushpin-proxy {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn a_configuration_that_is_not_there_is_said_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.conf");
    let missing = missing.to_str().unwrap();
    let output = proxy(&["--config", missing]);
    assert!(!output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains(missing), "{}", String::from_utf8_lossy(&said));
}
