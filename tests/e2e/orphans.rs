// SPDX-License-Identifier: AGPL-3.0-or-later
//! The runner dies, and its processes go on: until the next runner takes them over, or for a while.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::{publish, until};
use serde_json::Value;

/// A backend that holds each request as its path says, for the channel behind that, also as a WebSocket over HTTP.
pub(crate) fn backend() -> Origin {
    Origin::start(|request, stream| {
        let (mode, channel) = request.target[1..].split_once('/').unwrap_or_default();
        if mode == "plain" {
            return respond(stream, "200 OK", "", b"fine");
        }
        if mode != "ws" {
            let headers = format!("Content-Type: text/plain\r\nGrip-Hold: {mode}\r\nGrip-Channel: {channel}\r\n");
            return respond(stream, "200 OK", &headers, b"open\n");
        }
        let subscribe = format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#);
        let opens = request.body.starts_with(b"OPEN");
        let body = if opens { format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len()) } else { String::new() };
        let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
        respond(stream, "200 OK", headers, body.as_bytes())
    })
}

pub(crate) fn prepare(origin: &Origin, settings: &str) -> Suite {
    let routes = format!("*,path_beg=/ws 127.0.0.1:{0},over_http\n* 127.0.0.1:{0}", origin.port);
    Suite::prepare(&routes, &format!("[runner]\nrecover_wait=10\n{settings}"))
}

fn start(origin: &Origin, settings: &str) -> Suite {
    let mut suite = prepare(origin, settings);
    suite.launch();
    suite
}

fn kill_runner(suite: &mut Suite) {
    suite.signal(Signal::SIGKILL);
    until("the runner has ended", || suite.ended().is_some());
}

fn stream(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream/s").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.expect("open\n").unwrap();
    client
}

/// A long-poll that is held for this channel.
fn poll(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(&format!("/response/{channel}")).unwrap();
    until("it is held", || suite.logs().contains(&format!("/response/{channel} channel=")));
    client
}

fn websocket(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let request = "GET /ws/s HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(request.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    client
}

/// Clients of all kinds.
pub(crate) struct Crowd {
    streams: Vec<Client>,
    websockets: Vec<Client>,
}

impl Crowd {
    /// So many streams, and as many WebSockets.
    pub(crate) fn open(suite: &Suite, count: usize) -> Self {
        let streams = (0..count).map(|_| stream(suite)).collect();
        let websockets: Vec<_> = (0..count).map(|_| websocket(suite)).collect();
        until("all are subscribed", || suite.logs().matches("/ws/s channel=").count() == websockets.len());
        Self { streams, websockets }
    }

    /// Publishes a text that is another one each time, which all get and nothing else before.
    pub(crate) fn hears(&mut self, suite: &Suite, text: &str) {
        self.hear(suite, text, &format!(r#","ws-message":{{"content":"{text}"}}"#));
        for client in &mut self.websockets {
            let mut frame = Vec::new();
            while frame.len() < 2 + text.len() {
                let some = client.some(2 + text.len() - frame.len()).unwrap();
                assert!(!some.is_empty(), "closed after {frame:02x?}");
                frame.extend(some);
            }
            assert_eq!(frame, [&[0x81, text.len() as u8], text.as_bytes()].concat());
        }
    }

    /// The same, for streams only.
    pub(crate) fn streams_hear(&mut self, suite: &Suite, text: &str) {
        self.hear(suite, text, "");
    }

    fn hear(&mut self, suite: &Suite, text: &str, more: &str) {
        let formats = format!(r#"{{"http-stream":{{"content":"{text}\n"}}{more}}}"#);
        let item = format!(r#"{{"items":[{{"channel":"s","id":"{text}","formats":{formats}}}]}}"#);
        // A handler that is being replaced may not answer; one with the same id is delivered once.
        until("it is published", || publish::post(suite, &item).is_ok_and(|response| response.head.status == 200));
        for client in &mut self.streams {
            assert_eq!(client.chunk().unwrap(), format!("{text}\n").as_bytes());
        }
    }

    /// All WebSockets are closed with 1001.
    fn is_told_of_the_end(&mut self) {
        for client in &mut self.websockets {
            let frame = client.rest().unwrap();
            assert!(matches!(frame[..], [0x88, _, 0x03, 0xe9, ..]), "{frame:02x?}");
        }
    }
}

/// Answers a long-poll, and nobody else.
fn answer(suite: &Suite, client: &mut Client, channel: &str) {
    let item = format!(r#"{{"items":[{{"channel":"{channel}","formats":{{"http-response":{{"body":"now"}}}}}}]}}"#);
    assert_eq!(publish::post(suite, &item).unwrap().head.status, 200);
    assert_eq!(client.response().unwrap().text(), "now");
}

fn status(suite: &Suite) -> Value {
    let output = suite.run_with(&["ctl", "status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Process ids as the runner tells them.
fn pids(suite: &Suite) -> BTreeMap<String, i32> {
    let status = status(suite);
    let process =
        |process: &Value| Some((process["name"].as_str()?.to_string(), i32::try_from(process["pid"].as_i64()?).ok()?));
    status["processes"].as_array().unwrap().iter().filter_map(process).collect()
}

#[test]
fn the_next_runner_goes_on_with_all_and_no_client_notices() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\n");
    let mut crowd = Crowd::open(&suite, 5);
    let (mut first, mut second) = (poll(&suite, "first"), poll(&suite, "second"));
    crowd.hears(&suite, "before");
    let before = pids(&suite);
    let programs = |suite: &Suite| -> Vec<Value> {
        status(suite)["processes"].as_array().unwrap().iter().map(|process| process["program"].clone()).collect()
    };
    let run = programs(&suite);
    kill_runner(&mut suite);
    crowd.hears(&suite, "between");
    answer(&suite, &mut first, "first");
    let mut third = poll(&suite, "third");
    suite.launch();
    assert_eq!(pids(&suite), before);
    assert_eq!(programs(&suite), run);
    until("all tell how they are", || {
        let status = status(&suite);
        let all = status["processes"].as_array().unwrap();
        status["ready"] == true && all.iter().all(|process| process["open"].is_u64() && process["version"].is_string())
    });
    crowd.hears(&suite, "after");
    answer(&suite, &mut second, "second");
    // It can do with them what it can do with its own.
    let output = suite.run_with(&["ctl", "log-level", "3"]);
    assert!(output.status.success(), "{output:?}");
    until("they read orders", || suite.logs().matches("log level is 3").count() == 4);
    let output = suite.run_with(&["ctl", "restart", "all"]);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
    let after = pids(&suite);
    assert!(before.iter().all(|(name, pid)| after[name] != *pid), "{before:?} {after:?}");
    until("the former ones have ended", || !before.values().any(|pid| is_alive(*pid)));
    crowd.hears(&suite, "at last");
    answer(&suite, &mut third, "third");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn a_runner_can_die_time_and_again_and_the_last_one_ends_all_in_order() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\nfrontend_processes=2\n");
    let mut crowd = Crowd::open(&suite, 5);
    let before = pids(&suite);
    for round in 0..3 {
        kill_runner(&mut suite);
        crowd.hears(&suite, &format!("between {round}"));
        suite.launch();
        assert_eq!(pids(&suite), before);
        crowd.hears(&suite, &format!("after {round}"));
    }
    let mut waiting = poll(&suite, "never");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(waiting.response().unwrap().head.status, 503);
    crowd.is_told_of_the_end();
    assert!(!before.values().any(|pid| is_alive(*pid)));
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn one_that_ends_or_hangs_later_is_started_again() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\nheartbeat_timeout=2\n");
    let mut crowd = Crowd::open(&suite, 5);
    let before = pids(&suite);
    kill_runner(&mut suite);
    suite.launch();
    suite.kill("handler");
    let stopped = Stopped::new(before["outbound"]);
    let is_back = |suite: &Suite, part: &str| pids(suite).get(part).is_some_and(|pid| *pid != before[part]);
    until("both are back", || is_back(&suite, "handler") && is_back(&suite, "outbound"));
    drop(stopped);
    until("all serve", || status(&suite)["ready"] == true);
    crowd.hears(&suite, "after");
    let after = pids(&suite);
    assert_eq!((after["proxy"], after["frontend"]), (before["proxy"], before["frontend"]));
}

#[test]
fn those_that_died_meanwhile_are_started_and_the_others_go_on() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\n");
    let mut crowd = Crowd::open(&suite, 5);
    let before = pids(&suite);
    kill_runner(&mut suite);
    suite.kill("handler");
    until("it has ended", || !is_alive(before["handler"]));
    suite.launch();
    let after = pids(&suite);
    for (name, pid) in &after {
        assert_eq!(before[name] == *pid, name != "handler", "{before:?} {after:?}");
    }
    crowd.hears(&suite, "after");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

fn edit(suite: &Suite, old: &str, new: &str) {
    let text = fs::read_to_string(suite.path("pushpin.conf")).unwrap();
    assert!(text.contains(old));
    fs::write(suite.path("pushpin.conf"), text.replace(old, new)).unwrap();
}

#[test]
fn those_with_another_configuration_are_replaced_and_clients_stay() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\n");
    let mut crowd = Crowd::open(&suite, 5);
    let before = pids(&suite);
    kill_runner(&mut suite);
    edit(&suite, "recover_wait=10", "recover_wait=11");
    suite.launch();
    until("all have been replaced", || {
        let after = pids(&suite);
        after.len() == 4 && before.iter().all(|(name, pid)| after.get(name).is_some_and(|new| new != pid))
    });
    crowd.hears(&suite, "after");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
}

#[test]
fn those_that_would_not_find_the_others_end_before_anything_is_started() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\n");
    let before = pids(&suite);
    kill_runner(&mut suite);
    edit(&suite, "[runner]\nrecover_wait", "[runner]\nfrontend_processes=2\nrecover_wait");
    suite.launch();
    assert!(!before.values().any(|pid| is_alive(*pid)));
    assert_eq!(pids(&suite).len(), 5);
    assert_eq!(get(suite.port, "/plain/").unwrap().head.status, 200);
}

#[test]
fn a_predecessor_that_still_has_clients_keeps_them() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\nmove_clients=false\n");
    let mut crowd = Crowd::open(&suite, 5);
    let old = suite.pid("frontend");
    assert!(suite.run_with(&["ctl", "restart", "frontend"]).status.success());
    crowd.hears(&suite, "before");
    kill_runner(&mut suite);
    crowd.hears(&suite, "between");
    suite.launch();
    assert_ne!(pids(&suite)["frontend"], old);
    crowd.hears(&suite, "after");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert!(!is_alive(old));
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn without_another_runner_they_end_in_order_after_their_time() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=1\n");
    let mut crowd = Crowd::open(&suite, 5);
    let mut waiting = poll(&suite, "never");
    let before = pids(&suite);
    kill_runner(&mut suite);
    assert_eq!(waiting.response().unwrap().head.status, 503);
    crowd.is_told_of_the_end();
    until("all have ended", || !before.values().any(|pid| is_alive(*pid)));
    let left = suite.left_behind();
    assert!(!left.iter().any(|name| name.contains("door-")), "{left:?}");
    suite.launch();
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
    assert_eq!(suite.left_behind(), Vec::<String>::new());
}

#[test]
fn one_that_hangs_without_runner_is_replaced_by_the_next() {
    let origin = backend();
    let mut suite = start(&origin, "orphan_grace=60\n");
    let before = pids(&suite);
    kill_runner(&mut suite);
    let stopped = Stopped::new(before["proxy"]);
    suite.launch();
    drop(stopped);
    let after = pids(&suite);
    for (name, pid) in &after {
        assert_eq!(before[name] == *pid, name != "proxy", "{before:?} {after:?}");
    }
    assert!(!is_alive(before["proxy"]));
    assert_eq!(get(suite.port, "/plain/").unwrap().head.status, 200);
}
