// SPDX-License-Identifier: AGPL-3.0-or-later
//! The proxy ends, and requests that it had go to the next one if they may.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::{Suite, is_alive};
use pushpin_tests::until;

/// A backend that keeps what it has been asked. What it is asked first it does not answer, but lets hang, or begins to answer.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Request>>>);

impl Asked {
    fn all(&self) -> Vec<(String, String)> {
        let requests = self.0.lock().unwrap();
        let line = |r: &Request| (format!("{} {}", r.method, r.target), String::from_utf8_lossy(&r.body).into_owned());
        requests.iter().map(line).collect()
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
        let before = {
            let mut requests = self.0.lock().unwrap();
            requests.push(request.clone());
            requests.iter().filter(|other| other.target == request.target).count() - 1
        };
        if before > 0 || !request.target.starts_with("/slow") {
            return respond(stream, "200 OK", "", format!("answer {}", before + 1).as_bytes());
        }
        if request.target.contains("begun") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")?;
        }
        // Until whoever asked is gone.
        stream.read(&mut [0]).and(Err(io::ErrorKind::UnexpectedEof.into()))
    }

    fn start(settings: &str) -> (Suite, Asked) {
        let asked = Asked::default();
        let origin = {
            let asked = asked.clone();
            Origin::start(move |request, stream| asked.answer(request, stream))
        };
        let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), settings);
        suite.launch();
        (suite, asked)
    }
}

fn send(suite: &Suite, method: &str, target: &str, body: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    let length = body.len();
    let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}");
    client.send(request.as_bytes()).unwrap();
    client
}

fn what_may_be_repeated_is(signal: Signal) {
    let (suite, asked) = Asked::start("");
    let large = "x".repeat(60_000);
    let mut reading = send(&suite, "GET", "/slow/get", "");
    let mut storing = send(&suite, "PUT", "/slow/put", &large);
    let mut adding = send(&suite, "POST", "/slow/post", "one");
    let mut begun = send(&suite, "GET", "/slow/begun", "");
    until("the backend has been asked for everything", || asked.all().len() == 4);
    begun.head().unwrap();
    assert_eq!(begun.some(5).unwrap(), b"begun");
    let proxy = suite.pid("proxy");
    suite.send("proxy", signal);

    let refused = adding.response().unwrap();
    assert_eq!(refused.head.status, 502);
    assert!(refused.text().contains("may have carried it out"), "{}", refused.text());
    match begun.rest() {
        Ok(rest) => assert_eq!(String::from_utf8_lossy(&rest), "", "of 100 bytes only 5 come"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    for client in [&mut reading, &mut storing] {
        let response = client.response().unwrap();
        assert_eq!((response.head.status, response.text()), (200, "answer 2".to_owned()), "{:?}", asked.all());
    }
    assert!(!is_alive(proxy));
    let mut all = asked.all();
    all.sort();
    let expected = [
        ("GET /slow/begun", ""),
        ("GET /slow/get", ""),
        ("GET /slow/get", ""),
        ("POST /slow/post", "one"),
        ("PUT /slow/put", &large),
        ("PUT /slow/put", &large),
    ];
    assert!(all.iter().map(|(line, body)| (&line[..], &body[..])).eq(expected), "{all:.200?}");
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
}

#[test]
fn what_may_be_repeated_goes_to_the_next_proxy_when_one_is_killed() {
    what_may_be_repeated_is(Signal::SIGKILL);
}

#[test]
fn what_may_be_repeated_goes_to_the_next_proxy_when_one_is_restarted() {
    what_may_be_repeated_is(Signal::SIGTERM);
}

/// Ends the proxy while its runner can not start another, and has the frontend notice: what it writes to a proxy that ends may
/// have been read.
fn without_proxy(suite: &Suite) {
    suite.signal(Signal::SIGSTOP);
    suite.kill("proxy");
    until("the frontend misses the proxy", || {
        let logs = suite.logs();
        let mut ends = logs.lines().filter(|line| line.contains("the connection of the ZeroMQ peer"));
        ends.any(|line| line.contains("frontend-out:"))
    });
}

#[test]
fn requests_wait_for_a_proxy_and_are_sent_once() {
    let (suite, asked) = Asked::start("[runner]\nlog_level=3\n");
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    without_proxy(&suite);
    let mut clients: Vec<Client> = (0..50).map(|number| send(&suite, "POST", &format!("/{number}"), "b")).collect();
    suite.signal(Signal::SIGCONT);
    for client in &mut clients {
        let response = client.response().unwrap();
        assert_eq!((response.head.status, response.text()), (200, "answer 1".to_owned()));
    }
    assert_eq!(asked.all().len(), 51);
}

#[test]
fn requests_wait_for_a_proxy_for_as_long_as_is_set() {
    let (suite, asked) = Asked::start("[runner]\nlog_level=3\nreplay_wait=1\n");
    let mut under_way = send(&suite, "GET", "/slow/get", "");
    until("the backend has been asked", || asked.all().len() == 1);
    without_proxy(&suite);
    let mut late = send(&suite, "POST", "/late", "b");
    for client in [&mut under_way, &mut late] {
        let response = client.response().unwrap();
        let text = "No proxy has come to take this request for 1 s.\n";
        assert_eq!((response.head.status, response.text()), (502, text.to_owned()));
    }
    suite.signal(Signal::SIGCONT);
    until("requests are served again", || get(suite.port, "/").is_ok_and(|response| response.head.status == 200));
    assert!(asked.all().iter().all(|(line, _)| line != "POST /late"), "what has been given up is carried out");
}

#[test]
fn nothing_is_repeated_if_that_is_switched_off() {
    let (suite, asked) = Asked::start("[runner]\nreplay_wait=0\n");
    let mut client = send(&suite, "GET", "/slow/get", "");
    until("the backend has been asked", || asked.all().len() == 1);
    suite.kill("proxy");
    assert_eq!(client.response().unwrap().head.status, 502);
    until("requests are served again", || get(suite.port, "/").is_ok_and(|response| response.head.status == 200));
    assert!(!asked.all().iter().skip(1).any(|(line, _)| line.contains("slow")), "{:?}", asked.all());
}
