// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frontends that are replaced while they serve, and keep the clients that they have. (Those of `transplant` give them away.)

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::Origin;
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::{publish, until};

fn start(routes: &str, settings: &str) -> Suite {
    let mut suite = Suite::prepare(routes, &format!("[runner]\n{settings}"));
    suite.launch();
    suite
}

/// Has the frontends replaced; what the command says.
fn replace(suite: &Suite) -> String {
    let output = suite.run_with(&["ctl", "restart", "frontend"]);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    String::from_utf8(output.stdout).unwrap()
}

fn open_stream(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(&format!("/stream?channel={channel}")).unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    client
}

#[test]
fn no_new_connection_is_refused_or_reset_while_frontends_are_replaced() {
    let suite = start("* test", "frontend_processes=2");
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let response = get(suite.port, "/").expect("a new connection is served");
                    assert_eq!(response.head.status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let before = served.load(Ordering::Relaxed);
            replace(&suite);
            until("requests go on", || served.load(Ordering::Relaxed) > before + 20);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_slow_download_goes_on_to_its_end_over_a_replacement() {
    const PIECES: usize = 400;
    let body = |piece: usize| vec![b'a' + (piece % 26) as u8; 50_000];
    let origin = Origin::start(move |_, stream| {
        let length = PIECES * body(0).len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
        (0..PIECES).try_for_each(|piece| stream.write_all(&body(piece)))
    });
    let suite = start(&format!("* 127.0.0.1:{}", origin.port), "move_clients=false");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    let head = client.head().unwrap();
    let old = suite.pid("frontend");
    replace(&suite);
    assert!(is_alive(old), "it has a client");
    assert_eq!(client.body(&head).unwrap(), (0..PIECES).flat_map(body).collect::<Vec<_>>());
    client.close();
    until("the old process has ended", || !is_alive(old));
}

#[test]
fn held_clients_of_the_old_process_get_what_is_published_as_those_of_the_new_one_do() {
    let suite = start("* test", "move_clients=false");
    let mut streams = vec![open_stream(&suite, "s")];
    for i in 0..3 {
        replace(&suite);
        streams.push(open_stream(&suite, "s"));
        let text = format!("message {i}\n");
        publish::text(&suite, "s", text.trim_end()).unwrap();
        for stream in &mut streams {
            stream.expect(text.trim_end()).unwrap();
        }
    }
}

#[test]
fn the_old_process_opens_its_log_again_when_logs_are_rotated() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        let suite = start("* test", "move_clients=false");
        let stream = open_stream(&suite, "s");
        let old = suite.pid("frontend");
        replace(&suite);
        let (log, aside) = (suite.path("log/pushpin-frontend.log"), suite.path("log/old.log"));
        std::fs::rename(&log, &aside).unwrap();
        suite.signal(signal);
        until("the log is there again", || log.exists());
        get(suite.port, "/").expect("the new process serves");
        let opened = || std::fs::read_dir(format!("/proc/{old}/fd")).into_iter().flatten().flatten();
        let has = |path: &std::path::Path| opened().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path));
        until("the old process has left the old log", || !has(&aside));
        assert!(has(&log), "{signal}");
        stream.close();
        until("the old process has ended", || !is_alive(old));
        let (rotated, present) = (std::fs::read_to_string(&aside).unwrap(), std::fs::read_to_string(&log).unwrap());
        assert!(present.contains("stopping...") && !rotated.contains("stopping..."), "{rotated}\n--\n{present}");
    }
}

#[test]
fn an_idle_connection_is_served_once_more_and_told_that_it_ends() {
    let suite = start("* test", "move_clients=false");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    assert_eq!(client.response().unwrap().head.header("Connection"), None);
    let old = suite.pid("frontend");
    replace(&suite);
    client.get("/").unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.head.status, response.head.header("Connection")), (200, Some("close")));
    client.close();
    until("the old process has ended", || !is_alive(old));
}

/// A stream, a long-poll and a WebSocket.
fn hold(suite: &Suite) -> [Client; 3] {
    let stream = open_stream(suite, "s");
    let mut poll = Client::connect(suite.port).unwrap();
    poll.get("/response?channel=p").unwrap();
    let mut socket = Client::connect(suite.port).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.send(request.as_bytes()).unwrap();
    assert_eq!(socket.head().unwrap().status, 101);
    until("the long-poll is held", || suite.logs().contains("channel=p"));
    [stream, poll, socket]
}

fn are_ended_in_order(mut poll: Client, mut socket: Client) {
    assert_eq!(poll.response().unwrap().head.status, 503);
    let frame = socket.rest().unwrap();
    assert_eq!(frame, [&[0x88, 17, 3, 0xe9], &b"service restart"[..]].concat());
}

#[test]
fn who_stays_for_too_long_is_ended_in_order() {
    let suite = start("* test", "drain_timeout=2\nmove_clients=false");
    let [mut stream, poll, socket] = hold(&suite);
    let old = suite.pid("frontend");
    replace(&suite);
    assert_eq!(stream.chunk().unwrap(), b"", "the end of a complete response");
    are_ended_in_order(poll, socket);
    drop(stream);
    until("the old process has ended", || !is_alive(old));
    assert!(suite.logs().contains("3 clients have been ended"), "{}", suite.logs());
}

#[test]
fn whom_a_stop_of_the_suite_finds_is_ended_in_order() {
    let mut suite = start("* test", "");
    let [mut stream, poll, socket] = hold(&suite);
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(stream.rest().unwrap(), b"", "closed, as by Pushpin");
    are_ended_in_order(poll, socket);
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let suite = start("* test", "");
    let mut stream = open_stream(&suite, "s");
    let old = suite.pid("frontend");
    // It can not bind there while the file is a directory that is not empty.
    let out = suite.path("run/pushpin-frontend-out");
    let aside = suite.path("aside");
    std::fs::rename(&out, &aside).unwrap();
    std::fs::create_dir_all(out.join("x")).unwrap();
    // Its clients would not move either.
    std::fs::remove_file(suite.path("run/pushpin-frontend-out-successor")).unwrap();
    let output = suite.run_with(&["ctl", "restart", "frontend"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the one before goes on"), "{told}");
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::rename(&aside, &out).unwrap();
    assert_eq!(suite.pid("frontend"), old);
    publish::text(&suite, "s", "hello").unwrap();
    stream.expect("hello").unwrap();
    // A proxy that comes now finds it: it has its addresses to itself again.
    suite.kill("proxy");
    until("requests are answered", || get(suite.port, "/").is_ok_and(|response| response.head.status == 200));
}
