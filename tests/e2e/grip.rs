// SPDX-License-Identifier: AGPL-3.0-or-later
//! Held connections, and what is published to them.

use nix::sys::signal::Signal;
use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, run};
use pushpin_tests::until;

/// A backend that holds `/stream/a,b` on the channels a and b, and `/poll/a` likewise, for a second with `?short`.
fn holding_origin() -> Origin {
    Origin::start(|request, stream| {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (hold, channels) = match path.trim_start_matches('/').split_once('/') {
            Some(("stream", channels)) => ("stream", channels),
            Some(("poll", channels)) => ("response", channels),
            _ => return respond(stream, "404 Not Found", "", b""),
        };
        let timeout = if query == "short" { "Grip-Timeout: 1\r\n" } else { "" };
        let headers = format!(
            "Content-Type: text/plain\r\nGrip-Hold: {hold}\r\nGrip-Channel: {}\r\n{timeout}",
            channels.replace(',', ", ")
        );
        respond(stream, "200 OK", &headers, if hold == "stream" { b"hi\n" } else { b"nothing\n" })
    })
}

fn open_stream(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    let head = client.head().unwrap();
    assert_eq!(head.status, 200);
    assert!(!head.headers.iter().any(|(name, _)| name.to_lowercase().starts_with("grip-")), "{head:?}");
    client.expect("hi\n").unwrap();
    client
}

/// A long-poll, once the handler says that it is subscribed.
fn open_poll(suite: &Suite, path: &str, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    until("the long-poll is held", || suite.logs().contains(&format!("channel={channel}\n")));
    client
}

#[test]
fn a_stream_receives_what_is_published_in_every_way() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = open_stream(&suite, "/stream/c1");
    publish::text(&suite, "c1", "one").unwrap();
    client.expect("one").unwrap();
    publish::push(&suite, b"T50:7:channel,2:c1,11:http-stream,16:7:content,3:two,}}");
    client.expect("two").unwrap();
    publish::push(&suite, br#"J{"channel":"c1","formats":{"http-stream":{"content":"three"}}}"#);
    client.expect("three").unwrap();
    for spec in [format!("http://localhost:{}", suite.publish_port), format!("tcp://127.0.0.1:{}", suite.push_port)] {
        let output = run("pushpin-publish", &["--spec", &spec, "c1", "four"]);
        assert!(output.status.success(), "{output:?}");
        client.expect("four\n").unwrap();
    }
    until("publishing is in the log", || suite.logs().contains("publish channel=c1 receivers=1"));
}

#[test]
fn streams_ask_proxies_in_front_not_to_buffer_if_that_is_set() {
    const HOLD: &str = "Grip-Hold: stream\r\nGrip-Channel: c\r\n";
    let origin = Origin::start(|request, stream| {
        let instruct = "Content-Type: application/grip-instruct\r\n";
        let json = br#"{"hold":{"mode":"stream","channels":[{"name":"c"}]},"response":{"body":"hi"}}"#;
        match &*request.target {
            "/small" => respond(stream, "200 OK", HOLD, b"hi"),
            // The proxy sends it before the handler has the stream.
            "/large" => respond(stream, "200 OK", HOLD, &[b'x'; 200_000]),
            "/json" => respond(stream, "200 OK", instruct, json),
            "/own" => respond(stream, "200 OK", &format!("{HOLD}x-accel-buffering: yes\r\n"), b"hi"),
            _ => respond(stream, "200 OK", "", b"not held"),
        }
    });
    let told = |suite: &Suite, path: &str| {
        let mut client = Client::connect(suite.port).unwrap();
        client.get(path).unwrap();
        let headers = client.head().unwrap().headers;
        let of =
            |wanted| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.clone());
        (of("Incremental").unwrap_or_default(), of("X-Accel-Buffering").unwrap_or_default())
    };
    let pair = |first: &str, second: &str| (first.to_string(), second.to_string());
    let route = format!("* localhost:{}", origin.port);
    let mut suite = Suite::prepare(&route, "[global]\nunbuffer_streams=true\n");
    suite.launch();
    for path in ["/small", "/large", "/json"] {
        assert_eq!(told(&suite, path), pair("?1", "no"), "{path}");
    }
    assert_eq!(told(&suite, "/own"), pair("?1", "yes"));
    assert_eq!(told(&suite, "/other"), pair("", ""));

    let suite = Suite::start(&route);
    for path in ["/small", "/large", "/json"] {
        assert_eq!(told(&suite, path), pair("", ""), "{path}");
    }
}

#[test]
fn a_stream_on_several_channels_receives_from_each_and_from_no_other() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = open_stream(&suite, "/stream/a,b");
    publish::text(&suite, "c", "no").unwrap();
    publish::text(&suite, "b", "1").unwrap();
    publish::text(&suite, "a", "2").unwrap();
    client.expect("12").unwrap();
}

#[test]
fn a_close_action_ends_the_stream_in_order() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = open_stream(&suite, "/stream/c");
    publish::post(&suite, r#"{"items":[{"channel":"c","formats":{"http-stream":{"action":"close"}}}]}"#).unwrap();
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn a_long_poll_is_answered_by_a_publish() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = open_poll(&suite, "/poll/p1", "p1");
    publish::text(&suite, "p1", "news").unwrap();
    assert_eq!(client.response().unwrap().text(), "news");
}

#[test]
fn a_long_poll_is_answered_by_the_backends_response_when_its_time_is_up() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/poll/p2?short").unwrap();
    assert_eq!(client.response().unwrap().text(), "nothing\n");
}

#[test]
fn many_streams_of_one_channel_all_receive_in_order() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut clients: Vec<Client> = (0..200).map(|_| open_stream(&suite, "/stream/all")).collect();
    for number in 0..20 {
        publish::text(&suite, "all", &format!("{number};")).unwrap();
    }
    let expected: String = (0..20).map(|number| format!("{number};")).collect();
    for client in &mut clients {
        client.expect(&expected).unwrap();
    }
}

#[test]
fn the_built_in_backend_holds_without_any_other() {
    let suite = Suite::start("* test");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.expect("[stream opened]\n").unwrap();
    publish::text(&suite, "test", "hello").unwrap();
    client.expect("hello").unwrap();
}

#[test]
fn malformed_publishes_get_their_errors_and_nobody_else_notices() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    let mut client = open_stream(&suite, "/stream/c");
    let bodies = ["x", "[]", "{}", r#"{"items":3}"#, r#"{"items":[{"channel":"c"}]}"#];
    for body in bodies {
        assert_eq!(publish::post(&suite, body).unwrap().head.status, 400, "{body}");
    }
    for frame in [&b""[..], b"T", b"J{", b"T99999:x", b"\xff\xfe", b"T2:{}}"] {
        publish::push(&suite, frame);
    }
    publish::text(&suite, "c", "still here").unwrap();
    client.expect("still here").unwrap();
    until("bad messages are in the log", || suite.logs().contains("IN pull: received message with invalid format"));
}

#[test]
fn a_hold_that_a_dying_handler_was_asked_for_is_its_successors() {
    let origin = holding_origin();
    let suite = Suite::before(origin.port);
    // The first may be too early for the handler to be inspected. After the second the proxy knows that it need not ask
    // before a request, so that what it asks the stopped handler is to hold one.
    for early in ["/stream/early", "/stream/second"] {
        open_stream(&suite, early);
        origin.request();
    }
    // What is asked now is not read.
    suite.send("handler", Signal::SIGSTOP);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/stream/late").unwrap();
    origin.request();
    suite.kill("handler");
    assert_eq!(client.head().unwrap().status, 200, "{}", suite.logs());
    client.expect("hi\n").unwrap();
    publish::text(&suite, "late", "from the next one\n").unwrap();
    client.expect("from the next one\n").unwrap();
}
