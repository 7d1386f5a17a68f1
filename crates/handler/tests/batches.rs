// SPDX-License-Identifier: AGPL-3.0-or-later
//! Batches in NDJSON on the HTTP control port, with a worker that does what each test wants.
#![allow(missing_docs)]

mod port;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use handler::deliver::fate::Fate;
use handler::publish::http::Limits;
use handler::publish::http::authorization::Gate;
use handler::publish::submission::{Receipt, Work};
use handler::subscribe::counts::Counts;
use port::{LONG, Port, limits};
use serde_json::{Value, json};

const HEAD: &str = "POST /publish/ HTTP/1.1\r\nContent-Type: application/x-ndjson; charset=utf-8\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";

fn port(change: impl FnOnce(&mut Limits)) -> Port {
    port_behind(Gate::default(), change)
}

fn port_behind(gate: Gate, change: impl FnOnce(&mut Limits)) -> Port {
    let mut limits = Limits { body: 100_000, ..limits() };
    change(&mut limits);
    Port::behind(gate, limits)
}

/// Begins a batch.
fn begin(port: &Port, head: &str) -> Batch {
    let stream = port.send(head);
    Batch { answers: BufReader::new(stream.try_clone().unwrap()), stream }
}

/// The channels of the items that are to be published next.
fn next(port: &Port) -> (Vec<String>, Receipt) {
    let (work, receipt) = port.next().begin().unwrap();
    let Work::Publish(items) = work else { panic!("{work:?}") };
    (items.into_iter().map(|item| item.channel).collect(), receipt)
}

/// The client's side.
struct Batch {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Batch {
    fn send(&mut self, text: &str) {
        self.stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
    }

    fn end(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn head(&mut self) -> String {
        std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect::<Vec<_>>().join("\n")
    }

    /// The lines of the next piece of the answer; none at its end.
    fn told(&mut self) -> Vec<Value> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut text = vec![0; length + 2];
        self.answers.read_exact(&mut text).unwrap();
        let lines = text[..length].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn is_closed(&mut self) -> bool {
        self.answers.read(&mut [0]).unwrap() == 0
    }
}

fn item(channel: &str) -> String {
    format!("{{\"channel\":\"{channel}\",\"http-stream\":{{\"content\":\"x\"}}}}\n")
}

fn published(line: u64) -> Value {
    json!({"line": line, "status": 200, "message": "Published"})
}

#[test]
fn lines_are_answered_as_they_are_published_and_before_the_end_of_the_body() {
    let port = port(|_| {});
    let mut batch = begin(&port, HEAD);
    batch.send(&format!("\r\n{}", item("a")));
    let (channels, receipt) = next(&port);
    assert_eq!(channels, ["a"]);
    receipt.complete();
    let head = batch.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Type: application/x-ndjson"), "{head}");
    assert_eq!(batch.told(), [published(2)]);
    let (b, c) = (item("b"), item("c"));
    batch.send(&b[..10]);
    batch.send(&format!("{}{}", &b[10..], c.trim_end()));
    let (channels, receipt) = next(&port);
    assert_eq!(channels, ["b"]);
    receipt.complete();
    assert_eq!(batch.told(), [published(3)]);
    batch.end();
    let (channels, receipt) = next(&port);
    assert_eq!(channels, ["c"], "the last line needs no end");
    receipt.complete();
    assert_eq!(batch.told(), [published(4)]);
    assert!(batch.told().is_empty());
}

#[test]
fn a_line_that_is_wrong_costs_only_itself() {
    let port = port(|limits| limits.body = 100);
    let mut batch = begin(&port, HEAD);
    let long = item(&"x".repeat(100));
    batch.send(&[&item("a"), "nonsense\n", "[]\n", "{\"channel\":\"x\"}\n", &long, &item("b")].concat());
    let (channels, receipt) = next(&port);
    assert_eq!(channels, ["a", "b"]);
    receipt.complete();
    batch.head();
    let told = batch.told();
    assert_eq!((&told[0], &told[5]), (&published(1), &published(6)));
    for (at, error) in [
        (1, "invalid format (json parse failed)"),
        (2, "invalid format (not a valid json object)"),
        (3, "invalid format: no formats specified"),
        (4, "The line is too long."),
    ] {
        assert_eq!(told[at], json!({"line": at + 1, "status": 400, "error": error}));
    }
}

#[test]
fn a_body_of_any_length_keeps_its_order_and_takes_little_memory() {
    // Twenty times as much as may be kept for all connections.
    let (lines, content) = (2_000, "x".repeat(10_000));
    let port = port(|_| {});
    let length: usize = (0..lines).map(|n| long_item(n, &content).len()).sum();
    let head =
        format!("POST /publish HTTP/1.1\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n");
    let batch = begin(&port, &head);
    let Batch { mut stream, mut answers } = batch;
    let sending = std::thread::spawn(move || {
        (0..lines).for_each(|n| stream.write_all(long_item(n, &content).as_bytes()).unwrap());
    });
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        answers.read_to_string(&mut text).unwrap();
        text
    });
    let mut channels = Vec::new();
    while channels.len() < lines {
        let (more, receipt) = next(&port);
        assert!(more.len() <= 256);
        channels.extend(more);
        receipt.complete();
    }
    sending.join().unwrap();
    let answers = reading.join().unwrap();
    assert!(channels.iter().enumerate().all(|(n, channel)| *channel == n.to_string()));
    assert_eq!(answers.matches("\"message\":\"Published\"").count(), lines);
}

fn long_item(n: usize, content: &str) -> String {
    format!("{{\"channel\":\"{n}\",\"http-stream\":{{\"content\":\"{content}\"}}}}\n")
}

#[test]
fn when_nothing_can_be_published_the_answers_end_there() {
    let port = port(|limits| limits.wait = Duration::from_millis(100));
    let mut batch = begin(&port, HEAD);
    batch.send(&item("a"));
    let head = batch.head();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.to_ascii_lowercase().contains("retry-after: 1"), "{head}");
    // Whoever was told so may not have it published after all.
    assert!(port.submissions.recv_timeout(LONG).unwrap().begin().is_none());

    let mut batch = begin(&port, HEAD);
    batch.send(&item("a"));
    next(&port).1.complete();
    assert!(batch.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(batch.told(), [published(1)]);
    batch.send(&[&item("b"), "nonsense\n", &item("c")].concat());
    batch.send(&item("d"));
    let statuses: Vec<_> = batch.told().iter().map(|told| told["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [503, 400, 503]);
    assert!(batch.told().is_empty());
    batch.line();
    assert!(batch.is_closed(), "what follows would be out of order");
    assert!(port.submissions.recv_timeout(LONG).unwrap().begin().is_none());
    assert!(port.submissions.try_recv().is_err());
}

#[test]
fn a_line_has_so_much_time_and_an_empty_one_is_one() {
    let port = port(|limits| limits.body_time = Duration::from_millis(300));
    let mut batch = begin(&port, HEAD);
    batch.send(&item("a"));
    next(&port).1.complete();
    batch.head();
    assert_eq!(batch.told(), [published(1)]);
    // Longer than a line may take.
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(30));
        batch.send("\n");
    }
    batch.send(&item("b"));
    next(&port).1.complete();
    assert_eq!(batch.told(), [published(22)]);
    batch.send("{");
    assert_eq!(batch.told(), [json!({"line": 23, "status": 408, "error": "The line took too long."})]);
    assert!(batch.told().is_empty());
}

#[test]
fn lines_tell_who_got_the_item_if_that_is_asked_for() {
    let port = port(|_| {});
    let mut batch = begin(&port, &HEAD.replace("/publish/", "/publish?report=1"));
    batch.send(&[&item("a"), "nonsense\n", &item("b")].concat());
    let (_, mut receipt) = next(&port);
    receipt.note(Fate::Published(Counts { http_stream: 3, ..Counts::default() }));
    receipt.note(Fate::Repeated);
    receipt.complete();
    batch.head();
    let told = batch.told();
    let receivers = json!({"http-response": 0, "http-stream": 3, "ws-message": 0});
    let first =
        json!({"line": 1, "status": 200, "message": "Published", "result": "published", "receivers": receivers});
    assert_eq!(told[0], first);
    assert_eq!(told[1]["status"], 400);
    assert_eq!(told[2], json!({"line": 3, "status": 200, "message": "Published", "result": "repeated"}));
}

#[test]
fn each_line_must_be_for_a_channel_that_the_token_allows() {
    let port =
        port_behind(Gate::new(None, None, Some(&settings::keys::Key::Secret(b"good".to_vec()))).unwrap(), |_| {});
    assert!(begin(&port, HEAD).head().starts_with("HTTP/1.1 401 "));
    let mut batch = begin(&port, &HEAD.replace("\r\nTransfer", "\r\nAuthorization: Bearer good\r\nTransfer"));
    batch.send(&item("a"));
    next(&port).1.complete();
    assert!(batch.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_connection_stays_after_a_batch_if_it_is_asked_to() {
    let port = port(|_| {});
    let head = HEAD.replace("\r\nTransfer", "\r\nConnection: keep-alive\r\nTransfer");
    let mut batch = begin(&port, &head);
    for channel in ["a", "b"] {
        batch.send(&item(channel));
        batch.end();
        let (channels, receipt) = next(&port);
        assert_eq!(channels, [channel]);
        receipt.complete();
        assert!(batch.head().contains("Connection: keep-alive"));
        assert_eq!(batch.told(), [published(1)]);
        assert!(batch.told().is_empty());
        batch.stream.write_all(head.as_bytes()).unwrap();
    }
    batch.end();
    batch.head();
    assert!(batch.told().is_empty(), "an empty batch is none");
}

#[test]
fn without_a_length_or_chunks_there_is_no_batch() {
    let port = port(|_| {});
    let head = "POST /publish/ HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n\r\n";
    assert!(begin(&port, head).head().starts_with("HTTP/1.1 411 "));
}
