// SPDX-License-Identifier: AGPL-3.0-or-later
//! The edge of the suite: clients that are slow, leave, send too much or read nothing, and what they see of servers that go.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::Origin;
use pushpin_tests::publish;
use pushpin_tests::suite::Suite;
use pushpin_tests::until;

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

/// A suite before a backend, with further settings of `[runner]`.
fn suite_with(origin: &Origin, settings: &str) -> Suite {
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), &format!("[runner]\n{settings}"));
    suite.launch();
    suite
}

fn small_answers() -> Origin {
    Origin::start(|_, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
}

fn connect(suite: &Suite) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", suite.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends a piece every 100 ms until the suite closes; how long that took.
fn trickle(suite: &Suite, first: &[u8], piece: &[u8]) -> Duration {
    let mut stream = connect(suite);
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 1000];
    while start.elapsed() < Duration::from_secs(15) {
        match stream.read(&mut buffer) {
            Ok(0) => return start.elapsed(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return start.elapsed(),
            _ => {}
        }
        if stream.write_all(piece).is_err() {
            return start.elapsed();
        }
    }
    panic!("open after {:?}", start.elapsed());
}

#[test]
fn a_head_that_comes_byte_by_byte_is_not_waited_for_without_end() {
    let origin = small_answers();
    let suite = suite_with(&origin, "client_header_timeout=1\nclient_idle_timeout=60\n");
    for (first, piece) in [
        (&b"GET / HTTP/1.1\r\nX: "[..], &b"y"[..]),
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
        (b"", b"\r\n"),
        (&[GET, b"GET / HTTP/1.1\r\nX: "].concat(), b"y"),
    ] {
        let took = trickle(&suite, first, piece);
        assert!(took > Duration::from_millis(800) && took < Duration::from_secs(4), "{first:?}: {took:?}");
    }
}

#[test]
fn an_idle_connection_ends_and_one_that_waits_for_an_answer_does_not() {
    let origin = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_secs(3));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let suite = suite_with(&origin, "client_header_timeout=1\nclient_idle_timeout=1\nclient_body_timeout=1\n");
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/x").unwrap();
    assert_eq!(client.response().unwrap().text(), "ok");
    let start = Instant::now();
    assert_eq!(client.rest().unwrap(), b"");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let origin = small_answers();
    let suite = suite_with(&origin, "client_body_timeout=1\n");
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    let start = Instant::now();
    assert_eq!(client.rest().unwrap_or_default(), b"");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_that_does_not_read_is_closed_and_one_with_nothing_to_read_is_not() {
    let origin = Origin::start(|request, stream| {
        if request.target == "/big" {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")?;
            return stream.write_all(&vec![b'x'; 50_000_000]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nGrip-Hold: stream\r\nGrip-Channel: quiet\r\nContent-Length: 3\r\n\r\nhi\n")
    });
    let suite = suite_with(&origin, "client_send_timeout=1\nclient_idle_timeout=1\n");
    let mut quiet = Client::connect(suite.port).unwrap();
    quiet.get("/hold").unwrap();
    quiet.head().unwrap();
    quiet.expect("hi\n").unwrap();
    let mut stuck = connect(&suite);
    stuck.write_all(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let start = Instant::now();
    // It sees its end without having read anything.
    stuck.set_nonblocking(true).unwrap();
    until("the client that does not read is closed", || {
        start.elapsed() > Duration::from_secs(1)
            && stuck.write(b"x").is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock)
    });
    publish::text(&suite, "quiet", "still\n").unwrap();
    quiet.expect("still\n").unwrap();
}

#[test]
fn an_answer_before_the_end_of_an_upload_arrives_each_time() {
    // `Origin` reads whole requests, and this one must not.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> io::Result<()> {
                let mut stream = stream;
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer)? > 0 {
                    stream
                        .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbig\n")?;
                    std::thread::sleep(Duration::from_secs(2));
                }
                Ok(())
            });
        }
    });
    let suite = Suite::before(port);
    for _ in 0..20 {
        let mut stream = connect(&suite);
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n").unwrap();
        let body = vec![b'x'; 20_000_000];
        stream.write_all(&body).expect("the upload is read although nobody wants it");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("no reset");
        assert!(response.starts_with(b"HTTP/1.1 413 ") && response.ends_with(b"big\n"), "{} bytes", response.len());
    }
}

#[test]
fn a_refusal_is_followed_by_an_end_and_not_by_a_reset() {
    let origin = small_answers();
    let suite = Suite::before(origin.port);
    for head in [
        &b"BAD\r\n\r\n"[..],
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n",
    ] {
        let mut stream = connect(&suite);
        stream.write_all(&[head, &vec![b'x'; 300_000]].concat()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("no reset");
        let status = String::from_utf8_lossy(&response[9..12]).into_owned();
        assert!(["400", "501"].contains(&&*status), "{}", String::from_utf8_lossy(&response));
    }
}

#[test]
fn a_client_that_pipelines_and_does_not_read_makes_nobody_produce_much_more() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")?;
        stream.write_all(&[b'x'; 60_000])
    });
    let suite = suite_with(&origin, "");
    let mut stream = connect(&suite);
    stream.write_all(&GET.repeat(500)).unwrap();
    let before = suite.peak_memory("frontend");
    // Others are served, and by then so is what the kernel takes for this one.
    for _ in 0..20 {
        assert_eq!(get(suite.port, "/y").unwrap().head.status, 200);
    }
    assert!(suite.peak_memory("frontend") < before + 8_000_000);
    // One that does read gets all that it has asked for.
    let mut read = Vec::new();
    let mut stream = connect(&suite);
    stream.write_all(&GET.repeat(50)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    until("all that was asked for has come", || {
        let n = stream.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..n]);
        read.windows(9).filter(|w| w == b"HTTP/1.1 ").count() == 50 && read.ends_with(&[b'x'; 60_000])
    });
}

#[test]
fn clients_of_a_handler_that_died_are_told_at_once_and_the_log_says_how_many() {
    let suite = Suite::start("* test");
    let mut streams: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = Client::connect(suite.port).unwrap();
            client.get("/stream?channel=d").unwrap();
            client.head().unwrap();
            client.expect("[stream opened]\n").unwrap();
            client
        })
        .collect();
    let mut poll = Client::connect(suite.port).unwrap();
    poll.get("/response?channel=d").unwrap();
    until("the poll is held", || suite.logs().matches("subscribe").count() >= 6);
    let start = Instant::now();
    suite.kill("handler");
    for client in &mut streams {
        let rest = client.rest().expect("an end");
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks complete");
    }
    assert_eq!(poll.response().unwrap().head.status, 502);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    until("the log says how many", || suite.logs().contains("6 sessions with it are ended"));
}

#[test]
fn a_request_that_a_dead_proxy_had_and_that_may_not_be_sent_twice_gets_an_answer_at_once() {
    let (arrives, arrived) = std::sync::mpsc::sync_channel(10);
    let origin = Origin::start(move |_, stream| {
        let _ = arrives.try_send(());
        std::thread::sleep(Duration::from_secs(10));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST /slow HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    arrived.recv().unwrap();
    let start = Instant::now();
    suite.kill("proxy");
    assert_eq!(client.response().unwrap().head.status, 502);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_held_client_that_sent_ahead_and_left_is_noticed() {
    let suite = Suite::start("* test");
    for ahead in [0, 1, 8191, 8192, 20_000] {
        let channel = format!("gone{ahead}");
        let mut client = Client::connect(suite.port).unwrap();
        client.get(&format!("/stream?channel={channel}")).unwrap();
        client.head().unwrap();
        client.expect("[stream opened]\n").unwrap();
        client.send(&vec![b'G'; ahead]).unwrap();
        client.close();
        until("nobody is held", || {
            publish::text(&suite, &channel, "x").unwrap();
            suite.logs().contains(&format!("publish channel={channel} receivers=0"))
        });
    }
}
