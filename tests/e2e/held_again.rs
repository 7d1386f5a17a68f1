// SPDX-License-Identifier: AGPL-3.0-or-later
//! Each part of a hold comes back when the handler that held it is killed.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::{publish, until};

/// A backend whose responses have these header lines, by path.
fn holding(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Origin {
    Origin::start(move |request, stream| hold(stream, &answer(&request.target), "open\n"))
}

fn hold(stream: &mut TcpStream, headers: &str, body: &str) -> io::Result<()> {
    respond(stream, "200 OK", &format!("Content-Type: text/plain\r\n{headers}"), body.as_bytes())
}

/// A suite whose handler has a successor that goes on with its holds.
fn start(routes: &str, settings: &str) -> Suite {
    let mut suite = Suite::prepare(routes, &format!("[runner]\nrecover_wait=10\n{settings}"));
    suite.launch();
    suite
}

fn before(origin: &Origin) -> Suite {
    start(&format!("* 127.0.0.1:{}", origin.port), "")
}

/// How many holds successors have taken up so far.
fn held_again(suite: &Suite) -> usize {
    let logs = suite.logs();
    let lines = logs.lines().filter_map(|line| line.split_once(" requests that a predecessor held are held again"));
    lines.filter_map(|(line, _)| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Kills the handler, and waits until its successor has taken up so many holds.
fn replace_handler(suite: &Suite, holds: usize) {
    let (before, old) = (held_again(suite), suite.pid("handler"));
    suite.kill("handler");
    until("that handler has ended", || !is_alive(old));
    until("all is held again", || held_again(suite) >= before + holds);
    assert_eq!(held_again(suite), before + holds);
}

fn request(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    client
}

/// A stream that has begun.
fn stream(suite: &Suite, path: &str) -> Client {
    let mut client = request(suite, path);
    assert_eq!(client.head().unwrap().status, 200);
    client.expect("open\n").unwrap();
    client
}

/// A long-poll that is held: a handler that has been told to hold it says so.
fn poll(suite: &Suite, path: &str) -> Client {
    let client = request(suite, path);
    until("it is held", || suite.logs().contains(&format!("subscribe http://example.com{path} channel=")));
    client
}

/// Publishes a text, with further members of its item (each with a comma behind it).
fn send(suite: &Suite, channel: &str, more: &str, text: &str) {
    let formats = format!(r#"{{"http-stream":{{"content":"{text}"}},"http-response":{{"body":"{text}"}}}}"#);
    let item = format!(r#"{{"channel":"{channel}",{more}"formats":{formats}}}"#);
    let response = publish::post(suite, &format!(r#"{{"items":[{item}]}}"#)).unwrap();
    assert_eq!(response.head.status, 200, "{}", response.text());
}

/// A filter, what a message has that it drops, and what one has that it delivers.
const FILTERS: [(&str, &str, &str); 4] = [
    ("skip-self", r#""meta":{"sender":"alice"},"#, r#""meta":{"sender":"bob"},"#),
    ("skip-users", r#""meta":{"skip_users":"bob,alice"},"#, r#""meta":{"skip_users":"bob"},"#),
    ("require-sub", r#""meta":{"require_sub":"other"},"#, r#""meta":{"require_sub":"require-sub"},"#),
    // Without its variable a message is not sent.
    ("var-subst", r#""meta":{},"#, r#""meta":{"a":"b"},"#),
];

#[test]
fn filters_and_what_they_know_of_the_client() {
    let origin = holding(|path| {
        let (mode, filter) = path[1..].split_once('/').unwrap_or_default();
        format!(
            "Grip-Hold: {mode}\r\nGrip-Channel: {filter}; filter={filter}\r\nGrip-Set-Meta: user=alice, x=\"a, b\"\r\n"
        )
    });
    let suite = before(&origin);
    let mut streams = FILTERS.map(|(filter, ..)| stream(&suite, &format!("/stream/{filter}")));
    let mut polls = FILTERS.map(|(filter, ..)| poll(&suite, &format!("/response/{filter}")));
    replace_handler(&suite, 8);
    for (filter, dropped, delivered) in FILTERS {
        let (text, filled) = if filter == "var-subst" { ("%(y)s", "%(x)s") } else { ("dropped", "a, b") };
        send(&suite, filter, dropped, text);
        send(&suite, filter, delivered, filled);
    }
    for ((client, poll), (filter, ..)) in streams.iter_mut().zip(&mut polls).zip(FILTERS) {
        client.expect("a, b").unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(poll.response().unwrap().text(), "a, b", "{filter}");
    }
}

#[test]
fn meta_filters_and_channels_of_an_instruct_document() {
    let origin = Origin::start(|request: &Request, stream| {
        let mode = &request.target[1..];
        let channel = r#"{"name":"c","filters":["skip-self","var-subst"]}"#;
        let hold = format!(r#"{{"mode":"{mode}","channels":[{channel}],"meta":{{"user":"alice","x":"7"}}}}"#);
        let document = format!(r#"{{"hold":{hold},"response":{{"body":"open\n"}}}}"#);
        respond(stream, "200 OK", "Content-Type: application/grip-instruct\r\n", document.as_bytes())
    });
    let suite = before(&origin);
    let (mut stream, mut poll) = (stream(&suite, "/stream"), poll(&suite, "/response"));
    replace_handler(&suite, 2);
    send(&suite, "c", r#""meta":{"sender":"alice"},"#, "own");
    send(&suite, "c", r#""meta":{"sender":"bob"},"#, "%(x)s of bob");
    stream.expect("7 of bob").unwrap();
    assert_eq!(poll.response().unwrap().text(), "7 of bob");
}

#[test]
fn keep_alives_with_their_bytes_time_and_mode() {
    let origin = holding(|path| {
        let mode = &path[1..];
        let keep_alive = format!("{mode}\\n; format=cstring; mode={mode}; timeout=1");
        format!("Grip-Hold: stream\r\nGrip-Channel: {mode}\r\nGrip-Keep-Alive: {keep_alive}\r\n")
    });
    let suite = before(&origin);
    let streams = ["idle", "interval"].map(|mode| stream(&suite, &format!("/{mode}")));
    replace_handler(&suite, 2);
    let [mut idle, mut interval] = streams;
    // The default would be 55 s.
    for _ in 0..2 {
        assert_eq!(idle.chunk().unwrap(), b"idle\n");
    }
    // Messages do not put off the keep-alives of an interval. Those that have come so far are read before.
    let (mut kept, mut number) = (0, 0);
    until("keep-alives come in between", || {
        number += 1;
        let text = format!("m{number}");
        send(&suite, "interval", "", &text);
        loop {
            let chunk = String::from_utf8(interval.chunk().unwrap()).unwrap();
            let own = chunk.strip_suffix(&text).unwrap_or(&chunk);
            kept += own.matches("interval\n").count() * usize::from(number > 3);
            assert_eq!(own.replace("interval\n", ""), "", "{chunk}");
            if chunk.ends_with(&text) {
                return kept >= 2;
            }
        }
    });
}

#[test]
fn next_links_with_the_place_in_their_channel() {
    // Pages have what has come since, and are refused to those who do not say since when.
    let newest = Arc::new(AtomicU32::new(1));
    let number = newest.clone();
    let origin = Origin::start(move |request, stream| {
        let newest = number.load(Ordering::SeqCst);
        let last = request.header("Grip-Last").and_then(|value| value.strip_prefix("c; last-id="));
        let page: String = match (request.target.as_str(), last.and_then(|last| last.parse::<u32>().ok())) {
            ("/next", Some(last)) => (last + 1..=newest).map(|number| format!("{number};")).collect(),
            ("/next", None) => return respond(stream, "500 No Place", "", b""),
            _ => "open\n".into(),
        };
        let headers = format!(
            "Grip-Hold: stream\r\nGrip-Link: </next>; rel=next; timeout=60\r\nGrip-Channel: c; prev-id={newest}\r\n"
        );
        hold(stream, &headers, &page)
    });
    // Else the link is followed whenever a channel is subscribed to.
    let settings = "[handler]\nupdate_on_first_subscription=false";
    let suite = start(&format!("* 127.0.0.1:{}", origin.port), settings);
    let mut client = stream(&suite, "/s");
    let hint = || {
        let formats = r#"{"http-stream":{"action":"hint"}}"#;
        publish::post(&suite, &format!(r#"{{"items":[{{"channel":"c","formats":{formats}}}]}}"#)).unwrap();
    };
    send(&suite, "c", r#""id":"2","prev-id":"1","#, "2;");
    client.expect("2;").unwrap();
    replace_handler(&suite, 1);
    newest.store(4, Ordering::SeqCst);
    hint();
    client.expect("3;4;").unwrap();
    // It is held by the head of the page now.
    replace_handler(&suite, 1);
    newest.store(6, Ordering::SeqCst);
    hint();
    client.expect("5;6;").unwrap();
}

#[test]
fn gone_links() {
    let origin = Origin::start(|request, stream| match request.target.as_str() {
        "/gone" => respond(stream, "204 No Content", "", b""),
        path => {
            let mode = &path[1..];
            hold(
                stream,
                &format!("Grip-Hold: {mode}\r\nGrip-Channel: {mode}\r\nGrip-Link: </gone>; rel=gone\r\n"),
                "open\n",
            )
        }
    });
    let suite = before(&origin);
    let clients = [stream(&suite, "/stream"), poll(&suite, "/response")];
    assert_eq!([origin.request().target, origin.request().target], ["/stream", "/response"]);
    replace_handler(&suite, 2);
    for client in clients {
        client.close();
        let request = origin.request();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/gone"));
    }
}

#[test]
fn what_is_left_of_a_long_polls_time() {
    let origin = holding(|path| {
        let time = &path[1..];
        format!("Grip-Hold: response\r\nGrip-Channel: c{time}\r\nGrip-Timeout: {time}\r\n")
    });
    let suite = before(&origin);
    let (mut six, mut three) = (poll(&suite, "/6"), poll(&suite, "/3"));
    assert_eq!(three.response().unwrap().text(), "open\n");
    replace_handler(&suite, 1);
    // The first has three seconds left at most, and would be answered after this one if it had all of its time again.
    let (five, is_answered) = (poll(&suite, "/5"), |client: &Client| {
        client.stream().set_nonblocking(true).unwrap();
        client.stream().peek(&mut [0]).is_ok()
    });
    let response = six.response().unwrap();
    assert_eq!((response.head.status, response.text().as_str()), (200, "open\n"));
    assert!(!is_answered(&five), "the time began anew");
}

#[test]
fn channels_of_the_route_and_their_prefix() {
    let origin = holding(|path| format!("Grip-Hold: {}\r\nGrip-Channel: own\r\n", &path[1..]));
    let suite = start(&format!("*,prefix=p- 127.0.0.1:{},sub=all", origin.port), "");
    let (mut client, mut other) = (stream(&suite, "/stream"), poll(&suite, "/response"));
    replace_handler(&suite, 2);
    send(&suite, "own", "", "without prefix");
    send(&suite, "p-all", "", "with a prefix that routes' channels have not");
    send(&suite, "all", "", "for all;");
    send(&suite, "p-own", "", "own;");
    client.expect("for all;own;").unwrap();
    assert_eq!(other.response().unwrap().text(), "for all;");
}

#[test]
fn the_order_of_messages_and_which_have_come() {
    let origin = holding(|_| "Grip-Hold: stream\r\nGrip-Channel: c\r\n".into());
    let suite = before(&origin);
    let mut client = stream(&suite, "/s");
    let message = |id: u32| {
        let prev = id - 1;
        send(&suite, "c", &format!(r#""id":"{id}","prev-id":"{prev}","#), &format!("{id};"));
    };
    message(1);
    client.expect("1;").unwrap();
    replace_handler(&suite, 1);
    // The first again, as its publisher does that had no answer; then one before the one that it follows.
    [1, 3, 2].into_iter().for_each(message);
    client.expect("2;3;").unwrap();
    replace_handler(&suite, 1);
    [3, 2, 5, 4, 5].into_iter().for_each(message);
    client.expect("4;5;").unwrap();
}

#[test]
fn subscriptions_at_publishers() {
    let origin = holding(|path| format!("Grip-Hold: {}\r\nGrip-Channel: c\r\n", &path[1..]));
    let suite = before(&origin);
    let publisher = zmq::Context::new().socket(zmq::XPUB).unwrap();
    publisher.set_linger(0).unwrap();
    publisher.set_rcvtimeo(20_000).unwrap();
    // Says each time that a channel is subscribed to: its socket does not forget who has gone, and waits for that to come back.
    publisher.set_xpub_verbose(true).unwrap();
    publisher.connect(&format!("tcp://127.0.0.1:{}", suite.sub_port)).unwrap();
    let (mut client, mut other) = (stream(&suite, "/stream"), poll(&suite, "/response"));
    assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01c");
    replace_handler(&suite, 2);
    assert_eq!(publisher.recv_bytes(0).unwrap(), b"\x01c");
    let item = br#"J{"channel":"c","http-stream":{"content":"hi"},"http-response":{"body":"hi"}}"#;
    publisher.send_multipart([&b"c"[..], item], 0).unwrap();
    client.expect("hi").unwrap();
    assert_eq!(other.response().unwrap().text(), "hi");
}

#[test]
fn clients_of_two_frontends() {
    let origin =
        holding(|_| "Grip-Hold: stream\r\nGrip-Channel: c; filter=skip-self\r\nGrip-Set-Meta: user=a\r\n".into());
    let suite = start(&format!("* 127.0.0.1:{}", origin.port), "frontend_processes=2");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    until("both frontends have clients", || {
        let client = stream(&suite, "/s");
        servers.push(suite.server_of("frontend", client.stream()));
        clients.push(client);
        servers.iter().any(|server| *server != servers[0])
    });
    replace_handler(&suite, clients.len());
    send(&suite, "c", r#""meta":{"sender":"a"},"#, "own;");
    send(&suite, "c", "", "hi;");
    clients.iter_mut().for_each(|client| client.expect("hi;").unwrap());
}

const UPGRADE: &str = "Host: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A WebSocket that has been subscribed.
fn websocket(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.send(format!("GET {path} HTTP/1.1\r\n{UPGRADE}").as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    until("it is subscribed", || suite.logs().contains(&format!("subscribe ws://example.com{path} channel=")));
    client
}

/// The next frame of a WebSocket, a short text.
fn frame(client: &mut Client) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < 2 || bytes.len() < 2 + usize::from(bytes[1]) {
        let most = if bytes.len() < 2 { 2 - bytes.len() } else { 2 + usize::from(bytes[1]) - bytes.len() };
        let some = client.some(most).unwrap();
        assert!(!some.is_empty(), "closed after {bytes:02x?}");
        bytes.extend(some);
    }
    assert_eq!(bytes[0], 0x81, "{bytes:02x?}");
    String::from_utf8(bytes.split_off(2)).unwrap()
}

/// Kills the handler, and waits until its successor knows so many WebSockets.
fn replace_handler_of_websockets(suite: &Suite, count: usize) {
    let known = || {
        let logs = suite.logs();
        let lines =
            logs.lines().filter_map(|line| line.split_once(" WebSockets that a predecessor knew are known again"));
        lines.filter_map(|(line, _)| line.rsplit(' ').next()?.parse::<usize>().ok()).sum::<usize>()
    };
    let (before, old) = (known(), suite.pid("handler"));
    suite.kill("handler");
    until("that handler has ended", || !is_alive(old));
    until("all are known again", || known() >= before + count);
    assert_eq!(known(), before + count);
}

/// Publishes a text to WebSockets, with further members of its item.
fn send_message(suite: &Suite, channel: &str, more: &str, text: &str) {
    let formats = format!(r#"{{"ws-message":{{"content":"{text}"}}}}"#);
    let item = format!(r#"{{"channel":"{channel}",{more}"formats":{formats}}}"#);
    let response = publish::post(suite, &format!(r#"{{"items":[{item}]}}"#)).unwrap();
    assert_eq!(response.head.status, 200, "{}", response.text());
}

#[test]
fn websockets_with_the_messages_that_they_have_had() {
    let suite = start("* test", "");
    let mut clients: Vec<Client> =
        (0..3).map(|number| websocket(&suite, &format!("/ws?channel=c&n={number}"))).collect();
    send_message(&suite, "c", r#""id":"1","#, "1");
    clients.iter_mut().for_each(|client| assert_eq!(frame(client), "1"));
    for round in 2..4 {
        replace_handler_of_websockets(&suite, 3);
        // The one before again, as its publisher does that had no answer.
        send_message(&suite, "c", &format!(r#""id":"{}","#, round - 1), "repeated");
        send_message(&suite, "c", &format!(r#""id":"{round}","#), &round.to_string());
        clients.iter_mut().for_each(|client| assert_eq!(frame(client), round.to_string()));
    }
}

#[test]
fn what_backends_have_told_of_websockets() {
    let origin = Origin::start(|request, stream| {
        let events: &[&str] = match request.body.starts_with(b"OPEN") {
            true => &[
                r#"{"type":"subscribe","channel":"own","filters":["skip-self"]}"#,
                r#"{"type":"subscribe","channel":"left"}"#,
                r#"{"type":"unsubscribe","channel":"left"}"#,
                r#"{"type":"set-meta","name":"user","value":"alice"}"#,
                r#"{"type":"keep-alive","message-type":"text","content":"kept","timeout":1}"#,
            ],
            false => &[],
        };
        let text = |event: &&str| format!("TEXT {:x}\r\nc:{event}\r\n", event.len() + 2);
        let body = ["OPEN\r\n".to_string(), events.iter().map(text).collect()].concat();
        let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
        respond(stream, "200 OK", headers, body.as_bytes())
    });
    let suite = start(&format!("*,prefix=p- 127.0.0.1:{},over_http,sub=all", origin.port), "");
    let mut client = websocket(&suite, "/ws");
    until("it has left", || suite.logs().contains("channel=p-left"));
    replace_handler_of_websockets(&suite, 1);
    send_message(&suite, "p-left", "", "not for it");
    send_message(&suite, "p-own", r#""meta":{"sender":"alice"},"#, "from itself");
    send_message(&suite, "p-own", "", "own");
    send_message(&suite, "all", "", "all");
    let (mut texts, mut kept) = (Vec::new(), 0);
    while texts.len() < 2 || kept < 2 {
        match frame(&mut client).as_str() {
            "kept" => kept += 1,
            text => texts.push(text.to_string()),
        }
    }
    assert_eq!(texts, ["own", "all"]);
}

#[test]
fn holds_of_a_successor_that_is_killed_at_once() {
    let origin = holding(|path| format!("Grip-Hold: {}\r\nGrip-Channel: c\r\n", &path[1..]));
    let suite = before(&origin);
    let mut streams: Vec<_> = (0..50).map(|_| stream(&suite, "/stream")).collect();
    let mut other = poll(&suite, "/response");
    // The second may have nothing, some or all of it when it ends.
    for _ in 0..3 {
        let old = suite.pid("handler");
        suite.kill("handler");
        until("there is another handler", || suite.children().get("pushpin-handler").is_some_and(|new| *new != old));
    }
    replace_handler(&suite, 51);
    send(&suite, "c", "", "hi");
    streams.iter_mut().for_each(|client| client.expect("hi").unwrap());
    assert_eq!(other.response().unwrap().text(), "hi");
}
