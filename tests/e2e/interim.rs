// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes beside a message: interim responses before it, trailers behind it.

use std::io::Write as _;

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::Suite;

#[test]
fn interim_responses_reach_clients_that_know_them_before_the_response() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Case: Kept\r\n\r\n")?;
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 104 Upload Resumption Supported\r\n\r\n")?;
        respond(stream, "200 OK", "", b"hello")
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    for _ in 0..2 {
        client.get("/").unwrap();
        let early = client.head().unwrap();
        assert_eq!((early.status, early.header("Link")), (103, Some("</a.css>; rel=preload")));
        assert_eq!(early.headers.len(), 2, "{:?}", early.headers);
        assert_eq!((client.head().unwrap().status, client.head().unwrap().status), (102, 104));
        assert_eq!(client.response().unwrap().text(), "hello");
    }
    let mut old = Client::connect(suite.port).unwrap();
    old.send(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n").unwrap();
    let response = String::from_utf8(old.rest().unwrap()).unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n") && response.ends_with("\r\n\r\nhello"), "{response}");
    // Nor does a flood of them count as a response.
    let endless = Origin::start(|_, stream| {
        loop {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
        }
    });
    let suite = Suite::before(endless.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    let last = std::iter::repeat_with(|| client.head().unwrap().status).find(|status| *status != 103);
    assert_eq!(last, Some(502));
}

#[test]
fn interim_responses_come_before_a_hold() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nGrip-Hold: stream\r\n\r\n")?;
        respond(stream, "200 OK", "Grip-Hold: stream\r\nGrip-Channel: c\r\n", b"open\n")
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    let early = client.head().unwrap();
    assert_eq!((early.status, early.headers.len()), (103, 1));
    assert_eq!(client.head().unwrap().status, 200);
    client.expect("open\n").unwrap();
    pushpin_tests::publish::text(&suite, "c", "more\n").unwrap();
    client.expect("more\n").unwrap();
}

#[test]
fn a_client_that_waits_with_its_body_is_told_to_go_on_once() {
    let origin = Origin::start(|request, stream| {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        respond(stream, "200 OK", "", &request.body)
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().status, 100);
    client.send(b"hello").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
    // One that does not wait hears of none.
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(client.response().unwrap().text(), "hello");
}

#[test]
fn trailers_are_left_out_in_both_directions_and_end_nothing_but_their_message() {
    let origin = Origin::start(|request, stream| {
        let fields = request.headers.iter().filter(|(name, _)| name.starts_with("X-")).count();
        let body = format!("{fields} {}", String::from_utf8_lossy(&request.body));
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 1\r\n\r\n",
            body.len()
        )
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    for _ in 0..2 {
        let request = "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: other\r\nContent-Length: 7\r\n\r\n";
        client.send(request.as_bytes()).unwrap();
        let head = client.head().unwrap();
        assert_eq!((head.status, head.header("Trailer")), (200, Some("X-Sum")));
        // In whatever framing; what came behind it would be in the way of the next response.
        assert_eq!(client.body(&head).unwrap(), b"0 hello");
        let got = origin.request();
        assert_eq!(
            (got.header("TE"), got.header("Trailer"), got.header("Host")),
            (Some("trailers"), Some("X-Sum"), Some("h"))
        );
    }
}
