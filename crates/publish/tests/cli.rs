// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program's command line, as a user meets it.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pushpin-publish")).args(arguments).env_remove("GRIP_URL").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_shows_how_to_publish() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("pushpin-publish test hello"));
}

#[test]
fn version_names_the_program() {
    assert_eq!(text(&run(&["--version"]).stdout), concat!("pushpin-publish ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_command_line_is_status_2() {
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn nobody_there_is_status_1_with_the_reason_for_both_ways() {
    // Port 1 is reserved and nothing listens there.
    for spec in ["http://127.0.0.1:1", "tcp://127.0.0.1:1"] {
        let output = run(&["--spec", spec, "test", "x"]);
        assert_eq!(output.status.code(), Some(1), "{spec}");
        let error = text(&output.stderr);
        assert!(error.starts_with("Error: ") && error.contains("Connection refused"), "{error}");
    }
}
