// SPDX-License-Identifier: AGPL-3.0-or-later
//! `pushpin-runner ctl upgrade`: all processes from the programs on disk, or none.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::client::{Client, get};
use pushpin_tests::suite::{PARTS, Suite, program};
use pushpin_tests::{publish, until};

use crate::orphans::{Crowd, backend, prepare};

/// A suite with programs that can be replaced.
fn start() -> Suite {
    start_with("")
}

fn start_with(settings: &str) -> Suite {
    let mut suite = Suite::prepare("* test", &format!("[runner]\nrecover_wait=10\n{settings}"));
    let built = program("pushpin-runner");
    suite.copy_programs(built.parent().unwrap());
    suite.launch();
    suite
}

fn upgrade(suite: &Suite) -> Output {
    suite.run_with(&["ctl", "upgrade"])
}

/// Why it was not done.
fn refused(suite: &Suite) -> String {
    let output = upgrade(suite);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn stream(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream?channel=s").unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    client
}

/// Installs a shell script in the place of a program.
fn install_script(suite: &Suite, name: &str, script: &str) {
    let file = suite.path("script");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    suite.install(name, &file);
}

fn executable(suite: &Suite, part: &str) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", suite.pid(part))).unwrap()
}

/// The report, a process a line.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let table = text.lines().skip_while(|line| !line.starts_with("PROCESS ")).skip(1);
    table.map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn all_processes_become_those_on_disk_and_clients_notice_nothing() {
    let suite = start();
    let mut clients: Vec<Client> = (0..3).map(|_| stream(&suite)).collect();
    let before = suite.children();
    PARTS.iter().for_each(|part| suite.install(part, &program(part)));
    let output = upgrade(&suite);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    let text = String::from_utf8(output.stdout).unwrap();
    until("the old frontend has ended", || suite.children().len() == 4);
    let after = suite.children();
    let rows = rows(&text);
    let names: Vec<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["outbound", "handler", "proxy", "frontend"], "{text}");
    for row in &rows {
        let name = &format!("pushpin-{}", row[0])[..15.min(row[0].len() + 8)];
        let pids = [before[name].to_string(), "->".into(), after[name].to_string()];
        assert!(before[name] != after[name] && row[4..7] == pids, "{text}");
        assert_eq!(row[1..4], [row[1], "->", row[1]], "{text}");
        assert_eq!(executable(&suite, row[0]), suite.path(&format!("bin/pushpin-{}", row[0])));
    }
    assert_eq!(rows[3].last(), Some(&"3"), "{text}");
    publish::text(&suite, "s", "hello").unwrap();
    clients.iter_mut().for_each(|client| client.expect("hello").unwrap());
}

#[test]
fn one_wrong_program_keeps_all_as_they_are_and_is_named() {
    let suite = start();
    let before = suite.children();
    let version = "[ $1 = --version ] && echo pushpin-handler 9.8 && exit";
    let check = |what: &str, said: &str| {
        let told = refused(&suite);
        assert!(told.contains("nothing has been changed") && told.contains(said), "{what}: {told}");
        assert!(told.contains("bin/pushpin-handler"), "{what}: {told}");
        assert_eq!(suite.children(), before, "{what}");
    };
    suite.install("pushpin-handler", &program("pushpin-proxy"));
    check("another program", "it says `pushpin-proxy ");
    install_script(
        &suite,
        "pushpin-handler",
        &format!("{version}\necho 'pushpin.conf:3: no such setting' >&2; exit 1"),
    );
    check("one that refuses the configuration", "9.8 does not take the configuration: pushpin.conf:3: no such setting");
    fs::set_permissions(suite.path("bin/pushpin-handler"), fs::Permissions::from_mode(0o644)).unwrap();
    check("one that is not executable", "Permission denied");
    fs::remove_file(suite.path("bin/pushpin-handler")).unwrap();
    check("none", "No such file");
    // What has been refused is not in the way of the right one.
    suite.install("pushpin-handler", &program("pushpin-handler"));
    let output = upgrade(&suite);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn all_go_back_to_what_they_were_if_one_does_not_serve() {
    let suite = start();
    let mut client = stream(&suite);
    let before = suite.children();
    for part in ["pushpin-outbound", "pushpin-proxy", "pushpin-frontend"] {
        suite.install(part, &program(part));
    }
    // It can answer, and that is all.
    let answers = "case \"$*\" in --version) echo pushpin-handler 9.8;; *--check) ;; *) echo broken >&2; exit 3;; esac";
    install_script(&suite, "pushpin-handler", answers);
    let told = refused(&suite);
    assert!(told.contains("the new handler ended before it served: exit status 3: broken"), "{told}");
    assert!(told.contains("all processes run the programs that they had before"), "{told}");
    let rows = rows(&told);
    for name in ["outbound", "handler"] {
        let file = format!("bin/pushpin-{name} (deleted)");
        assert_eq!(executable(&suite, name), suite.path(&file), "it is the old one");
        let row = rows.iter().find(|row| row[0] == name).unwrap();
        assert_eq!(row[6], suite.pid(name).to_string(), "{told}");
    }
    assert_eq!(suite.pid("proxy"), before["pushpin-proxy"], "its turn had not come");
    assert_eq!(suite.pid("frontend"), before["pushpin-fronten"], "its turn had not come");
    let status = String::from_utf8(suite.run_with(&["ctl", "status"]).stdout).unwrap();
    assert!(status.contains("bin/pushpin-handler (deleted)"), "{status}");
    publish::text(&suite, "s", "still there").unwrap();
    client.expect("still there").unwrap();
    // One that dies comes from what it was, and not from what is on disk.
    let old = suite.pid("handler");
    suite.kill("handler");
    until("it is back", || suite.children().get("pushpin-handler").is_some_and(|new| *new != old));
    publish::text(&suite, "s", "again").unwrap();
    client.expect("again").unwrap();
    // The next attempt takes what is there then.
    suite.install("pushpin-handler", &program("pushpin-handler"));
    let output = upgrade(&suite);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    assert_eq!(executable(&suite, "handler"), suite.path("bin/pushpin-handler"));
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    publish::text(&suite, "s", "to the end").unwrap();
    client.expect("to the end").unwrap();
}

/// A program that can answer questions, and does `instead` when it is to serve.
fn that_answers(name: &str, instead: &str) -> String {
    format!("case \"$*\" in --version) echo {name} 9.8;; *--check) ;; *) {instead};; esac")
}

#[test]
fn a_successor_that_does_not_serve_in_time_is_a_failure() {
    let suite = start();
    let mut client = stream(&suite);
    install_script(&suite, "pushpin-outbound", &that_answers("pushpin-outbound", "exec sleep 1000"));
    let told = refused(&suite);
    assert!(told.contains("the new outbound does not serve after 15 s"), "{told}");
    assert!(told.contains("all processes run the programs that they had before"), "{told}");
    assert_eq!(executable(&suite, "outbound"), suite.path("bin/pushpin-outbound (deleted)"));
    publish::text(&suite, "s", "still there").unwrap();
    client.expect("still there").unwrap();
}

#[test]
fn a_frontend_goes_back_with_its_clients() {
    let suite = start_with("frontend_processes=2\n");
    let mut clients: Vec<Client> = (0..10).map(|_| stream(&suite)).collect();
    PARTS.iter().for_each(|part| suite.install(part, &program(part)));
    // The first of them serves, the second does not.
    let real = program("pushpin-frontend");
    let script = format!(
        "case \"$*\" in --version|*--check) exec {0} \"$@\";; *--process=1*) echo broken >&2; exit 3;; *) exec {0} \"$@\";; esac",
        real.display()
    );
    install_script(&suite, "pushpin-frontend", &script);
    let told = refused(&suite);
    assert!(told.contains("the new frontend-1 ended before it served: exit status 3: broken"), "{told}");
    assert!(told.contains("all processes run the programs that they had before"), "{told}");
    until("those between have ended", || suite.pids("frontend").len() == 2);
    for pid in suite.pids("frontend") {
        let file = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(file, suite.path("bin/pushpin-frontend (deleted)"), "it is the old one");
    }
    publish::text(&suite, "s", "still there").unwrap();
    clients.iter_mut().for_each(|client| client.expect("still there").unwrap());
}

#[test]
fn a_way_back_that_fails_is_told_and_the_next_restart_takes_what_is_on_disk() {
    let suite = start();
    let mut client = stream(&suite);
    // What ran can not be started again.
    fs::set_permissions(suite.path("bin/pushpin-outbound"), fs::Permissions::from_mode(0o644)).unwrap();
    for part in ["pushpin-outbound", "pushpin-proxy", "pushpin-frontend"] {
        suite.install(part, &program(part));
    }
    install_script(&suite, "pushpin-handler", &that_answers("pushpin-handler", "echo broken >&2; exit 3"));
    let told = refused(&suite);
    assert!(told.contains("the new handler ended before it served: exit status 3: broken"), "{told}");
    assert!(told.contains("on the way back, the new outbound ended before it served"), "{told}");
    assert!(told.contains("Permission denied") && told.contains("the runner keeps trying"), "{told}");
    for name in ["proxy", "handler"] {
        let file = format!("bin/pushpin-{name} (deleted)");
        assert_eq!(executable(&suite, name), suite.path(&file), "it went back before");
    }
    let output = suite.run_with(&["ctl", "restart", "outbound"]);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    assert_eq!(executable(&suite, "outbound"), suite.path("bin/pushpin-outbound"));
    publish::text(&suite, "s", "still there").unwrap();
    client.expect("still there").unwrap();
}

#[test]
fn a_program_is_asked_about_routes_and_keys_too() {
    let suite = start();
    let before = suite.children();
    fs::write(suite.path("routes"), "* 127.0.0.1:notaport\n").unwrap();
    let told = refused(&suite);
    assert!(told.contains("nothing has been changed") && told.contains("pushpin-proxy"), "{told}");
    assert!(told.contains("routes:1: "), "{told}");
    assert_eq!(suite.children(), before);
}

#[test]
fn websockets_miss_nothing_that_is_published_during_an_upgrade() {
    let origin = backend();
    let mut suite = prepare(&origin, "");
    suite.copy_programs(program("pushpin-runner").parent().unwrap());
    suite.launch();
    let mut crowd = Crowd::open(&suite, 10);
    let output = thread::scope(|scope| {
        let upgrading = scope.spawn(|| upgrade(&suite));
        for count in 0.. {
            crowd.hears(&suite, &format!("message {count}"));
            if upgrading.is_finished() {
                break;
            }
        }
        upgrading.join().unwrap()
    });
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    crowd.hears(&suite, "after");
}

#[test]
#[ignore = "PREVIOUS names a directory with the programs of another commit: .ci/run previous"]
fn clients_notice_nothing_of_an_upgrade_from_the_programs_of_another_commit() {
    const CLIENTS: usize = 100;
    let previous = std::env::var_os("PREVIOUS").expect("PREVIOUS names a directory with programs");
    let origin = backend();
    let mut suite = prepare(&origin, "");
    suite.copy_programs(previous.as_ref());
    suite.launch();
    let mut crowd = Crowd::open(&suite, CLIENTS);
    crowd.hears(&suite, "before");
    PARTS.iter().for_each(|part| suite.install(part, &program(part)));
    let (mut longest, mut count) = (Duration::ZERO, 0);
    let output = thread::scope(|scope| {
        let upgrading = scope.spawn(|| upgrade(&suite));
        while !upgrading.is_finished() {
            let began = Instant::now();
            crowd.streams_hear(&suite, &format!("message {count}"));
            longest = longest.max(began.elapsed());
            count += 1;
        }
        upgrading.join().unwrap()
    });
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    crowd.hears(&suite, "after");
    for part in PARTS {
        let name = part.strip_prefix("pushpin-").unwrap();
        until("only the new one is there", || suite.pids(name).len() == 1);
        assert_eq!(executable(&suite, name), suite.path(&format!("bin/{part}")));
    }
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!(
        "{CLIENTS} streams had each of {count} messages meanwhile, and neither they nor {CLIENTS} WebSockets were closed; the longest \
         time from a message to its arrival at all of them was {} ms",
        longest.as_millis()
    );
}
