// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frontends that are replaced, and whose clients notice nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use frontend::transplant::record::{Offer, Question};
use frontend::transplant::talk::Taking;
use nix::sys::signal::Signal;
use process::passing::{Channel, Door};
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::{Suite, free_ports, is_alive};
use pushpin_tests::{publish, until};
use wire::websocket::{Header, Opcode, mask};

use crate::tls;

fn start(routes: &str, settings: &str) -> Suite {
    let mut suite = Suite::prepare(routes, &format!("[runner]\n{settings}"));
    suite.launch();
    suite
}

/// Has the frontend replaced.
fn replace(suite: &Suite) {
    let output = suite.run_with(&["ctl", "restart", "frontend"]);
    assert!(output.status.success(), "{output:?}\n{}", suite.logs());
}

/// Has it replaced so that all of this many clients move.
fn replace_for_all(suite: &Suite, clients: usize) {
    let expected = format!(" {clients} clients have moved to the successor");
    let before = suite.logs().matches(&expected).count();
    let old = suite.pid("frontend");
    replace(suite);
    until("the old process has ended", || !is_alive(old));
    until("it is logged", || suite.logs().matches(&expected).count() > before);
}

fn send(suite: &Suite, channel: &str, text: &str) {
    let formats = format!(
        r#"{{"http-stream":{{"content":"{text}\n"}},"http-response":{{"body":"{text}"}},"ws-message":{{"content":"{text}"}}}}"#
    );
    let response = publish::post(suite, &format!(r#"{{"items":[{{"channel":"{channel}","formats":{formats}}}]}}"#));
    let response = response.unwrap();
    assert_eq!(response.head.status, 200, "{}", response.text());
}

/// A backend for WebSockets over HTTP, which subscribes them and sends messages back, and for event streams.
fn backend() -> Origin {
    Origin::start(|request: &Request, stream| {
        if request.target.starts_with("/events") {
            let headers = "Content-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: s\r\n";
            return respond(stream, "200 OK", headers, b"open\n");
        }
        let body = match request.body.starts_with(b"OPEN") {
            true => {
                let subscribe = r#"c:{"type":"subscribe","channel":"s"}"#;
                format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len()).into_bytes()
            }
            // As many answers as there are messages.
            false => b"TEXT 8\r\nm:hello!\r\n".repeat(request.body.split(|byte| *byte == b'?').count() - 1),
        };
        let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
        respond(stream, "200 OK", headers, &body)
    })
}

fn stream(suite: &Suite, path: &str, first: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    client.expect(first).unwrap();
    client
}

fn poll(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(&format!("/response?channel={channel}")).unwrap();
    until("the long-poll is held", || suite.logs().contains(&format!("channel={channel}")));
    client
}

fn websocket(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let upgrade = "Host: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(format!("GET {path} HTTP/1.1\r\n{upgrade}").as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    until("it is subscribed", || suite.logs().contains(&format!("subscribe ws://example.com{path} channel=")));
    client
}

fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let header = Header { opcode, fin, compressed: false, key: Some(key) };
    let mut frame = header.encode(payload.len()).to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key, 0);
    frame
}

/// The next message of a WebSocket, a short text.
fn message(client: &mut Client) -> String {
    let mut text = Vec::new();
    loop {
        let mut bytes = Vec::new();
        while bytes.len() < 2 || bytes.len() < 2 + usize::from(bytes[1]) {
            let most = if bytes.len() < 2 { 2 - bytes.len() } else { 2 + usize::from(bytes[1]) - bytes.len() };
            let some = client.some(most).unwrap_or_else(|error| panic!("{error} after {bytes:02x?}"));
            assert!(!some.is_empty(), "closed after {bytes:02x?}");
            bytes.extend(some);
        }
        assert!(matches!(bytes[0] & 0x7f, 0 | 1), "{bytes:02x?}");
        text.extend_from_slice(&bytes[2..]);
        if bytes[0] & 0x80 != 0 {
            return String::from_utf8(text).unwrap();
        }
    }
}

/// What was published comes in order, each message once; other messages may stand between. Ends with this text.
fn are_in_order(mut next: impl FnMut() -> String, last: usize, between: &str) -> usize {
    let (mut expected, mut others) = (1, 0);
    while expected <= last {
        match next().parse::<usize>() {
            Ok(number) => {
                assert_eq!(number, expected, "something is lost or repeated");
                expected += 1;
            }
            Err(_) => others += 1,
        }
    }
    assert!(others == 0 || !between.is_empty(), "{others} other messages");
    others
}

fn line(client: &mut Client, rest: &mut String) -> String {
    loop {
        if let Some(end) = rest.find('\n') {
            let line = rest[..end].to_owned();
            rest.drain(..=end);
            return line;
        }
        let chunk = client.chunk().unwrap();
        assert!(!chunk.is_empty(), "the stream has ended");
        rest.push_str(&String::from_utf8(chunk).unwrap());
    }
}

#[test]
fn nothing_is_lost_or_repeated_or_closed_while_frontends_are_replaced_and_messages_flow() {
    const ROUNDS: usize = 4;
    let origin = backend();
    let routes =
        format!("*,path_beg=/over 127.0.0.1:{0},over_http\n*,path_beg=/events 127.0.0.1:{0}\n* test", origin.port);
    let suite = start(&routes, "");
    let mut streams: Vec<Client> = (0..4).map(|_| stream(&suite, "/stream?channel=s", "[stream opened]\n")).collect();
    streams.extend((0..2).map(|_| stream(&suite, "/events", "open\n")));
    let mut sockets: Vec<Client> = (0..3).map(|i| websocket(&suite, &format!("/ws?channel=s&n={i}"))).collect();
    sockets.extend((0..3).map(|i| websocket(&suite, &format!("/over/{i}"))));
    let mut polls: Vec<Client> = (0..=ROUNDS).map(|i| poll(&suite, &format!("p{i}"))).collect();
    let mut idle = Client::connect(suite.port).unwrap();
    idle.get("/").unwrap();
    idle.response().unwrap();
    let clients = streams.len() + sockets.len() + polls.len() + 1;
    let (over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let number = published.load(Ordering::Relaxed) + 1;
                send(&suite, "s", &number.to_string());
                published.store(number, Ordering::Relaxed);
            }
        });
        for (round, poll) in polls.iter_mut().take(ROUNDS).enumerate() {
            let before = published.load(Ordering::Relaxed);
            replace_for_all(&suite, clients);
            until("messages flow", || published.load(Ordering::Relaxed) > before + 20);
            // One that was held before is answered after, and a message of a client goes through.
            send(&suite, &format!("p{round}"), "now");
            let response = poll.response().unwrap();
            assert_eq!((response.text().as_str(), response.head.header("Connection")), ("now", None));
            poll.get("/").unwrap();
            assert_eq!(poll.response().unwrap().head.status, 200, "and may ask again");
            sockets.iter_mut().for_each(|socket| socket.send(&frame(Opcode::Text, true, b"hello?")).unwrap());
            idle.get("/").unwrap();
            assert_eq!(idle.response().unwrap().head.header("Connection"), None);
        }
        over.store(true, Ordering::Relaxed);
    });
    let last = published.load(Ordering::Relaxed);
    for stream in &mut streams {
        let mut rest = String::new();
        are_in_order(|| line(stream, &mut rest), last, "");
    }
    for socket in &mut sockets {
        let mut echoes = are_in_order(|| message(socket), last, "hello");
        while echoes < ROUNDS {
            assert!(message(socket).starts_with("hello"));
            echoes += 1;
        }
        assert_eq!(echoes, ROUNDS);
    }
    send(&suite, &format!("p{ROUNDS}"), "at last");
    assert_eq!(polls[ROUNDS].response().unwrap().text(), "at last");
}

#[test]
fn all_clients_move_as_soon_as_their_new_handler_has_them() {
    let origin = backend();
    let routes = format!("*,path_beg=/over 127.0.0.1:{},over_http\n* test", origin.port);
    // Longer than a successor waits for its predecessor.
    let suite = start(&routes, "recover_wait=30\n");
    let mut held = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    let mut socket = websocket(&suite, "/over/0");
    let mut long_poll = poll(&suite, "p");
    let (mut rest, mut number) = (String::new(), 0);
    let mut goes_on = |suite: &Suite| {
        number += 1;
        let text = number.to_string();
        // There may be no handler at first.
        until("it is published", || {
            let items = format!(
                r#"{{"items":[{{"channel":"s","id":"{text}","formats":{{"http-stream":{{"content":"{text}\n"}},"ws-message":{{"content":"{text}"}}}}}}]}}"#
            );
            publish::post(suite, &items).is_ok_and(|response| response.head.status == 200)
        });
        assert_eq!(line(&mut held, &mut rest), text);
        assert_eq!(message(&mut socket), text);
    };
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        suite.send("handler", signal);
        goes_on(&suite);
        replace_for_all(&suite, 3);
        goes_on(&suite);
    }
    send(&suite, "p", "at last");
    assert_eq!(long_poll.response().unwrap().text(), "at last");
}

#[test]
fn what_is_half_sent_is_completed_after_the_move() {
    let suite = start("* test", "");
    let mut head = Client::connect(suite.port).unwrap();
    head.send(b"GET / HTTP/1.1\r\nHo").unwrap();
    let mut socket = websocket(&suite, "/ws?channel=s");
    let long = frame(Opcode::Continuation, true, b"and all of the rest");
    let (begun, rest) = long.split_at(long.len() / 2);
    socket.send(&[&frame(Opcode::Text, false, b"some, "), begun].concat()).unwrap();
    // What was sent before is known to have been read when the answer to this is there.
    get(suite.port, "/").unwrap();
    replace_for_all(&suite, 2);
    head.send(b"st: h\r\n\r\n").unwrap();
    assert_eq!(head.response().unwrap().head.status, 200);
    socket.send(rest).unwrap();
    assert_eq!(message(&mut socket), "some, and all of the rest");
}

#[test]
fn a_client_that_does_not_read_gets_all_of_it_after_the_move() {
    const PIECES: usize = 400;
    let body = |piece: usize| vec![b'a' + (piece % 26) as u8; 50_000];
    let origin = Origin::start(move |_, stream| {
        use std::io::Write as _;
        let length = PIECES * body(0).len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
        (0..PIECES).try_for_each(|piece| stream.write_all(&body(piece)))
    });
    let suite = start(&format!("* 127.0.0.1:{}", origin.port), "");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    let head = client.head().unwrap();
    replace_for_all(&suite, 1);
    replace_for_all(&suite, 1);
    assert_eq!(client.body(&head).unwrap(), (0..PIECES).flat_map(body).collect::<Vec<_>>());
}

#[test]
fn an_upload_stays_and_is_served_by_the_process_that_has_it() {
    let origin = Origin::start(|request: &Request, stream| {
        respond(stream, "200 OK", "", format!("{} bytes", request.body.len()).as_bytes())
    });
    let suite = start(&format!("* 127.0.0.1:{}", origin.port), "");
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nx").unwrap();
    get(suite.port, "/").unwrap();
    let old = suite.pid("frontend");
    replace(&suite);
    assert!(is_alive(old), "it has a client");
    // Both at once: sessions of the two processes are told apart.
    let mut other = Client::connect(suite.port).unwrap();
    other.get("/").unwrap();
    assert_eq!(other.response().unwrap().text(), "0 bytes");
    client.send(&vec![b'x'; 99_999]).unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.text().as_str(), response.head.header("Connection")), ("100000 bytes", Some("close")));
    client.close();
    until("the old process has ended", || !is_alive(old));
}

#[test]
fn clients_with_tls_stay_and_get_what_is_published_however_often_the_frontend_is_replaced() {
    let (origin, _) = tls::origin();
    let [metrics] = free_ports();
    let (suite, port, certificate) =
        tls::start_with(&origin, &format!("[handler]\nprometheus_port={metrics}\n[runner]"));
    use std::io::Write as _;
    let mut client = tls::connect(port, "localhost", &certificate).unwrap();
    client.write_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    tls::read_until(&mut client, b"hi\n");
    let mut idle = tls::connect(port, "localhost", &certificate).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    tls::read_until(&mut idle, b"0 bytes");
    let mut plain = stream(&suite, "/stream", "hi\n");
    let old = suite.pid("frontend");
    for round in 0..3 {
        replace(&suite);
        assert!(is_alive(old), "it has a client");
        let text = format!("message {round}");
        send(&suite, "c", &text);
        plain.expect(&format!("{text}\n")).unwrap();
        tls::read_until(&mut client, text.as_bytes());
    }
    let draining = |count: usize| {
        let sample = format!("pushpin_draining_sessions{{process=\"frontend\"}} {count}\n");
        until("the sessions that have stayed are told", || get(metrics, "/").unwrap().text().contains(&sample));
    };
    draining(1);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let response = tls::read_until(&mut idle, b"0 bytes");
    assert!(String::from_utf8_lossy(&response).contains("Connection: close"));
    drop((client, idle));
    until("the old process has ended", || !is_alive(old));
    draining(0);
    send(&suite, "c", "still there");
    plain.expect("still there\n").unwrap();
}

fn door(suite: &Suite) -> std::path::PathBuf {
    suite.path("run/pushpin-frontend-out-successor")
}

fn question(suite: &Suite) -> Question {
    let address = |name: &str| format!("ipc://{}", suite.path(&format!("run/pushpin-frontend-{name}")).display());
    Question { addresses: [address("out"), address("out-stream"), address("in")] }
}

#[test]
fn whoever_asks_and_does_not_begin_changes_nothing() {
    let suite = start("* test", "");
    let mut client = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    let mut go_on = |what: &str| {
        send(&suite, "s", what);
        client.expect(&format!("{what}\n")).unwrap();
        assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    };
    // Of a version that is not known.
    let stranger = Channel::connect(&door(&suite)).unwrap();
    stranger.send(b"\x63question", &[]).unwrap();
    until("it is not understood", || suite.logs().contains("it is of version 99"));
    drop(stranger);
    go_on("after a stranger");
    // One that ends before it has got everything.
    for messages in 1..6 {
        let mut taking = Taking::ask(&door(&suite), &question(&suite)).unwrap();
        for _ in 0..messages {
            taking.hear().unwrap();
        }
        drop(taking);
        go_on(&format!("after {messages} messages"));
    }
    // One that ends when all depends on its last word.
    let mut taking = Taking::ask(&door(&suite), &question(&suite)).unwrap();
    while taking.hear().unwrap().0 != Offer::End {}
    drop(taking);
    go_on("after the end");
    // One that has other addresses.
    let other = Question { addresses: ["a", "b", "c"].map(String::from) };
    assert!(Taking::ask(&door(&suite), &other).unwrap().hear().is_err());
    go_on("after others");
    replace_for_all(&suite, 1);
    go_on("after all");
}

#[test]
fn clients_of_a_predecessor_that_does_not_give_them_are_drained() {
    let suite = start("* test", "");
    let mut client = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    let old = suite.pid("frontend");
    // Whom the successor finds hangs up as soon as it has begun to speak.
    let false_door = Door::open(&door(&suite)).unwrap();
    thread::scope(|scope| {
        let restart = scope.spawn(|| replace(&suite));
        until("the successor has come", || {
            let Some(mut channel) = false_door.accept().unwrap() else { return false };
            channel.receive().unwrap();
            channel.send(b"\x01", &[]).unwrap();
            true
        });
        restart.join().unwrap();
    });
    assert!(is_alive(old), "it has a client");
    until("it is logged", || suite.logs().contains("stay there, until it is drained"));
    send(&suite, "s", "still there");
    client.expect("still there\n").unwrap();
    client.close();
    until("the old process has ended", || !is_alive(old));
    // The next one finds the right one.
    let mut client = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    replace_for_all(&suite, 1);
    send(&suite, "s", "here");
    client.expect("here\n").unwrap();
}

#[test]
fn a_frontend_that_was_moved_to_is_killed_as_any_other() {
    let suite = start("* test", "");
    let mut client = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    replace_for_all(&suite, 1);
    let old = suite.pid("frontend");
    suite.kill("frontend");
    assert!(client.chunk().is_err());
    until("there is another one", || suite.children().get("pushpin-fronten").is_some_and(|new| *new != old));
    until("requests are answered", || get(suite.port, "/").is_ok_and(|response| response.head.status == 200));
    let mut client = stream(&suite, "/stream?channel=s", "[stream opened]\n");
    replace_for_all(&suite, 1);
    send(&suite, "s", "here");
    client.expect("here\n").unwrap();
}
