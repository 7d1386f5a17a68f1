// SPDX-License-Identifier: AGPL-3.0-or-later
//! Raw responses by which two readers could come to disagree about where one ends (`hostile.txt`).

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;

use crate::smuggling::bytes;

/// No response of the table may take longer. The backend's deadlines are a second each.
const DEADLINE: Duration = Duration::from_secs(10);
const DEADLINES: &str = "[proxy]\nbackend_response_timeout=1\nbackend_idle_timeout=1\n";

/// A line of the table.
struct Case {
    line: usize,
    expected: String,
    method: String,
    closes: bool,
    bytes: Vec<u8>,
}

fn table() -> Vec<Case> {
    let lines = include_str!("hostile.txt").lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| case(number, line))
        .collect()
}

fn case(number: usize, line: &str) -> Case {
    let fields: Vec<&str> = line.split('\t').collect();
    let [expected, method, end, text] = fields[..] else { panic!("line {}", number + 1) };
    let mut bytes_of_it = Vec::new();
    for (index, part) in text.split("\\(").enumerate() {
        let rest = match part.split_once("\\)").filter(|_| index > 0) {
            None => part,
            Some((repeated, rest)) => {
                let (count, repeated) = repeated.split_once('*').unwrap();
                bytes_of_it.extend_from_slice(&bytes(repeated).repeat(count.parse().unwrap()));
                rest
            }
        };
        bytes_of_it.extend_from_slice(&bytes(rest));
    }
    let (expected, method) = (expected.to_string(), method.to_string());
    Case { line: number + 1, expected, method, closes: end == "close", bytes: bytes_of_it }
}

fn canary(client: &mut Client) -> Result<(), String> {
    client.get("/canary").map_err(|error| error.to_string())?;
    match client.response() {
        Ok(response) if response.text() == "canary" => Ok(()),
        other => Err(format!("{other:?} for the next request")),
    }
}

/// What a client gets, and what is wrong with it, if anything.
fn outcome(port: u16, case: &Case) -> Result<String, String> {
    let mut client = Client::connect(port).unwrap();
    client.stream().set_read_timeout(Some(DEADLINE)).unwrap();
    let length = if case.method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let request = format!("{} /{} HTTP/1.1\r\nHost: h\r\n{length}\r\n", case.method, case.line);
    client.send(request.as_bytes()).unwrap();
    let head = client.final_head().map_err(|error| format!("no response: {error}"))?;
    let bodiless = case.method == "HEAD" || matches!(head.status, 204 | 304);
    let body = if bodiless { Ok(Vec::new()) } else { client.body(&head) };
    let text = match (&body, head.status) {
        (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return Err("the client waits in vain".into()),
        (Err(_), status) => format!("{status}:broken"),
        (Ok(_), 502) => "502".to_string(),
        (Ok(body), status) => format!("{status}:{}", String::from_utf8_lossy(body)),
    };
    let closes = body.is_err() || head.header("Connection").is_some_and(|value| value == "close");
    let rest = if closes { client.rest().unwrap_or_default() } else { Vec::new() };
    if body.is_ok() && !rest.is_empty() {
        return Err(format!("{} behind the response", rest.escape_ascii()));
    }
    if closes {
        client = Client::connect(port).unwrap();
    }
    canary(&mut client).map(|()| text)
}

#[test]
fn no_response_hides_another_or_leaves_a_client_waiting() {
    let cases = Arc::new(table());
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let at_origin = cases.clone();
    let origin = Origin::start(move |request, stream| {
        if request.target == "/canary" {
            return respond(stream, "200 OK", "", b"canary");
        }
        let line = request.target.trim_start_matches('/').parse().unwrap_or(0);
        let case = at_origin.iter().find(|case| case.line == line).unwrap();
        stream.write_all(&case.bytes)?;
        // What comes of an error is that the connection is closed.
        if case.closes { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), DEADLINES);
    suite.launch();
    // Those that wait for a deadline would take a second each, one after the other.
    let (next, complaints) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (cases, next, complaints, port) = (cases.clone(), next.clone(), complaints.clone(), suite.port);
            thread::spawn(move || {
                loop {
                    let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) else { return };
                    let start = Instant::now();
                    let came = outcome(port, case);
                    let fits = came.as_ref().is_ok_and(|came| match case.expected.as_str() {
                        "cut" => came == "502" || came == "200:broken",
                        expected => came == expected,
                    });
                    if !fits || start.elapsed() > DEADLINE {
                        let text = format!("line {}: {came:?} instead of {}", case.line, case.expected);
                        complaints.lock().unwrap().push(text);
                    }
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let complaints = complaints.lock().unwrap();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

#[test]
fn what_a_backend_says_unasked_is_not_the_next_response() {
    let (sender, waits) = mpsc::channel::<()>();
    let (told, has_spoken) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let origin = Origin::start(move |request, stream| {
        respond(stream, "200 OK", "", request.target.as_bytes())?;
        if request.target == "/first" {
            // The client has the response, so the connection waits for its next request.
            waits.lock().unwrap().recv().map_err(io::Error::other)?;
            // The connection may be closed at its first byte.
            let _ = respond(stream, "200 OK", "", b"evil");
            told.send(()).map_err(io::Error::other)?;
        }
        Ok(())
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    for _ in 0..20 {
        client.get("/first").unwrap();
        assert_eq!(client.response().unwrap().text(), "/first");
        sender.send(()).unwrap();
        has_spoken.recv_timeout(DEADLINE).unwrap();
        client.get("/second").unwrap();
        assert_eq!(client.response().unwrap().text(), "/second");
    }
}
