// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program between a requester and backends, over real sockets.
#![allow(missing_docs)]

mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peer::{Outbound, Requester, backend, backend_at};
use zhttp::{Headers, Ids, Kind, Packet};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn start() -> (Outbound, Requester) {
    let outbound = Outbound::start();
    let requester = Requester::connect(&outbound, "proxy_1");
    (outbound, requester)
}

/// Answers every request, and tells in the body how many connections there have been before.
fn counting(number: usize, mut peer: peer::Peer) {
    while peer.request().is_some() {
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes());
    }
}

#[test]
fn a_small_response_is_one_packet_without_acknowledgement() {
    let (_outbound, mut requester) = start();
    let uri = backend(counting);
    requester.get("a", &uri);
    requester.response("a");
    requester.get("b", &uri);
    let answer = requester.next("b");
    assert_eq!((answer.kind, answer.seq, answer.code, answer.more), (Kind::Data, Some(0), Some(200), false));
    assert_eq!(answer.body, b"0");
}

#[test]
fn connections_are_used_again_only_where_the_response_ended_clearly() {
    let (_outbound, mut requester) = start();
    let uri = backend(counting);
    for id in ["a", "b", "c"] {
        requester.get(id, &uri);
        assert_eq!(requester.response(id).1, b"0");
    }
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let uri = backend(move |_, mut peer| {
            count.fetch_add(1, Ordering::SeqCst);
            while peer.request().is_some() {
                peer.send(answer);
            }
        });
        for id in ["d", "e"] {
            requester.get(id, &uri);
            assert_eq!(requester.response(id), (200, b"ok".to_vec()));
        }
        assert_eq!(connections.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_request_on_a_connection_that_turns_out_to_be_dead_is_sent_again() {
    let (_outbound, mut requester) = start();
    // The first connection answers once, takes the second request, and closes without an answer.
    let uri = backend(|number, mut peer| {
        peer.request();
        peer.send(OK);
        if peer.request().is_some() && number > 0 {
            peer.send(OK);
        }
    });
    requester.get("a", &uri);
    assert_eq!(requester.response("a").0, 200);
    requester.get("b", &uri);
    assert_eq!(requester.response("b"), (200, b"ok".to_vec()));
}

#[test]
fn a_request_with_effects_is_sent_once_even_if_its_connection_dies() {
    let (_outbound, mut requester) = start();
    for method in ["POST", "PUT", "PATCH", "DELETE", "X"] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let uri = backend(move |_, mut peer| {
            while let Some(request) = peer.request() {
                if !request.starts_with("GET") {
                    count.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                peer.send(OK);
            }
        });
        requester.get("warm", &uri);
        assert_eq!(requester.response("warm").0, 200);
        requester.ask("b", Packet { method: Some(method.as_bytes()), uri: Some(uri.as_bytes()), ..Packet::default() });
        let answer = requester.next_real("b");
        assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "undefined-condition"), "{method}");
        assert_eq!(seen.load(Ordering::SeqCst), 1, "{method}");
    }
}

#[test]
fn a_backend_that_does_not_answer_or_stops_in_the_middle_is_given_up() {
    let outbound = Outbound::with("backend_response_timeout=1\nbackend_idle_timeout=2");
    let mut requester = Requester::connect(&outbound, "proxy_1");
    for (answer, setting) in [
        (&b""[..], "backend_response_timeout"),
        (b"HTTP/1.1 200 OK\r\nA: ", "backend_response_timeout"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "backend_idle_timeout"),
    ] {
        let (closed, end) = std::sync::mpsc::channel();
        let uri = backend(move |_, mut peer| {
            peer.request();
            peer.send(answer);
            peer.rest();
            closed.send(()).unwrap();
        });
        requester.get("a", &uri);
        let mut last = requester.next_real("a");
        if last.kind == Kind::Data {
            last = requester.next_real("a");
        }
        assert_eq!((last.kind, &*last.condition), (Kind::Error, "session-timeout"));
        assert!(last.reason.contains(setting), "{}", last.reason);
        end.recv_timeout(Duration::from_secs(10)).expect("the connection is closed");
    }
}

#[test]
fn an_address_that_does_not_accept_is_given_up() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
    use std::os::fd::AsRawFd;
    let outbound = Outbound::with("backend_connect_timeout=1");
    let mut requester = Requester::connect(&outbound, "proxy_1");
    let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let port = getsockname::<SockaddrIn>(listener.as_raw_fd()).unwrap().port();
    // Whoever connects now waits in the backlog; the next one's packets are not answered.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the backlog has no end");
    }
    requester.get("a", &format!("http://127.0.0.1:{port}/"));
    let answer = requester.next_real("a");
    assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "connection-timeout"));
}

#[test]
fn heads_with_hundreds_of_channels_pass_and_those_beyond_the_limits_do_not() {
    let outbound = Outbound::with("backend_max_headers=300\nbackend_max_headers_size=100000");
    let mut requester = Requester::connect(&outbound, "proxy_1");
    let lines = |count: usize, value: usize| {
        let line = format!("Grip-Channel: {}\r\n", "c".repeat(value));
        format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", line.repeat(count))
    };
    for (head, headers) in [(lines(250, 10), 251), (lines(1, 90_000), 2)] {
        let uri = backend(move |_, mut peer| {
            peer.request();
            // In two pieces, since large heads come in pieces.
            let (first, second) = head.as_bytes().split_at(head.len() / 2);
            peer.send(first);
            std::thread::sleep(Duration::from_millis(20));
            peer.send(second);
            peer.rest();
        });
        requester.get("a", &uri);
        assert_eq!(requester.next_real("a").headers.len(), headers);
    }
    for (head, reason) in [(lines(300, 10), "too many headers"), (lines(1, 100_000), "limit of 100000 bytes")] {
        let uri = backend(move |_, mut peer| {
            peer.request();
            peer.send(head.as_bytes());
            peer.rest();
        });
        requester.get("a", &uri);
        let answer = requester.next_real("a");
        assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "undefined-condition"));
        assert!(answer.reason.contains(reason), "{}", answer.reason);
    }
}

#[test]
fn the_connections_of_a_requester_that_left_are_closed_at_once() {
    let outbound = Outbound::start();
    for router_resp in [false, true] {
        let mut requester = Requester::connect(&outbound, "proxy_1");
        let (closed, end) = std::sync::mpsc::channel();
        let (asked, is_asked) = std::sync::mpsc::channel();
        let uri = backend(move |_, mut peer| {
            peer.request();
            asked.send(()).unwrap();
            peer.rest();
            closed.send(()).unwrap();
        });
        requester.ask("a", Packet { uri: Some(uri.as_bytes()), router_resp, ..Packet::default() });
        is_asked.recv_timeout(Duration::from_secs(10)).expect("the request comes");
        // From now on both know each other.
        assert_eq!(requester.next("a").kind, Kind::KeepAlive);
        drop(requester);
        end.recv_timeout(Duration::from_secs(10)).expect("the connection is closed");
    }
}

#[test]
fn a_cancel_reaches_a_backend_that_does_not_read() {
    let (_outbound, mut requester) = start();
    let (closed, end) = std::sync::mpsc::channel();
    let uri = backend(move |_, mut peer| {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd;
        peer.request();
        // A reset is told whatever was asked for.
        let hung_up = PollFlags::POLLHUP;
        let noticed = poll(&mut [PollFd::new(peer.0.as_fd(), hung_up)], PollTimeout::from(20_000u16)).unwrap();
        closed.send(noticed).unwrap();
    });
    let packet = Packet { method: Some(b"POST"), uri: Some(uri.as_bytes()), more: true, ..Packet::default() };
    requester.ask("a", packet);
    let (mut seq, mut sent) = (1, 0);
    let piece = vec![b'x'; 50_000];
    // Until nothing more is granted: all buffers on the way are full.
    let mut credits = 0;
    while let Some(answer) = requester.next_within("a", Duration::from_millis(500)) {
        credits += answer.credits.unwrap_or(0) as usize;
        while credits >= piece.len() {
            let ids = Ids::One(b"a", Some(seq));
            requester.follow(Packet { ids, body: &piece, more: true, ..Packet::default() });
            (seq, sent, credits) = (seq + 1, sent + piece.len(), credits - piece.len());
        }
    }
    assert!(sent > 0);
    requester.follow(Packet { ids: Ids::One(b"a", Some(seq)), kind: Kind::Cancel, ..Packet::default() });
    assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(1), "the backend sees the end without reading");
}

#[test]
fn no_connection_is_kept_where_none_may_be() {
    let outbound = Outbound::with("backend_keepalive_per_target=0");
    let mut requester = Requester::connect(&outbound, "proxy_1");
    let uri = backend(counting);
    for (id, body) in [("a", b"0"), ("b", b"1")] {
        requester.get(id, &uri);
        assert_eq!(requester.response(id).1, body);
    }
}

#[test]
fn a_new_connection_that_dies_is_an_error_and_not_tried_again() {
    let (_outbound, mut requester) = start();
    let uri = backend(|_, mut peer| drop(peer.request()));
    requester.get("a", &uri);
    let answer = requester.next_real("a");
    assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "undefined-condition"));
}

#[test]
fn interim_responses_go_to_a_requester_that_takes_them() {
    let (_outbound, mut requester) = start();
    let uri = backend(|_, mut peer| {
        while peer.request().is_some() {
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            peer.send(OK);
        }
    });
    let ext = zhttp::Ext { interim: true, ..zhttp::Ext::default() };
    requester.ask("a", Packet { ext, uri: Some(uri.as_bytes()), ..Packet::default() });
    let codes = [100, 103].map(|code| (Kind::KeepAlive, Some(code)));
    let mut answers = std::iter::repeat_with(|| requester.next("a")).filter(|answer| answer.code.is_some());
    for expected in codes {
        let answer = answers.next().unwrap();
        assert_eq!((answer.kind, answer.code), expected);
        assert_eq!(answer.headers.len(), usize::from(answer.code == Some(103)));
    }
    let last = answers.next().unwrap();
    assert_eq!((last.kind, last.code, &last.body[..]), (Kind::Data, Some(200), &b"ok"[..]));
    drop(answers);
    // Others see the response alone.
    requester.get("b", &uri);
    assert_eq!(requester.response("b"), (200, b"ok".to_vec()));
}

#[test]
fn interim_responses_and_bodiless_ones_are_understood() {
    let (_outbound, mut requester) = start();
    let uri = backend(|_, mut peer| {
        while let Some(request) = peer.request() {
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            match request.split(' ').next() {
                Some("HEAD") => peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
                _ => peer.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
            }
        }
    });
    for (id, method, code) in [("a", &b"HEAD"[..], 200), ("b", b"GET", 304), ("c", b"HEAD", 200)] {
        requester.ask(id, Packet { method: Some(method), uri: Some(uri.as_bytes()), ..Packet::default() });
        let answer = requester.next_real(id);
        assert_eq!((answer.code, answer.more), (Some(code), false));
        assert_eq!(answer.headers, [("Content-Length".to_string(), b"1000".to_vec())]);
    }
}

#[test]
fn an_answer_before_the_end_of_the_upload_is_passed_on_and_the_connection_not_used_again() {
    let (_outbound, mut requester) = start();
    let uri = backend(|number, mut peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\n{number}").as_bytes());
        peer.rest();
    });
    for (id, body) in [("a", b"0"), ("b", b"1")] {
        let packet = Packet { method: Some(b"POST"), uri: Some(uri.as_bytes()), more: true, ..Packet::default() };
        requester.ask(id, packet);
        assert_eq!(requester.response(id), (403, body.to_vec()));
    }
}

#[test]
fn a_body_flows_no_faster_than_the_requester_grants() {
    let (_outbound, mut requester) = start();
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    const SIZE: usize = 64 << 20;
    let uri = backend(move |_, mut peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..SIZE / piece.len() {
            peer.send(&piece);
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    requester.ask("a", Packet { uri: Some(uri.as_bytes()), credits: Some(50_000), ..Packet::default() });
    let (mut received, mut seq, mut credits) = (0, 1, 50_000);
    loop {
        let answer = requester.next_real("a");
        received += answer.body.len();
        credits -= answer.body.len();
        if !answer.more {
            break;
        }
        if credits == 0 && received <= 50_000 {
            // The backend is held up by the sockets between, which have room for some megabytes.
            assert!(requester.next_within("a", Duration::from_millis(300)).is_none());
            assert!(written.load(Ordering::SeqCst) < SIZE / 2);
        }
        if credits < 500_000 {
            credits += 1_000_000;
            let packet = Packet {
                ids: Ids::One(b"a", Some(seq)),
                kind: Kind::Credit,
                credits: Some(1_000_000),
                ..Packet::default()
            };
            requester.follow(packet);
            seq += 1;
        }
    }
    assert_eq!(received, SIZE);
}

#[test]
fn a_cut_body_ends_with_an_error() {
    let (_outbound, mut requester) = start();
    for head in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}");
        let uri = backend(move |_, mut peer| {
            peer.request();
            peer.send(answer.as_bytes());
        });
        requester.get(head, &uri);
        let mut answer = requester.next_real(head);
        while answer.kind == Kind::Data {
            assert!(answer.more, "a cut body looks complete");
            answer = requester.next_real(head);
        }
        assert_eq!((answer.kind, &*answer.condition), (Kind::Error, "undefined-condition"));
    }
}

#[test]
fn limits_of_the_requester_are_kept() {
    let (_outbound, mut requester) = start();
    let uri = backend(|_, mut peer| {
        peer.request();
        peer.send(OK);
    });
    requester.ask("a", Packet { uri: Some(uri.as_bytes()), max_size: Some(1), ..Packet::default() });
    assert_eq!(requester.next_real("a").condition, "max-size-exceeded");
    requester.ask("b", Packet { uri: Some(uri.as_bytes()), max_size: Some(2), ..Packet::default() });
    assert_eq!(requester.response("b").1, b"ok");
    let silent = backend(|_, mut peer| drop(peer.rest()));
    requester.ask("c", Packet { uri: Some(silent.as_bytes()), timeout: Some(200), ..Packet::default() });
    assert_eq!(requester.next_real("c").condition, "session-timeout");
}

#[test]
fn user_data_comes_back_in_every_packet() {
    let (_outbound, mut requester) = start();
    let silent = backend(|_, mut peer| drop(peer.rest()));
    let item = tnetstring::Item { kind: tnetstring::Kind::Bytes, payload: b"mine" };
    requester.ask("a", Packet { uri: Some(silent.as_bytes()), user_data: Some(item), ..Packet::default() });
    let answer = requester.next("a");
    assert_eq!((answer.kind, &answer.user_data[..]), (Kind::KeepAlive, &b"mine"[..]));
    requester.ask("b", Packet { uri: Some(b"nonsense"), user_data: Some(item), ..Packet::default() });
    let answer = requester.next("b");
    assert_eq!((answer.kind, &answer.user_data[..], answer.seq), (Kind::Error, &b"mine"[..], Some(0)));
}

#[test]
fn one_packet_can_cancel_many_sessions() {
    let (_outbound, mut requester) = start();
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let silent = backend(move |_, mut peer| {
        count.fetch_add(1, Ordering::SeqCst);
        peer.rest();
        count.fetch_sub(1, Ordering::SeqCst);
    });
    for id in ["a", "b", "c"] {
        requester.get(id, &silent);
        assert_eq!(requester.next(id).kind, Kind::KeepAlive);
    }
    assert_eq!(open.load(Ordering::SeqCst), 3);
    let ids: &[(&[u8], u32)] = &[(b"a", 1), (b"b", 1)];
    requester.follow(Packet { ids: Ids::Many(ids), kind: Kind::Cancel, ..Packet::default() });
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while open.load(Ordering::SeqCst) != 1 && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(open.load(Ordering::SeqCst), 1);
}

#[test]
fn ipv6_addresses_and_names_are_reached() {
    let (_outbound, mut requester) = start();
    let uri = backend_at("[::1]:0", counting);
    requester.get("a", &uri);
    assert_eq!(requester.response("a").0, 200);
    let uri = backend(counting).replace("127.0.0.1", "localhost");
    requester.get("b", &uri);
    assert_eq!(requester.response("b").0, 200);
    requester.get("c", "http://name.invalid/");
    assert_eq!(requester.next_real("c").condition, "remote-connection-failed");
}

#[test]
fn term_cancels_the_sessions_and_ends_in_order() {
    let (mut outbound, mut requester) = start();
    let silent = backend(|_, mut peer| drop(peer.rest()));
    for id in ["a", "b"] {
        requester.get(id, &silent);
        assert_eq!(requester.next(id).kind, Kind::KeepAlive);
    }
    assert!(outbound.stop().success());
    for id in ["a", "b"] {
        let answer = requester.next(id);
        assert_eq!((answer.kind, answer.seq), (Kind::Cancel, Some(1)));
    }
}

#[test]
fn headers_travel_in_order_and_unchanged() {
    let (_outbound, mut requester) = start();
    let uri = backend(|_, mut peer| {
        let request = peer.request().unwrap_or_default();
        let length = request.len();
        peer.send(
            format!("HTTP/1.1 200 OK\r\nx-b: 1\r\nX-A: 2\r\nx-b: 3\r\nContent-Length: {length}\r\n\r\n{request}")
                .as_bytes(),
        );
    });
    let headers: &[(&[u8], &[u8])] =
        &[(b"x-Z", b"1"), (b"Host", b"no"), (b"A", b""), (b"x-Z", b"2"), (b"Connection", b"close")];
    let ext = zhttp::Ext { coded: true, ..zhttp::Ext::default() };
    let headers = Headers::Pairs(headers);
    requester.ask("a", Packet { uri: Some(uri.as_bytes()), headers, ext, ..Packet::default() });
    let answer = requester.next_real("a");
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-b", "X-A", "x-b", "Content-Length"]);
    let host = uri.trim_start_matches("http://");
    let expected = format!("GET / HTTP/1.1\r\nHost: {host}\r\nx-Z: 1\r\nA: \r\nx-Z: 2\r\n\r\n");
    assert_eq!(String::from_utf8_lossy(&answer.body), expected);
}

#[test]
fn a_requester_that_does_not_read_slows_the_backend_down_and_loses_nothing() {
    let outbound = Outbound::with("backend_queue_bytes=1000000");
    for router_resp in [false, true] {
        slows_down_and_loses_nothing(Requester::connect(&outbound, &format!("proxy_{router_resp}")), router_resp);
    }
}

fn slows_down_and_loses_nothing(mut requester: Requester, router_resp: bool) {
    const SIZE: usize = 50 << 20;
    // An answer shows that the way back is there; until then only so much is kept for a requester.
    let uri = backend(|_, mut peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    requester.ask("first", Packet { uri: Some(uri.as_bytes()), credits: Some(1000), router_resp, ..Packet::default() });
    requester.next("first");
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let uri = backend(move |_, mut peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..SIZE / piece.len() {
            peer.send(&piece);
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let packet = Packet { uri: Some(uri.as_bytes()), credits: Some(SIZE as u32), router_resp, ..Packet::default() };
    requester.ask("a", packet);
    // Until nothing moves any more: the queue towards the requester is full.
    let mut last = usize::MAX;
    while last != written.load(Ordering::SeqCst) || last == 0 {
        last = written.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(last < SIZE * 2 / 3, "{last} bytes were taken from the backend");
    let (mut received, mut seq) = (0, 0);
    while received < SIZE {
        let answer = requester.next("a");
        assert_eq!(answer.seq, Some(seq));
        seq += 1;
        received += answer.body.len();
        assert!(matches!(answer.kind, Kind::Data | Kind::KeepAlive), "{answer:?}");
    }
    assert_eq!(received, SIZE);
}
