// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner ctl`: what an operator asks of a running suite.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use pushpin_tests::client::{Client, get};
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::until;
use serde_json::Value;

fn ctl(suite: &Suite, arguments: &[&str]) -> Output {
    suite.run_with(&[&["ctl"], arguments].concat())
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn status(suite: &Suite) -> Value {
    serde_json::from_str(&told(&ctl(suite, &["status", "--json"]))).unwrap()
}

fn process(status: &Value, name: &str) -> Value {
    let processes = status["processes"].as_array().unwrap();
    processes
        .iter()
        .find(|process| process["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {status}"))
        .clone()
}

#[test]
fn the_status_has_all_processes_with_what_they_listen_on_and_have_open() {
    let suite = Suite::start("* test");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream").unwrap();
    client.head().unwrap();
    until("the client and its hold are seen", || {
        let status = status(&suite);
        process(&status, "frontend")["open"] == 1 && process(&status, "handler")["open"] == 1
    });
    let status = status(&suite);
    assert_eq!(status["ready"], true);
    assert_eq!(status["config"], suite.path("pushpin.conf").to_str().unwrap());
    for name in ["frontend", "outbound", "proxy", "handler"] {
        let process = process(&status, name);
        assert_eq!(process["pid"], suite.pid(name), "{name}");
        assert_eq!((&process["state"], &process["restarts"]), (&"serving".into(), &0.into()), "{name}");
        assert_eq!(process["version"], status["version"], "{name}");
        assert!(fs::exists(process["program"].as_str().unwrap()).unwrap(), "{name}");
    }
    assert_eq!(process(&status, "frontend")["listens"][0], format!("127.0.0.1:{}", suite.port));
    let table = told(&ctl(&suite, &["status"]));
    let row = table.lines().find(|line| line.starts_with("proxy ")).unwrap();
    assert!(row.contains(" serving ") && row.contains(&suite.pid("proxy").to_string()), "{table}");
    let mode = fs::metadata(suite.path("run/pushpin-ctl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_status_says_why_a_process_was_started_again() {
    let suite = Suite::start("* test");
    suite.kill("outbound");
    until("it is back", || process(&status(&suite), "outbound")["restarts"] == 1 && status(&suite)["ready"] == true);
    assert_eq!(process(&status(&suite), "outbound")["last_end"]["reason"], "SIGKILL");
    let table = told(&ctl(&suite, &["status"]));
    assert!(
        table.lines().any(|line| line.starts_with("outbound ended ") && line.ends_with(" ago: SIGKILL")),
        "{table}"
    );
}

#[test]
fn a_restarted_component_is_another_process_and_the_others_are_not() {
    let suite = Suite::start("* test");
    let mut stream = Client::connect(suite.port).unwrap();
    stream.get("/stream?channel=s").unwrap();
    stream.head().unwrap();
    stream.expect("[stream opened]\n").unwrap();
    let before = suite.children();
    let text = told(&ctl(&suite, &["restart", "proxy"]));
    // It serves when the command ends.
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    let after = suite.children();
    for (name, pid) in &before {
        assert_eq!(after[name] == *pid, name != "pushpin-proxy", "{name}");
    }
    assert!(text.contains(&format!("ending proxy, pid {}", before["pushpin-proxy"])), "{text}");
    assert!(text.contains(&format!("proxy serves again, pid {}", after["pushpin-proxy"])), "{text}");
    assert!(text.ends_with("restarted 1 process\n"), "{text}");
    publish::text(&suite, "s", "hello").unwrap();
    stream.expect("hello").unwrap();
    let proxy = process(&status(&suite), "proxy");
    assert_eq!(proxy["restarts"], 1);
    assert_eq!(proxy["last_end"]["reason"], "restarted by ctl");
    assert!(!suite.logs().contains("unexpectedly"), "{}", suite.logs());
}

#[test]
fn all_are_restarted_one_by_one_and_frontends_last() {
    let mut suite = Suite::prepare("* test", "[runner]\nfrontend_processes=2\nrecover_wait=10\n");
    suite.launch();
    let before = suite.children();
    let text = told(&ctl(&suite, &["restart", "all"]));
    until("all before have ended", || !before.values().any(|pid| is_alive(*pid)));
    let after = suite.children();
    assert!(before.iter().all(|(name, pid)| after[name] != *pid), "{before:?} {after:?}");
    let steps: Vec<_> = text.lines().map(|line| line.split(", pid ").next().unwrap()).collect();
    assert_eq!(
        steps[steps.len() - 5..],
        [
            "starting a successor of frontend",
            "frontend serves again",
            "starting a successor of frontend-1",
            "frontend-1 serves again",
            "restarted 5 processes"
        ]
    );
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn who_asks_for_what_is_not_there_is_told_what_is() {
    let mut suite = Suite::start("* test");
    let error = refused(&ctl(&suite, &["restart", "prox"]));
    assert!(error.contains("no `prox`") && error.contains("frontend") && error.contains("handler, all"), "{error}");
    assert_eq!(ctl(&suite, &["explode"]).status.code(), Some(2));
    suite.stop();
    let error = refused(&ctl(&suite, &["status"]));
    assert!(error.contains("no pushpin-runner answers at ") && error.contains("--config"), "{error}");
}

#[test]
fn a_socket_can_be_named_when_the_configuration_is_wrong() {
    let suite = Suite::start("* test");
    let path = suite.path("pushpin.conf");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "[proxy]\ndebug=perhaps\n").unwrap();
    let error = refused(&ctl(&suite, &["status"]));
    assert!(error.contains("debug: `perhaps`") && error.contains("--socket"), "{error}");
    let socket = suite.path("run/pushpin-ctl");
    assert!(told(&ctl(&suite, &["status", "--socket", socket.to_str().unwrap()])).contains("serving"));
}

#[test]
fn the_log_level_changes_at_once_and_stays_when_a_process_is_started_again() {
    let suite = Suite::start("* test");
    let requests = || {
        let log = fs::read_to_string(suite.path("log/pushpin-proxy.log")).unwrap();
        log.lines().filter(|line| line.contains(" GET http://")).count()
    };
    let is_logged = || {
        let before = requests();
        assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
        // The line is written when the log is opened again, at the latest.
        suite.send("proxy", nix::sys::signal::Signal::SIGUSR1);
        requests() > before
    };
    until("requests are logged", is_logged);
    assert_eq!(told(&ctl(&suite, &["log-level", "proxy", "1"])), "log level 1: proxy\n");
    until("requests are not logged", || !is_logged() && !is_logged());
    told(&ctl(&suite, &["restart", "proxy"]));
    for _ in 0..3 {
        assert!(!is_logged());
    }
    let all = told(&ctl(&suite, &["log-level", "2"]));
    assert!(all.starts_with("log level 2: runner, ") && all.contains("frontend") && all.contains("handler"), "{all}");
    until("requests are logged again", is_logged);
    assert_eq!(ctl(&suite, &["log-level", "9"]).status.code(), Some(2));
    assert!(refused(&ctl(&suite, &["log-level", "prox", "1"])).contains("no `prox`"));
}
