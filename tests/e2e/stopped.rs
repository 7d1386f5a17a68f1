// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that hang, and what others get done meanwhile.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pushpin_tests::client::{Client, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::publish;
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::until;

fn open_stream(suite: &Suite, channel: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(&format!("/stream?channel={channel}")).unwrap();
    client.head().unwrap();
    client.expect("[stream opened]\n").unwrap();
    client
}

/// A publish to a stream that is held arrives while `part` is stopped; a request that needs the part waits, and is
/// answered when the part goes on.
fn holds_go_on_without(part: &'static str) {
    let suite = Suite::start("* test");
    let mut stream = open_stream(&suite, "s");
    let mut waiting: Vec<Client> = (0..10).map(|_| Client::connect(suite.port).unwrap()).collect();
    let stopped = Stopped::new(suite.pid(part));
    for client in &mut waiting {
        client.get("/").unwrap();
    }
    for text in ["one\n", "two\n"] {
        publish::text(&suite, "s", text.trim_end()).unwrap();
        stream.expect(text.trim_end()).unwrap();
    }
    drop(stopped);
    for client in &mut waiting {
        assert_eq!(client.response().unwrap().head.status, 200);
    }
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
}

#[test]
fn holds_go_on_while_the_proxy_is_stopped() {
    holds_go_on_without("proxy");
}

#[test]
fn websockets_are_published_to_while_the_proxy_is_stopped() {
    let suite = Suite::start("* test");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(suite.port).unwrap()).collect();
    for client in &mut clients {
        client
            .send(
                b"GET /ws?channel=s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .unwrap();
        assert_eq!(client.head().unwrap().status, 101);
    }
    let publish = |message: &str| {
        let item = format!(r#"{{"channel":"s","formats":{{"ws-message":{message}}}}}"#);
        assert_eq!(publish::post(&suite, &format!(r#"{{"items":[{item}]}}"#)).unwrap().head.status, 200);
    };
    // They may be subscribed a moment after the handshake.
    for client in &mut clients {
        until("it is subscribed", || {
            publish(r#"{"type":"ping"}"#);
            client.stream().set_nonblocking(true).unwrap();
            let got = client.some(2).is_ok();
            client.stream().set_nonblocking(false).unwrap();
            got
        });
    }
    let stopped = Stopped::new(suite.pid("proxy"));
    publish(r#"{"content":"hello"}"#);
    publish(r#"{"action":"close","code":4000}"#);
    for client in &mut clients {
        let mut got = Vec::new();
        while !got.ends_with(b"\x81\x05hello\x88\x02\x0f\xa0") {
            let more = client.some(1).unwrap();
            assert!(!more.is_empty(), "closed behind {}", got.escape_ascii());
            got.extend(more);
        }
    }
    drop(stopped);
    // The proxy, told that they know, ends its side.
    for client in &mut clients {
        client.send(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa0]).unwrap();
        assert_eq!(client.rest().unwrap(), b"");
    }
}

#[test]
fn holds_go_on_while_the_outbound_process_is_stopped() {
    // The built-in backend needs no outbound process, so a real one is asked in between.
    let origin = Origin::start(|request, stream| match request.target.as_str() {
        "/stream" => {
            respond(stream, "200 OK", "Content-Type: text/plain\r\nGrip-Hold: stream\r\nGrip-Channel: s\r\n", b"open")
        }
        _ => respond(stream, "200 OK", "", b"fine"),
    });
    let suite = Suite::before(origin.port);
    let mut stream = Client::connect(suite.port).unwrap();
    stream.get("/stream").unwrap();
    stream.head().unwrap();
    stream.expect("open").unwrap();
    let stopped = Stopped::new(suite.pid("outbound"));
    let mut waiting = Client::connect(suite.port).unwrap();
    waiting.get("/").unwrap();
    publish::text(&suite, "s", "hello").unwrap();
    stream.expect("hello").unwrap();
    drop(stopped);
    assert_eq!(waiting.response().unwrap().text(), "fine");
}

#[test]
fn requests_pass_while_the_handler_is_stopped_and_publishes_arrive_when_it_goes_on() {
    let origin = Origin::start(|_, stream| respond(stream, "200 OK", "", b"fine"));
    let suite = Suite::start(&format!("*,path_beg=/plain 127.0.0.1:{}\n* test", origin.port));
    let mut stream = open_stream(&suite, "s");
    let stopped = Stopped::new(suite.pid("handler"));
    // The proxy gives up asking it after a time; no request waits for longer.
    assert_eq!(get(suite.port, "/plain").unwrap().text(), "fine");
    thread::scope(|scope| {
        let publishing = scope.spawn(|| publish::text(&suite, "s", "late"));
        drop(stopped);
        publishing.join().unwrap().unwrap();
    });
    stream.expect("late").unwrap();
}

#[test]
fn backends_notice_at_once_that_the_proxy_which_asked_them_has_died() {
    let (ended, is_ended) = mpsc::channel();
    let (asked, is_asked) = mpsc::channel();
    let origin = Origin::start(move |_, stream| {
        // Ends of channels may be gone when the test is over.
        let _ = asked.send(());
        let end = std::io::Read::read(stream, &mut [0]);
        let _ = ended.send(matches!(end, Ok(0) | Err(_)));
        Ok(())
    });
    let suite = Suite::before(origin.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    is_asked.recv_timeout(pushpin_tests::PATIENCE).expect("the backend is asked");
    suite.kill("proxy");
    // Well below the 60 s after which a silent session ends.
    assert_eq!(is_ended.recv_timeout(Duration::from_secs(10)), Ok(true));
}

#[test]
fn a_request_that_a_stopped_outbound_process_does_not_take_gets_an_answer_in_the_end() {
    let origin = Origin::start(|_, stream| respond(stream, "200 OK", "", b"fine"));
    let suite = Suite::before(origin.port);
    assert_eq!(get(suite.port, "/").unwrap().text(), "fine");
    let stopped = Stopped::new(suite.pid("outbound"));
    assert_eq!(get(suite.port, "/").unwrap().head.status, 502);
    drop(stopped);
    assert_eq!(get(suite.port, "/").unwrap().text(), "fine");
}

#[test]
fn a_hold_that_a_stopped_handler_does_not_take_gets_an_answer_in_the_end() {
    let suite = Suite::start("* test");
    drop(open_stream(&suite, "s"));
    let stopped = Stopped::new(suite.pid("handler"));
    let answer = get(suite.port, "/stream?channel=s").unwrap();
    assert_eq!(answer.head.status, 500, "{}", answer.text());
    drop(stopped);
    let mut stream = open_stream(&suite, "s");
    publish::text(&suite, "s", "hello").unwrap();
    stream.expect("hello").unwrap();
}

#[test]
fn a_process_that_hangs_is_replaced() {
    let origin = Origin::start(|_, stream| respond(stream, "200 OK", "", b"fine"));
    let routes = format!("*,path_beg=/origin 127.0.0.1:{}\n* test", origin.port);
    let mut suite = Suite::prepare(&routes, "[runner]\nheartbeat_timeout=2\n");
    suite.launch();
    for part in ["handler", "proxy", "outbound", "frontend"] {
        let pid = suite.pid(part);
        let _stopped = Stopped::new(pid);
        until("it is killed", || !is_alive(pid));
        until("requests are answered again", || {
            get(suite.port, "/origin").is_ok_and(|answer| answer.head.status == 200)
        });
        // By its successor, who holds and delivers as well.
        let mut stream = open_stream(&suite, "s");
        publish::text(&suite, "s", part).unwrap();
        stream.expect(part).unwrap();
        let logs = suite.logs();
        assert!(
            logs.contains(&format!("{part}: hangs, has not answered for 2 s; killing its process {pid}")),
            "{logs}"
        );
    }
    let status = suite.run_with(&["ctl", "status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.matches("killed because it had not answered for 2 s").count(), 4, "{status}");
    assert_eq!(suite.stop().code(), Some(0), "{}", suite.logs());
}

#[test]
fn a_process_that_stands_still_goes_on_when_heartbeats_do_not_count() {
    let mut suite = Suite::prepare("* test", "[runner]\nheartbeat_timeout=0\n");
    suite.launch();
    let (pid, stopped) = (suite.pid("proxy"), Stopped::new(suite.pid("proxy")));
    // The runner notices, and does nothing.
    until("the status tells of the silence", || {
        String::from_utf8_lossy(&suite.run_with(&["ctl", "status"]).stdout)
            .contains("not ready: proxy has not answered")
    });
    drop(stopped);
    assert_eq!(get(suite.port, "/").unwrap().head.status, 200);
    assert_eq!(suite.pid("proxy"), pid);
}
