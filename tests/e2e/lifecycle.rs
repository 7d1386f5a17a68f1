// SPDX-License-Identifier: AGPL-3.0-or-later
//! Start and stop of the suite, and mistakes in its configuration.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pushpin_tests::client::Client;
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::until;

fn error(suite: &Suite) -> String {
    let output = suite.run();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn term_ends_everything_with_status_0_and_leaves_nothing_behind() {
    let mut suite = Suite::start("* test");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream").unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    let parts = suite.children();
    assert_eq!(parts.len(), 4, "{parts:?}");
    let asked = Instant::now();
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(!parts.values().any(|pid| is_alive(*pid)));
    assert_eq!(suite.left_behind(), Vec::<String>::new());
    // Reset is as good as an orderly close.
    client.rest().unwrap_or_default();
    assert!(TcpStream::connect(("127.0.0.1", suite.port)).is_err());
}

#[test]
fn the_suite_starts_again_after_everything_was_killed() {
    let mut suite = Suite::start("* test");
    let parts = suite.children();
    suite.signal(Signal::SIGKILL);
    until("all have ended", || suite.ended().is_some() && !parts.values().any(|pid| is_alive(*pid)));
    fs::remove_dir_all(suite.path("log")).unwrap();
    suite.launch();
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn hup_opens_log_files_again() {
    let suite = Suite::start("* test");
    let (log, old) = (suite.path("log/pushpin-proxy.log"), suite.path("proxy.old"));
    fs::rename(&log, &old).unwrap();
    suite.signal(Signal::SIGHUP);
    until("there is a new log file", || log.exists());
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let suite = Suite::prepare("* test", "");
    let _taken = TcpListener::bind(("127.0.0.1", suite.port)).unwrap();
    let error = error(&suite);
    assert!(error.contains(&format!("unable to bind to 127.0.0.1:{}", suite.port)), "{error}");
}

#[test]
fn a_part_that_cannot_start_is_an_error_with_its_reason() {
    let suite = Suite::prepare("* test", "");
    let _taken = TcpListener::bind(("127.0.0.1", suite.push_port)).unwrap();
    let error = error(&suite);
    assert!(error.contains("handler") && error.contains(&format!("tcp://127.0.0.1:{}", suite.push_port)), "{error}");
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn a_bad_value_is_an_error_with_file_and_line() {
    let suite = Suite::prepare("* test", "[proxy]\ndebug=perhaps");
    let error = error(&suite);
    assert!(error.contains("pushpin.conf:") && error.contains("debug: `perhaps`"), "{error}");
}

#[test]
fn an_unknown_setting_is_a_warning_with_file_and_line() {
    let mut suite = Suite::prepare("* test", "[proxy]\nroute_file=x");
    suite.launch();
    let logs = suite.logs();
    assert!(logs.contains("unknown setting `route_file` in [proxy] is ignored"), "{logs}");
}

#[test]
fn a_second_suite_in_the_same_run_directory_is_refused() {
    let first = Suite::start("* test");
    let config = fs::read_to_string(first.path("pushpin.conf")).unwrap();
    let rundir = config.lines().find(|line| line.starts_with("rundir=")).unwrap();
    let second = Suite::prepare("* test", &format!("[global]\n{rundir}"));
    assert!(error(&second).contains("another pushpin-runner"));
}

#[test]
fn several_frontends_share_the_port() {
    let mut suite = Suite::prepare("* test", "[runner]\nfrontend_processes=3");
    suite.launch();
    assert!(suite.logs().contains("starting frontend-2"), "{}", suite.logs());
    for _ in 0..20 {
        assert_eq!(pushpin_tests::client::get(suite.port, "/").unwrap().head.status, 200);
    }
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}
