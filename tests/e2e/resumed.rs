// SPDX-License-Identifier: AGPL-3.0-or-later
//! The proxy dies, and WebSockets over HTTP go on with the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::{publish, until};
use wire::websocket::{Header, Opcode, mask};

/// What the backend has been told, by connection: kinds and contents of events.
type Told = Arc<Mutex<HashMap<String, Vec<(String, String)>>>>;

/// A backend that subscribes each connection to the channel in its path, answers messages with what they say, and one that says
/// `hang` not before `released`.
struct Backend {
    origin: Origin,
    told: Told,
    released: Arc<Mutex<()>>,
}

fn events(mut body: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    while let Some((head, rest)) = body.split_once("\r\n") {
        let (kind, length) = head.split_once(' ').unwrap_or((head, ""));
        let length = usize::from_str_radix(length, 16).ok();
        let content = length.map_or("", |length| &rest[..length]);
        body = length.map_or(rest, |length| &rest[length + 2..]);
        events.push((kind.to_string(), content.to_string()));
    }
    events
}

impl Backend {
    fn start() -> Self {
        let (told, released) = (Told::default(), Arc::new(Mutex::new(())));
        let (notes, gate) = (told.clone(), released.clone());
        let origin = Origin::start(move |request, stream| {
            let id = request.header("Connection-Id").unwrap_or_default().to_string();
            let events = events(&String::from_utf8_lossy(&request.body).replace("\u{fffd}", "??"));
            notes.lock().unwrap().entry(id).or_default().extend(events.iter().cloned());
            let (mut body, mut headers) = (String::new(), String::new());
            for (kind, content) in &events {
                match kind.as_str() {
                    "OPEN" => {
                        let channel = &request.target[1..];
                        let subscribe = format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#);
                        body += &format!("OPEN\r\nTEXT {:x}\r\n{subscribe}\r\n", subscribe.len());
                        headers += "Sec-WebSocket-Extensions: grip\r\nSet-Meta-User: alice\r\n";
                    }
                    "TEXT" => {
                        if content.starts_with("hang") {
                            drop(gate.lock().unwrap());
                        }
                        let uncertain =
                            request.header("Content-Bytes-Uncertain").map_or(String::new(), |n| format!("?{n}"));
                        let meta = request.header("Meta-User").unwrap_or("nobody");
                        let answer = format!("m:{content}{uncertain} of {meta}");
                        body += &format!("TEXT {:x}\r\n{answer}\r\n", answer.len());
                    }
                    "CLOSE" => body += "CLOSE\r\n",
                    _ => {}
                }
            }
            respond(
                stream,
                "200 OK",
                &format!("Content-Type: application/websocket-events\r\n{headers}"),
                body.as_bytes(),
            )
        });
        Backend { origin, told, released }
    }

    fn connections(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    /// How often a connection has been told something, by what it has said before.
    fn count(&self, text: &str, kind: &str) -> usize {
        let told = self.told.lock().unwrap();
        let of = told.values().find(|events| events.iter().any(|(_, content)| content == text));
        of.map_or(0, |events| events.iter().filter(|(other, _)| other == kind).count())
    }
}

fn start(backend: &Backend, settings: &str) -> Suite {
    let routes = format!("* 127.0.0.1:{},over_http", backend.origin.port);
    let mut suite = Suite::prepare(&routes, &format!("[runner]\nrecover_wait=10\n{settings}"));
    suite.launch();
    suite
}

fn open(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let request = format!(
        "GET /{channel} HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    client.send(request.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    until("it is subscribed", || suite.logs().contains(&format!("subscribe ws://example.com/{channel} channel=")));
    client
}

fn send(client: &mut Client, opcode: Opcode, payload: &[u8]) {
    let key = [1, 2, 3, 4];
    let mut frame = Header { opcode, fin: true, compressed: false, key: Some(key) }.encode(payload.len()).to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key, 0);
    client.send(&frame).unwrap();
}

fn say(client: &mut Client, text: &str) {
    send(client, Opcode::Text, text.as_bytes());
}

/// The next frame, a short text.
fn hear(client: &mut Client) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < 2 || bytes.len() < 2 + usize::from(bytes[1]) {
        let most = if bytes.len() < 2 { 2 - bytes.len() } else { 2 + usize::from(bytes[1]) - bytes.len() };
        let some = client.some(most).unwrap();
        assert!(!some.is_empty(), "closed after {bytes:02x?}");
        bytes.extend(some);
    }
    assert_eq!(bytes[0], 0x81, "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes.split_off(2)).unwrap()
}

fn send_to(suite: &Suite, channel: &str, text: &str) {
    let formats = format!(r#"{{"ws-message":{{"content":"{text}"}}}}"#);
    let response =
        publish::post(suite, &format!(r#"{{"items":[{{"channel":"{channel}","formats":{formats}}}]}}"#)).unwrap();
    assert_eq!(response.head.status, 200, "{}", response.text());
}

/// Ends the proxy; its successor may not be there yet.
fn end_proxy(suite: &Suite, signal: Signal) {
    end(suite, "proxy", signal);
}

fn end(suite: &Suite, part: &str, signal: Signal) {
    let old = suite.pid(part);
    suite.send(part, signal);
    until("it has ended", || !is_alive(old));
}

/// They do not when this part ends with this signal, with such settings of the runner.
fn clients_notice_nothing(part: &str, signal: Signal, settings: &str) {
    const CLIENTS: usize = 20;
    let backend = Backend::start();
    let suite = start(&backend, settings);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| open(&suite, &format!("c{number}"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        say(client, &format!("i am {number}"));
        assert_eq!(hear(client), format!("i am {number} of alice"));
    }
    for round in 0..3 {
        // Some in front of its end, some while there is none, and some afterwards.
        send_to(&suite, "c0", &format!("before {round}"));
        end(&suite, part, signal);
        for (number, client) in clients.iter_mut().enumerate() {
            send_to(&suite, &format!("c{number}"), &format!("{round} for {number}"));
            say(client, &format!("{round} from {number}"));
        }
        until("there is another", || !suite.pids(part).is_empty());
        for (number, client) in clients.iter_mut().enumerate() {
            // What was sent to the one that was about to end is uncertain.
            let certain = |text: String| text.replace(&format!("?{}", format!("{round} from {number}").len()), "");
            let published = format!("{round} for {number}");
            let expected: Vec<String> = match number {
                0 => vec![format!("before {round}"), published],
                _ => vec![published],
            };
            let heard: Vec<String> = (0..=expected.len()).map(|_| certain(hear(client))).collect();
            // What is published and what the backend says have no order between them.
            let (answers, heard): (Vec<_>, Vec<_>) = heard.into_iter().partition(|text| text.ends_with(" of alice"));
            assert_eq!((heard, answers), (expected, vec![format!("{round} from {number} of alice")]));
        }
    }
    assert_eq!(backend.connections(), CLIENTS, "a connection has got another id");
    // They end while it is not there, one half by a close, the other without.
    end(&suite, part, signal);
    let mut closed = clients.split_off(CLIENTS / 2);
    closed.iter_mut().for_each(|client| send(client, Opcode::Close, &[0x03, 0xe8]));
    drop(clients);
    for client in &mut closed {
        assert_eq!(client.some(1).unwrap(), [0x88]);
    }
    for number in 0..CLIENTS {
        let (name, kind) = (format!("i am {number}"), if number < CLIENTS / 2 { "DISCONNECT" } else { "CLOSE" });
        until("the backend hears of its end", || backend.count(&name, kind) > 0);
        assert_eq!(
            (backend.count(&name, "DISCONNECT") + backend.count(&name, "CLOSE"), backend.count(&name, "OPEN")),
            (1, 1)
        );
    }
}

#[test]
fn websockets_over_http_survive_a_proxy_that_is_killed_time_and_again() {
    clients_notice_nothing("proxy", Signal::SIGKILL, "");
}

#[test]
fn websockets_over_http_survive_a_proxy_that_is_restarted_time_and_again() {
    clients_notice_nothing("proxy", Signal::SIGTERM, "frontend_processes=2\n");
}

#[test]
fn websockets_over_http_survive_an_outbound_process_that_is_killed_time_and_again() {
    clients_notice_nothing("outbound", Signal::SIGKILL, "");
}

/// A client of whose messages the first has come to the backend, which answers it only when the guard has gone.
fn wait_for_an_answer<'a>(backend: &'a Backend, suite: &Suite) -> (Client, MutexGuard<'a, ()>) {
    let mut client = open(suite, "c");
    let hangs = backend.released.lock().unwrap();
    say(&mut client, "hang");
    until("the backend is asked", || backend.count("hang", "TEXT") == 1);
    say(&mut client, "next");
    (client, hangs)
}

#[test]
fn events_whose_answer_is_lost_with_the_outbound_process_are_sent_again_and_marked() {
    let backend = Backend::start();
    let suite = start(&backend, "");
    let (mut client, hangs) = wait_for_an_answer(&backend, &suite);
    end(&suite, "outbound", Signal::SIGKILL);
    until("it is asked again", || backend.count("hang", "TEXT") == 2);
    drop(hangs);
    assert_eq!([hear(&mut client), hear(&mut client)], ["hang?4 of alice", "next of alice"]);
}

#[test]
fn events_whose_answer_is_lost_are_sent_again_and_marked() {
    let backend = Backend::start();
    let suite = start(&backend, "");
    let (mut client, hangs) = wait_for_an_answer(&backend, &suite);
    end_proxy(&suite, Signal::SIGKILL);
    until("it is asked again", || backend.count("hang", "TEXT") >= 2);
    drop(hangs);
    let heard = [hear(&mut client), hear(&mut client)];
    // The second may have come in time for the same request, and it may not have been sent to the first proxy.
    let both = ["hang?8 of alice", "next?8 of alice"];
    let apart = [["hang?4 of alice", "next?4 of alice"], ["hang?4 of alice", "next of alice"]];
    assert!(heard == both || apart.iter().any(|apart| heard == *apart), "{heard:?}");
    // What comes later is told once.
    say(&mut client, "later");
    assert_eq!(hear(&mut client), "later of alice");
    end_proxy(&suite, Signal::SIGKILL);
    say(&mut client, "end");
    // It may have been sent to the one that was about to end.
    let heard = hear(&mut client);
    assert!(["end of alice", "end?3 of alice"].contains(&&*heard), "{heard}");
    assert_eq!(backend.count("hang", "TEXT"), 5);
}

#[test]
fn websockets_over_http_survive_proxy_and_handler_that_die_together() {
    let backend = Backend::start();
    let suite = start(&backend, "");
    let mut clients: Vec<Client> = (0..10).map(|number| open(&suite, &format!("c{number}"))).collect();
    for round in 1..3 {
        let [proxy, handler] = ["proxy", "handler"].map(|name| suite.pid(name));
        suite.kill("proxy");
        suite.kill("handler");
        until("both have ended", || !is_alive(proxy) && !is_alive(handler));
        // A handler that has published something in the meantime could not know what they have missed.
        until("the next handler knows all", || {
            suite.logs().matches("10 WebSockets that a predecessor knew are known again").count() == round
        });
        for (number, client) in clients.iter_mut().enumerate() {
            let item = format!(r#"{{"channel":"c{number}","formats":{{"ws-message":{{"content":"hi"}}}}}}"#);
            until("it is published", || {
                let response = publish::post(&suite, &format!(r#"{{"items":[{item}]}}"#));
                response.is_ok_and(|response| response.head.status == 200)
            });
            assert_eq!(hear(client), "hi");
            say(client, "hello");
            assert_eq!(hear(client), "hello of alice");
        }
    }
    assert_eq!(backend.connections(), 10);
}

#[test]
fn what_is_published_while_a_proxy_hangs_and_dies_is_not_lost() {
    let backend = Backend::start();
    let suite = start(&backend, "");
    let mut client = open(&suite, "c");
    let stopped = Stopped::new(suite.pid("proxy"));
    for number in 0..50 {
        send_to(&suite, "c", &format!("{number}"));
    }
    let old = suite.pid("proxy");
    suite.kill("proxy");
    drop(stopped);
    until("that proxy has ended", || !is_alive(old));
    for number in 50..100 {
        send_to(&suite, "c", &format!("{number}"));
    }
    (0..100).for_each(|number| assert_eq!(hear(&mut client), number.to_string()));
}

#[test]
fn without_recovery_they_are_closed_with_1012_as_before() {
    let backend = Backend::start();
    let routes = format!("* 127.0.0.1:{},over_http", backend.origin.port);
    let mut suite = Suite::prepare(&routes, "");
    suite.launch();
    let mut client = open(&suite, "c");
    suite.kill("proxy");
    assert!(client.rest().unwrap().starts_with(b"\x88\x11\x03\xf4service restart"));
}

#[test]
fn a_handler_that_is_asked_to_hold_something_as_it_begins_hears_the_next_proxy() {
    let backend = Backend::start();
    let routes = format!("*,path_beg=/test test\n* 127.0.0.1:{},over_http", backend.origin.port);
    let mut suite = Suite::prepare(&routes, "[runner]\nrecover_wait=10\n");
    suite.launch();
    let mut client = open(&suite, "c");
    // Its successor finds a question of the proxy.
    let stopped = Stopped::new(suite.pid("handler"));
    let mut held = Client::connect(suite.port).unwrap();
    held.get("/test/stream?channel=d").unwrap();
    // The proxy has that when it has answered what came behind it.
    assert_eq!(get(suite.port, "/later").unwrap().head.status, 200);
    // It answers none as long as it waits for the frontend.
    let frontend = Stopped::new(suite.pid("frontend"));
    suite.kill("handler");
    drop(stopped);
    until("there is a successor", || suite.logs().matches("http control server").count() == 2);
    let old = suite.pid("proxy");
    suite.kill("proxy");
    until("the proxy has ended", || !is_alive(old));
    drop(frontend);
    send_to(&suite, "c", "hello");
    assert_eq!(hear(&mut client), "hello");
}
