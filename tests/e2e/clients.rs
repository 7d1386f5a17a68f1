// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that read slowly, or say only half of what they announced.

use std::io::Read as _;
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Duration;

use pushpin_tests::client::Client;
use pushpin_tests::origin::Origin;
use pushpin_tests::publish;
use pushpin_tests::suite::Suite;
use pushpin_tests::{PATIENCE, until};

fn open_stream(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(&format!("/stream?channel={channel}")).unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    client
}

#[test]
fn a_stream_that_is_not_read_ends_and_costs_the_others_nothing() {
    let mut suite = Suite::prepare("* test", "[handler]\nsession_queue_bytes=200000\n");
    suite.launch();
    let mut slow = open_stream(&suite, "s");
    let mut fast = open_stream(&suite, "s");
    let text = "x".repeat(50_000);
    // More than kernel buffers and both limits on the way can hold.
    for _ in 0..400 {
        publish::text(&suite, "s", &text).unwrap();
        fast.expect(&text).unwrap();
    }
    let received = slow.rest().map(|bytes| bytes.len()).unwrap_or_default();
    assert!(received < 400 * text.len(), "a client that did not read was sent everything");
    assert!(suite.peak_memory("handler") < 128 << 20, "{}", suite.peak_memory("handler"));
    assert!(suite.peak_memory("frontend") < 128 << 20, "{}", suite.peak_memory("frontend"));
    publish::text(&suite, "s", "still").unwrap();
    fast.expect("still").unwrap();
}

#[test]
fn the_backend_sees_that_a_client_has_left_while_it_thinks() {
    let (asked, is_asked) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel();
    let origin = Origin::start(move |request, stream| {
        asked.send(request.body.len()).unwrap();
        ended.send(matches!(stream.read(&mut [0; 100]), Ok(0) | Err(_))).unwrap();
        Ok(())
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(is_asked.recv_timeout(PATIENCE), Ok(5));
    client.close();
    assert_eq!(has_ended.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn an_upload_that_ends_in_the_middle_never_looks_complete_to_the_backend() {
    let (asked, is_asked) = mpsc::channel();
    let (seen, told) = mpsc::channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut all = vec![0; 1000];
            stream.read_exact(&mut all).unwrap();
            asked.send(()).unwrap();
            let _ = stream.read_to_end(&mut all);
            seen.send(all).unwrap();
        }
    });
    let suite = Suite::before(port);
    for (head, body) in [
        ("Content-Length: 100000", "x".repeat(50_000)),
        ("Transfer-Encoding: chunked", format!("c350\r\n{}\r\n", "x".repeat(50_000))),
    ] {
        let mut client = Client::connect(suite.port).unwrap();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n{body}").as_bytes()).unwrap();
        is_asked.recv_timeout(PATIENCE).expect("the backend is asked");
        client.stream().shutdown(Shutdown::Write).unwrap();
        let all = told.recv_timeout(PATIENCE).expect("the backend's connection ends");
        assert!(all.len() < 60_000 && !all.ends_with(b"0\r\n\r\n"), "{}", all.escape_ascii());
        client.stream().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // An error or the end, but no answer that looks like one to a whole request.
        let answer = client.rest().unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
    }
    until("the parts run on", || suite.children().len() == 4);
}
