// SPDX-License-Identifier: AGPL-3.0-or-later
//! The command lines of the runner, and of the processes that it has inside, as a user meets them.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

const COMPONENTS: [&str; 4] = ["pushpin-frontend", "pushpin-outbound", "pushpin-proxy", "pushpin-handler"];

fn run(name: &str, argument: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pushpin-runner")).arg0(name).arg(argument).output().unwrap()
}

fn stdout(name: &str, argument: &str) -> String {
    let output = run(name, argument);
    assert!(output.status.success(), "{name} {argument}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_runners_help_shows_how_to_try_it_out() {
    let help = stdout("pushpin-runner", "--help");
    assert!(help.contains("--merge-output") && help.contains("curl -N http://localhost:7999/stream"), "{help}");
}

#[test]
fn the_help_of_each_process_says_what_it_is_for() {
    for name in COMPONENTS {
        let help = stdout(name, "--help");
        assert!(help.contains("--ipc-prefix") && help.contains(&format!("{name} ")), "{help}");
    }
}

#[test]
fn versions_name_the_program() {
    for name in COMPONENTS.into_iter().chain(["pushpin-runner"]) {
        assert_eq!(stdout(name, "--version"), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn a_wrong_option_is_status_2() {
    for name in COMPONENTS.into_iter().chain(["pushpin-runner"]) {
        assert_eq!(run(name, "--nonsense").status.code(), Some(2), "{name}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_status_1_with_its_name() {
    for name in COMPONENTS.into_iter().chain(["pushpin-runner"]) {
        let output = run(name, "--config=/nowhere/pushpin.conf");
        assert_eq!(output.status.code(), Some(1), "{name}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("/nowhere/pushpin.conf"), "{name}: {error}");
    }
}
