// SPDX-License-Identifier: AGPL-3.0-or-later
//! Filters that ask a backend about messages, and their limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::Suite;
use pushpin_tests::{publish, until};
use wire::websocket::{Header, Opcode};

const CLIENTS: usize = 1000;

fn open(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    client
}

/// Holds `/<mode>/<filter>` on the channel `c`, and answers what filters ask: `drop` is dropped, other content is changed.
fn origin(asked: &Arc<AtomicUsize>) -> Origin {
    let asked = asked.clone();
    Origin::start(move |request: &Request, stream| {
        if request.target == "/ask" {
            asked.fetch_add(1, Ordering::SeqCst);
            let drops = request.body == b"drop" || request.header("Pub-Meta") == Some(r#"{"drop":"1"}"#);
            let meta = request.header("Sub-Meta");
            if request.method != "POST" || meta != Some(r#"{"url":"/ask","user":"bob"}"#) {
                return respond(stream, "400 Bad Request", "", b"");
            }
            let headers = if drops { "Action: drop\r\n" } else { "" };
            return respond(stream, "200 OK", headers, &[&b"new "[..], &request.body].concat());
        }
        let (mode, filter) = request.target[1..].split_once('/').unwrap_or_default();
        let hold =
            format!("Grip-Hold: {mode}\r\nGrip-Channel: c; filter={filter}\r\nGrip-Set-Meta: user=bob, url=/ask\r\n");
        respond(stream, "200 OK", &hold, b"open\n")
    })
}

fn held(suite: &Suite, mode: &str, filter: &str) -> Client {
    let mut client = open(suite, &format!("/{mode}/{filter}"));
    match mode {
        "stream" => {
            client.head().unwrap();
            client.expect("open\n").unwrap();
        }
        _ => until("it is held", || suite.logs().contains(&format!("subscribe http://example.com/{mode}/{filter} "))),
    }
    client
}

#[test]
fn a_thousand_subscribers_of_a_class_are_asked_about_once() {
    let asked = Arc::default();
    let origin = origin(&asked);
    let suite = Suite::before(origin.port);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| held(&suite, "stream", "http-check")).collect();
    let item = r#"{"channel":"c","meta":{"drop":"1"},"formats":{"http-stream":{"content":"not for them"}}}"#;
    publish::post(&suite, &format!(r#"{{"items":[{item}]}}"#)).unwrap();
    publish::text(&suite, "c", "hello").unwrap();
    for client in &mut clients {
        client.expect("hello").unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "requests about two messages for {CLIENTS} subscribers");
}

#[test]
fn streams_and_long_polls_get_what_the_backend_makes_of_a_message_in_order() {
    let asked = Arc::default();
    let origin = origin(&asked);
    let suite = Suite::before(origin.port);
    let mut stream = held(&suite, "stream", "http-modify");
    let mut poll = held(&suite, "response", "http-modify");
    // This one's filter asks nobody, so that it is not held up.
    let mut other = held(&suite, "stream", "skip-self");
    for text in ["drop", "1", "2"] {
        publish::text(&suite, "c", text).unwrap();
    }
    other.expect("drop12").unwrap();
    stream.expect("new 1new 2").unwrap();
    assert_eq!(poll.response().unwrap().text(), "new 1");
    assert!(asked.load(Ordering::SeqCst) >= 5, "three for the stream, two for the long-poll");
}

#[test]
fn backends_are_told_of_filters_that_ask() {
    let origin = origin(&Arc::default());
    let suite = Suite::before(origin.port);
    let _client = held(&suite, "stream", "http-check");
    let request = origin.request();
    let features: Vec<&str> = request.header("Grip-Feature").unwrap().split(", ").collect();
    assert!(features.contains(&"filter:http-check") && features.contains(&"filter:http-modify"), "{features:?}");
}

#[test]
fn a_message_about_which_a_backend_can_not_be_asked_is_not_delivered_and_the_log_says_why() {
    let origin = Origin::start(|request: &Request, stream| match &*request.target {
        "/ask" => respond(stream, "500 Internal Server Error", "", b""),
        _ => respond(
            stream,
            "200 OK",
            "Grip-Hold: stream\r\nGrip-Channel: c; filter=http-check, d\r\nGrip-Set-Meta: url=/ask\r\n",
            b"open\n",
        ),
    });
    let suite = Suite::before(origin.port);
    let mut client = open(&suite, "/");
    client.head().unwrap();
    client.expect("open\n").unwrap();
    publish::text(&suite, "c", "lost").unwrap();
    until("the log says why", || {
        suite.logs().contains("filter error: http-check: unexpected network request status: code=500")
    });
    publish::text(&suite, "d", "next").unwrap();
    client.expect("next").unwrap();
}

fn websocket(suite: &Suite) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let host = suite.port;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.send(request.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    client
}

/// A backend of WebSocket events that subscribes each connection, with a filter.
fn events(asked: &Arc<AtomicUsize>) -> Origin {
    let asked = asked.clone();
    Origin::start(move |request: &Request, stream| {
        if request.target == "/ask" {
            asked.fetch_add(1, Ordering::SeqCst);
            return respond(stream, "200 OK", "", &[&b"new "[..], &request.body].concat());
        }
        let mut events = b"OPEN\r\n".to_vec();
        for message in [
            r#"c:{"type":"set-meta","name":"url","value":"/ask"}"#,
            r#"c:{"type":"subscribe","channel":"c","filters":["http-modify"]}"#,
        ] {
            events.extend(format!("TEXT {:X}\r\n{message}\r\n", message.len()).as_bytes());
        }
        let is_open = request.body.starts_with(b"OPEN");
        let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
        respond(stream, "200 OK", headers, if is_open { &events } else { b"" })
    })
}

#[test]
fn websockets_get_what_the_backend_makes_of_a_message_after_one_request() {
    let asked = Arc::default();
    let origin = events(&asked);
    let suite = Suite::start(&format!("* 127.0.0.1:{},over_http", origin.port));
    let mut clients = [websocket(&suite), websocket(&suite)];
    let subscribed = || suite.logs().matches("channel=c").count() == clients.len();
    until("they are subscribed", subscribed);
    let item = r#"{"channel":"c","formats":{"ws-message":{"content":"hello"}}}"#;
    publish::post(&suite, &format!(r#"{{"items":[{item}]}}"#)).unwrap();
    for client in &mut clients {
        let got = client.some(100).unwrap();
        let (expected, head) = (b"new hello", Header { opcode: Opcode::Text, fin: true, compressed: false, key: None });
        assert_eq!(got, [&head.encode(expected.len())[..], expected].concat());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
