// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests through all four processes.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;
use pushpin_tests::until;

const MEGABYTE: usize = 1024 * 1024;

#[test]
fn a_request_reaches_the_backend_and_its_response_the_client() {
    let origin = Origin::start(|_, stream| respond(stream, "201 Made", "X-Origin: yes\r\n", b"hello\n"));
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-mIxed: 1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    let response = client.response().unwrap();
    assert_eq!((response.head.status, response.text().as_str()), (201, "hello\n"));
    assert_eq!(response.head.header("X-Origin"), Some("yes"));
    let request = origin.request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a/b?c=d"));
    assert_eq!(request.body, b"abc");
    assert!(request.headers.iter().any(|(name, value)| name == "X-mIxed" && value == "1"), "{request:?}");
    // Header and payload of a JSON web token, and a signature.
    assert_eq!(request.header("Grip-Sig").unwrap().split('.').count(), 3);

    client.get("/again").unwrap();
    assert_eq!(client.response().unwrap().head.status, 201);
    until("the request is in the log", || suite.logs().contains("GET http://example.com/again -> 127.0.0.1:"));
}

#[test]
fn a_large_body_goes_up_and_comes_back_unchanged_in_bounded_memory() {
    let origin = Origin::start(|request, stream| respond(stream, "200 OK", "", &request.body));
    let suite = Suite::before(origin.port);
    let body: Vec<u8> = (0..20 * MEGABYTE).map(|i| (i / 7 % 251) as u8).collect();
    let mut client = Client::connect(suite.port).unwrap();
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .unwrap();
    client.send(&body).unwrap();
    let response = client.response().unwrap();
    assert_eq!(response.head.status, 200);
    assert!(response.body == body, "{} bytes came back, or others", response.body.len());
    for part in ["frontend", "proxy", "outbound"] {
        let peak = suite.peak_memory(part);
        assert!(peak < 64 * MEGABYTE as u64, "{part} used {peak} bytes");
    }
}

#[test]
fn a_client_that_does_not_read_slows_the_backend_down() {
    const SIZE: usize = 200 * MEGABYTE;
    let written = Arc::new(AtomicU64::new(0));
    let counter = written.clone();
    let origin = Origin::start(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")?;
        let block = vec![b'x'; 64 * 1024];
        for _ in 0..SIZE / block.len() {
            stream.write_all(&block)?;
            counter.fetch_add(block.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/large").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    // Until nothing moves any more: all buffers on the way are full.
    let mut last = 0;
    until("the backend is held up", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    // Kernel buffers of four sockets take some megabytes; the suite itself next to nothing.
    assert!(last < 60 * MEGABYTE as u64, "{last} bytes have been taken from the backend");
    let mut received = 0;
    while received < SIZE {
        received += client.some(MEGABYTE).unwrap().len();
    }
    assert_eq!(received, SIZE);
}

#[test]
fn a_client_that_goes_away_cancels_the_request_at_the_backend() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let seen = cancelled.clone();
    let origin = Origin::start(move |_, stream| {
        // Nothing else comes on this connection, so that its end is all that can be read.
        seen.store(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), Ordering::Relaxed);
        Ok(())
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/wait").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    client.close();
    until("the backend sees its connection closed", || cancelled.load(Ordering::Relaxed));
}

#[test]
fn a_backend_that_is_not_there_is_status_502() {
    let suite = Suite::start("* 127.0.0.1:1");
    let response = get(suite.port, "/").unwrap();
    assert_eq!((response.head.status, response.text().as_str()), (502, "Error while proxying to origin.\n"));
}

#[test]
fn a_host_without_route_is_status_502() {
    let suite = Suite::start("other.example 127.0.0.1:1");
    let response = get(suite.port, "/").unwrap();
    assert_eq!((response.head.status, response.text().as_str()), (502, "Route not found\n"));
}

#[test]
fn a_body_that_breaks_off_at_the_backend_breaks_off_at_the_client() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        stream.shutdown(std::net::Shutdown::Both)
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    let all = client.rest().unwrap();
    assert!(!all.ends_with(b"0\r\n\r\n"), "the client is told that all has come");
}

#[test]
fn malformed_requests_are_refused_and_nobody_else_notices() {
    let origin = Origin::start(|_, stream| respond(stream, "200 OK", "", b"fine\n"));
    let suite = Suite::before(origin.port);
    let requests: [&[u8]; 6] = [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ];
    for request in requests {
        let mut client = Client::connect(suite.port).unwrap();
        client.send(request).unwrap();
        // Reset is as good as an orderly close.
        let answer = client.rest().unwrap_or_default();
        let refused = answer.is_empty() || matches!(answer.get(8..10), Some(b" 4" | b" 5"));
        assert!(refused, "{} is answered with {}", request.escape_ascii(), answer.escape_ascii());
        assert_eq!(get(suite.port, "/fine").unwrap().text(), "fine\n");
    }
}

#[test]
fn a_client_that_closes_its_side_right_after_its_request_is_not_held_for_ever() {
    let suite = Suite::start("* test");
    // The end often arrives together with the request, and is not reported twice.
    for _ in 0..20 {
        let mut client = Client::connect(suite.port).unwrap();
        client.send(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        client.rest().expect("the connection is closed");
    }
}

#[test]
fn a_request_that_a_dead_outbound_process_had_is_sent_again_if_it_only_asks() {
    let signals = [Signal::SIGKILL, Signal::SIGTERM];
    for (signal, (method, expected)) in signals.into_iter().flat_map(|s| [("GET", 200), ("POST", 502)].map(|m| (s, m)))
    {
        // It answers the first request never and all others at once.
        let asked = Arc::new(AtomicBool::new(false));
        let before = asked.clone();
        let origin = Origin::start(move |_, stream| {
            if !before.swap(true, Ordering::SeqCst) {
                // Until the other side has gone.
                let _ = stream.read(&mut [0; 1]);
            }
            respond(stream, "200 OK", "", b"second\n")
        });
        let suite = Suite::before(origin.port);
        let mut client = Client::connect(suite.port).unwrap();
        client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        until("the backend is asked", || asked.load(Ordering::SeqCst));
        suite.send("outbound", signal);
        assert_eq!(client.response().unwrap().head.status, expected, "{signal} {method} {}", suite.logs());
        until("the reason is in the log", || suite.logs().contains("the outbound process ended"));
    }
}

#[test]
fn a_short_chunked_upload_reaches_the_backend_with_its_length() {
    let origin = Origin::start(|_, stream| respond(stream, "200 OK", "", b"ok\n"));
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    for _ in 0..3 {
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
        client.send(b"2\r\nde\r\n0\r\n\r\n").unwrap();
        assert_eq!(client.response().unwrap().head.status, 200);
        let request = origin.request();
        assert_eq!((request.header("Content-Length"), request.header("Transfer-Encoding")), (Some("5"), None));
    }
}

#[test]
fn when_there_are_as_many_requests_as_may_be_others_wait_and_the_proxy_rests() {
    let (go_on, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (wait, count) = (go_on.clone(), asked.clone());
    let origin = Origin::start(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        until("the test goes on", || wait.load(Ordering::SeqCst));
        respond(stream, "200 OK", "", b"ok\n")
    });
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), "[proxy]\nmax_open_requests=1\n");
    suite.launch();
    let mut first = Client::connect(suite.port).unwrap();
    first.get("/first").unwrap();
    until("the first one is under way", || asked.load(Ordering::SeqCst) == 1);
    let mut second = Client::connect(suite.port).unwrap();
    second.get("/second").unwrap();
    until("the limit is in the log", || suite.logs().contains("max_open_requests is reached"));
    let before = suite.cpu_time("proxy");
    // Not a wait for anything: the time in which a loop that spins uses the processor.
    std::thread::sleep(Duration::from_millis(300));
    assert!(suite.cpu_time("proxy") - before < Duration::from_millis(100), "it spins");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    go_on.store(true, Ordering::SeqCst);
    assert_eq!(first.response().unwrap().head.status, 200);
    assert_eq!(second.response().unwrap().head.status, 200);
}
