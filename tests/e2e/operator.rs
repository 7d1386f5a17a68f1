// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an operator does: edits the configuration, sends signals, reads the log.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::until;

fn append(suite: &Suite, text: &str) {
    let path = suite.path("pushpin.conf");
    fs::write(&path, fs::read_to_string(&path).unwrap() + text).unwrap();
}

#[test]
fn a_part_that_dies_after_a_bad_edit_is_back_with_what_was_good() {
    let suite = Suite::start("* test");
    append(&suite, "[proxy]\ndebug=perhaps\n");
    let killed = suite.pid("proxy");
    suite.kill("proxy");
    until("the killed process is gone", || !is_alive(killed));
    until("requests are answered again", || get(suite.port, "/").is_ok_and(|answer| answer.head.status == 200));
    assert_eq!(suite.logs().matches("Exited unexpectedly").count(), 1, "{}", suite.logs());
}

#[test]
fn signals_to_the_runner_end_no_part_that_has_just_been_started() {
    const PARTS: [&str; 3] = ["pushpin-proxy", "pushpin-handler", "pushpin-outboun"];
    let suite = Suite::start("* test");
    let (over, began) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && began.elapsed() < pushpin_tests::PATIENCE {
                suite.signal(Signal::SIGUSR1);
                // Whatever the runner is about when it comes.
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for part in PARTS.repeat(3) {
            let killed = suite.children()[part];
            kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
            until("there is another", || suite.children().get(part).is_some_and(|pid| *pid != killed));
        }
        until("requests are answered again", || get(suite.port, "/").is_ok_and(|answer| answer.head.status == 200));
        over.store(true, Ordering::Relaxed);
    });
    let logs = suite.logs();
    let ends: Vec<&str> = logs.lines().filter(|line| line.contains("Exited unexpectedly")).collect();
    assert!(ends.iter().all(|line| line.contains("SIGKILL")), "{ends:#?}");
    assert_eq!(ends.len(), 3 * PARTS.len(), "{logs}");
}

#[test]
fn hup_refuses_a_bad_edit_with_its_line_and_still_reads_the_routes() {
    let mut suite = Suite::start("* 127.0.0.1:1");
    let lines = fs::read_to_string(suite.path("pushpin.conf")).unwrap().lines().count();
    append(&suite, "[proxy]\ndebug=perhaps\n");
    fs::write(suite.path("routes"), "* test\n").unwrap();
    suite.signal(Signal::SIGHUP);
    let expected = format!("pushpin.conf:{}: debug: `perhaps`", lines + 2);
    until("the mistake is told", || suite.logs().contains(&expected));
    until("the new routes are used", || get(suite.port, "/").is_ok_and(|answer| answer.head.status == 200));
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
}

#[test]
fn hup_has_a_good_edit_taken_over_by_what_starts_later() {
    let suite = Suite::start("* 127.0.0.1:1");
    append(&suite, "[proxy]\ndebug=true\n");
    suite.signal(Signal::SIGHUP);
    until("the change is seen", || suite.logs().contains("the configuration has changed"));
    let killed = suite.pid("proxy");
    suite.kill("proxy");
    until("the killed process is gone", || !is_alive(killed));
    let explains =
        || get(suite.port, "/").is_ok_and(|answer| String::from_utf8_lossy(&answer.body).contains("127.0.0.1:1"));
    until("errors say more", explains);
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let suite = Suite::prepare("* test", "[runner]\nclient_maxconn=100\n[proxy]\nsig_key=mine");
    let checked = suite.run_with(&["--check"]);
    let (shown, told) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert_eq!((checked.status.code(), &*told), (Some(0), "the configuration is good\n"));
    assert!(shown.contains("\nclient_maxconn=100 ; "), "{shown}");
    assert!(!suite.path("run").exists() && !suite.path("log").exists());

    append(&suite, "[proxy]\ndebug=perhaps\n");
    fs::write(suite.path("routes"), "* test\n*,ssl=maybe test\n").unwrap();
    let checked = suite.run_with(&["--check"]);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains(": debug: `perhaps`") && told.contains("routes:2: ssl must be yes or no"), "{told}");
    assert!(told.ends_with("the configuration is not good: 2 error(s), 0 warning(s)\n"), "{told}");
}

#[test]
fn stopping_twice_kills_nobody() {
    let mut suite = Suite::start("* test");
    let parts = suite.children();
    // Those that are stopped can not end in order before they go on.
    suite.send("handler", Signal::SIGSTOP);
    for _ in 0..3 {
        suite.signal(Signal::SIGTERM);
        suite.signal(Signal::SIGINT);
    }
    until("the second signal has been seen", || suite.logs().contains("still stopping"));
    assert!(is_alive(parts["pushpin-handler"]));
    suite.send("handler", Signal::SIGCONT);
    until("the runner has ended", || suite.ended().is_some());
    assert_eq!(suite.ended().unwrap().code(), Some(0), "{}", suite.logs());
}

#[test]
fn terminating_a_part_twice_does_not_cut_its_end_short() {
    let suite = Suite::start("* test");
    let pid = suite.pid("frontend");
    suite.send("frontend", Signal::SIGSTOP);
    for _ in 0..2 {
        suite.send("frontend", Signal::SIGTERM);
    }
    suite.send("frontend", Signal::SIGCONT);
    until("it has ended", || !is_alive(pid));
    until("its end is told", || suite.logs().contains("frontend: Exited unexpectedly (exit status 0)"));
}

#[test]
fn signals_without_a_meaning_end_nobody() {
    let mut suite = Suite::start("* test");
    let parts = suite.children();
    for signal in [Signal::SIGUSR2, Signal::SIGUSR1, Signal::SIGQUIT] {
        suite.signal(signal);
        for part in ["frontend", "proxy", "handler", "outbound"] {
            // It would end when its clients have gone.
            if (part, signal) != ("frontend", Signal::SIGUSR2) {
                suite.send(part, signal);
            }
        }
    }
    until("they have been seen", || suite.logs().matches("QUIT is ignored").count() == 5);
    assert_eq!(suite.children(), parts);
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
}

#[test]
fn usr1_opens_log_files_again() {
    let suite = Suite::start("* test");
    let (log, old) = (suite.path("log/pushpin-proxy.log"), suite.path("proxy.old"));
    fs::rename(&log, &old).unwrap();
    suite.signal(Signal::SIGUSR1);
    until("there is a new log file", || log.exists());
}

#[test]
fn the_log_says_where_each_part_was_started_from_and_when_all_serve() {
    let suite = Suite::start("* test");
    let logs = fs::read_to_string(suite.path("runner.out")).unwrap();
    for part in ["frontend", "proxy", "handler", "outbound"] {
        let beside = pushpin_tests::suite::program(&format!("pushpin-{part}"));
        assert!(logs.contains(&format!("starting {part} from {}", beside.display())), "{logs}");
    }
    let last = logs.lines().last().unwrap();
    assert!(last.starts_with("[INFO] ") && last.ends_with(" started"), "{logs}");
}

#[test]
fn a_suite_without_a_frontend_does_not_listen() {
    let mut suite = Suite::prepare("* test", "[runner]\nservices=proxy,handler");
    suite.launch();
    let refused = std::net::TcpStream::connect(("127.0.0.1", suite.port)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
}

#[test]
fn a_log_that_nobody_reads_stops_nobody_and_says_what_is_missing_when_it_is_read() {
    let mut suite = Suite::prepare("* test", "[runner]\nlog_buffer_size=65536");
    let mut log = suite.launch_into_pipe(&["--merge-output"]);
    until("requests are answered", || get(suite.port, "/").is_ok());
    let path = format!("/{}", "x".repeat(1000));
    let began = Instant::now();
    // Several times what the pipe and all buffers on the way can take.
    for _ in 0..1000 {
        get(suite.port, &path).unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    until("requests are answered", || get(suite.port, "/").is_ok());
    assert_eq!(suite.stop().code(), Some(0));
    let text = reader.join().unwrap();
    assert!(text.contains("log lines are missing here"), "{}", &text[text.len().saturating_sub(3000)..]);
}

#[test]
fn each_line_of_a_log_in_json_is_an_object() {
    let mut suite = Suite::prepare("* test", "[runner]\nlog_format=json");
    let mut log = BufReader::new(suite.launch_into_pipe(&["--merge-output"]));
    let mut text = String::new();
    while !text.contains("\"process\":\"runner\",\"message\":\"started\"") {
        assert_ne!(log.read_line(&mut text).unwrap(), 0, "{text}");
    }
    get(suite.port, "/?b=\"c\"").unwrap();
    assert_eq!(suite.stop().code(), Some(0));
    log.read_to_string(&mut text).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    for process in ["runner", "frontend", "proxy", "handler", "outbound"] {
        assert!(lines.iter().any(|line| line["process"] == process && line["message"] == "started"), "{text}");
    }
    let request = lines.iter().find(|line| line["method"] == "GET").unwrap_or_else(|| panic!("{text}"));
    assert_eq!((&request["process"], &request["status"]), (&"proxy".into(), &200.into()), "{text}");
    assert_eq!((&request["outcome"], &request["backend"]), (&"responded".into(), &"test".into()), "{text}");
    assert!(request["uri"].as_str().is_some_and(|uri| uri.ends_with("/?b=\"c\"")), "{text}");
    assert!(request["seconds"].is_f64() && request["bytes"].is_u64(), "{text}");
}

#[test]
fn lines_in_the_journal_of_systemd_begin_with_their_priority() {
    let mut suite = Suite::prepare("* test", "[runner]\nupdates=1");
    // Where the log of a runner goes.
    let journal = fs::File::create(suite.path("runner.out")).unwrap().metadata().unwrap();
    suite.set_variable("JOURNAL_STREAM", format!("{}:{}", journal.dev(), journal.ino()));
    suite.launch();
    assert_eq!(suite.stop().code(), Some(0));
    let text = fs::read_to_string(suite.path("runner.out")).unwrap();
    let begins = |line: &str| line.starts_with("<6>[INFO] ") || line.starts_with("<4>[WARN] ");
    assert!(text.lines().all(begins) && text.contains("<4>") && text.contains("<6>"), "{text}");
    let own = fs::read_to_string(suite.path("log/pushpin-proxy.log")).unwrap();
    assert!(own.lines().all(|line| line.starts_with('[')), "{own}");
}

#[test]
fn a_request_is_found_by_its_id_in_the_logs_of_all_processes_and_at_the_backend() {
    let origin =
        Origin::start(|_, stream| respond(stream, "200 OK", "Grip-Hold: stream\r\nGrip-Channel: c\r\n", b"held\n"));
    let settings = "[runner]\nrequest_ids=true\nlog_level=3";
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), settings);
    suite.launch();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |headers: &str| {
        let mut client = Client::connect(suite.port).unwrap();
        client.send(format!("GET /held HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes()).unwrap();
        assert_eq!(client.head().unwrap().status, 200);
        (client, origin.request())
    };
    let (_one, named) = ask(&format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n"));
    assert_eq!(named.header("traceparent"), Some(&*format!("00-{trace}-00f067aa0ba902b7-01")));
    assert_eq!(named.header("X-Request-Id"), None);
    let (_other, mine) = ask("X-Request-Id: mine\r\n");
    assert_eq!(mine.header("X-Request-Id"), Some("mine"));
    let unnamed = ["", "X-Request-Id: not a name\r\n"].map(ask);
    let given = unnamed.each_ref().map(|(_, request)| request.header("X-Request-Id").unwrap());
    assert_ne!(given[0], given[1]);
    // The proxy may hear of it after the client.
    until("all are held", || suite.logs().matches(" accept time=").count() == 4);
    assert_eq!(suite.stop().code(), Some(0));
    for id in [trace, "mine", given[0], given[1]] {
        let logs = suite.logs();
        let lines: Vec<&str> = logs.lines().filter(|line| line.ends_with(&format!(" id={id}"))).collect();
        for said in ["request to a proxy: GET ", "request to a backend: GET ", "request is held: GET ", " accept time="]
        {
            assert_eq!(lines.iter().filter(|line| line.contains(said)).count(), 1, "{said}: {logs}");
        }
        let session = |said: &str| {
            let line = lines.iter().find(|line| line.contains(said))?;
            line.split(' ').find(|word| word.starts_with("session="))
        };
        assert_eq!(session("request is held"), session("request to a proxy"), "{logs}");
        assert!(session("request is held").is_some() && session("request to a backend").is_some(), "{logs}");
    }
}

#[test]
fn sockets_of_zurl_do_not_count_when_the_runner_starts_outbound() {
    let settings = "[runner]\nservices=condure,zurl,pushpin-proxy,pushpin-handler\ncondure_bin=/none/condure\nzurl_bin=/none/zurl\n[proxy]\n\
                    zurl_out_specs=ipc://{rundir}/zurl-in\nzurl_out_stream_specs=ipc://{rundir}/zurl-in-stream\n\
                    zurl_in_specs=ipc://{rundir}/zurl-out";
    let origin =
        pushpin_tests::origin::Origin::start(|_, stream| pushpin_tests::origin::respond(stream, "200 OK", "", b"fine"));
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), settings);
    suite.launch();
    assert_eq!(get(suite.port, "/").unwrap().body, b"fine");
    assert!(suite.logs().contains("`zurl_out_specs` and the like are not used"), "{}", suite.logs());
}
