// SPDX-License-Identifier: AGPL-3.0-or-later
//! The command socket: commands as nobody should send them (`commands.txt`), and those that the proxy has a part in.

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;
use pushpin_tests::until;

/// How long an answer is waited for, in ms.
const PATIENCE: i32 = 20_000;
const CANARY: &[u8] = b"39:2:id,6:canary,6:method,12:get-zmq-uris,}";
/// Has the proxy asked.
const CHECK: &str = "{id 1 method conncheck args {ids [nobody]}}";

/// A tnetstring around its content.
fn tnet(content: &[u8], kind: char) -> Vec<u8> {
    [format!("{}:", content.len()).as_bytes(), content, kind.to_string().as_bytes()].concat()
}

/// The words of the table's notation.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let nested = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')).map(|(inside, _)| inside);
        let is_nested = |inside: &&str| !inside.is_empty() && inside.bytes().all(|byte| byte.is_ascii_digit());
        let length = match first {
            ' ' => {
                rest = &rest[1..];
                continue;
            }
            '[' if nested.is_some_and(|inside| is_nested(&inside)) => nested.unwrap().len() + 2,
            '{' | '}' | '[' | ']' => 1,
            '"' => 2 + rest[1..].find('"').unwrap(),
            _ => rest.find([' ', '{', '}', '[', ']']).unwrap_or(rest.len()),
        };
        words.push(&rest[..length]);
        rest = &rest[length..];
    }
    words
}

fn value<'a>(words: &mut impl Iterator<Item = &'a str>, word: &str) -> Vec<u8> {
    let first = word.chars().next().unwrap();
    let behind = &word[1..];
    match first {
        '{' | '[' if behind.is_empty() => {
            let mut inside = Vec::new();
            loop {
                match words.next().unwrap() {
                    "}" => return tnet(&inside, '}'),
                    "]" => return tnet(&inside, ']'),
                    word => inside.extend(value(words, word)),
                }
            }
        }
        '[' => (0..behind.trim_end_matches(']').parse().unwrap()).fold(Vec::new(), |nested, _| tnet(&nested, ']')),
        '~' => tnet(b"", '~'),
        '#' | '^' | '!' => tnet(behind.as_bytes(), first),
        '*' => {
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap();
            tnet(behind[digits..].repeat(behind[..digits].parse().unwrap()).as_bytes(), ',')
        }
        '"' => tnet(behind.trim_end_matches('"').as_bytes(), ','),
        _ => tnet(word.as_bytes(), ','),
    }
}

fn message(text: &str) -> Vec<u8> {
    if let Some(raw) = text.strip_prefix('=') {
        return raw.into();
    }
    let mut words = words(text).into_iter();
    let first = words.next().unwrap();
    value(&mut words, first)
}

struct Asker(zmq::Socket);

impl Asker {
    fn new(suite: &Suite) -> Self {
        let socket = zmq::Context::new().socket(zmq::DEALER).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(PATIENCE).unwrap();
        socket.connect(&format!("tcp://127.0.0.1:{}", suite.command_port)).unwrap();
        let asker = Asker(socket);
        until("the handler has found the proxy", || asker.ask(CHECK).contains("7:success,4:true!"));
        asker
    }

    fn send(&self, message: &[u8]) {
        self.0.send_multipart([b"", message], 0).unwrap();
    }

    fn receive(&self) -> String {
        let parts = self.0.recv_multipart(0).expect("an answer in time");
        String::from_utf8(parts[1].clone()).unwrap()
    }

    fn ask(&self, text: &str) -> String {
        self.send(&message(text));
        self.receive()
    }

    /// What is answered to a message, as the table names it.
    fn outcome(&self, message: &[u8], expected: &str) -> String {
        // Answers to commands that need nobody else come in order.
        self.send(message);
        self.send(CANARY);
        let (mut answer, mut canary) = (None, false);
        while !canary || (expected != "none" && answer.is_none()) {
            let came = self.receive();
            if came.contains("2:id,6:canary,") { canary = true } else { answer = Some(came) }
        }
        let Some(answer) = answer else { return "none".into() };
        if answer.contains("7:success,4:true!") {
            return "ok".into();
        }
        let (_, condition) = answer.split_once("9:condition,").unwrap();
        let (length, rest) = condition.split_once(':').unwrap();
        rest[..length.parse().unwrap()].into()
    }
}

#[test]
fn whatever_is_sent_as_a_command_is_answered_as_pushpin_does_or_not_at_all() {
    let suite = Suite::start("* test");
    let asker = Asker::new(&suite);
    let (mut complaints, mut cases) = (Vec::new(), 0);
    for (number, line) in include_str!("commands.txt").lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (expected, text) = line.split_once('\t').unwrap();
        let expected = expected.split('/').next().unwrap();
        let came = asker.outcome(&message(text), expected);
        cases += 1;
        if came != expected {
            complaints.push(format!("line {}: {came} instead of {expected}", number + 1));
        }
    }
    assert!(complaints.is_empty() && cases > 80, "{} of {cases}:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn a_connection_that_only_the_proxy_has_is_known_and_its_backend_is_asked_by_command() {
    let origin = Origin::start(|request, stream| {
        let headers = "Content-Type: application/websocket-events\r\nSec-WebSocket-Extensions: grip\r\n";
        let body: &[u8] = if request.body.starts_with(b"OPEN") { b"OPEN\r\n" } else { b"" };
        respond(stream, "200 OK", headers, body)
    });
    let suite = Suite::start(&format!("* 127.0.0.1:{},over_http", origin.port));
    let mut client = Client::connect(suite.port).unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.send(request.as_bytes()).unwrap();
    assert_eq!(client.head().unwrap().status, 101);
    let cid = origin.request().header("Connection-Id").unwrap().to_string();
    let asker = Asker::new(&suite);
    let known = asker.ask(&format!("{{id 1 method conncheck args {{ids [nobody {cid} {cid}]}}}}"));
    assert!(known.contains(&format!("5:value,40:36:{cid},]")), "{known}");
    let done = asker.ask(&format!("{{id 1 method refresh args {{cid {cid}}}}}"));
    assert!(done.contains("7:success,4:true!"), "{done}");
    assert_eq!(origin.request().header("Connection-Id"), Some(&*cid));
}

#[test]
fn without_a_proxy_a_command_that_needs_it_fails() {
    let mut suite = Suite::prepare("* test", "[runner]\nheartbeat_timeout=0");
    suite.launch();
    let asker = Asker::new(&suite);
    suite.send("proxy", nix::sys::signal::Signal::SIGSTOP);
    asker.send(&message(CHECK));
    asker.send(&message("{id 2 method refresh args {cid nobody}}"));
    let first = asker.receive();
    assert!(first.contains("proxy-request-failed"), "{first}");
    let second = asker.receive();
    // After the same time as an answer, its connection is given up.
    assert!(["7:timeout,", "service-unavailable"].iter().any(|why| second.contains(why)), "{second}");
    suite.send("proxy", nix::sys::signal::Signal::SIGCONT);
    until("the proxy answers again", || asker.ask(CHECK).contains("7:success,4:true!"));
}
