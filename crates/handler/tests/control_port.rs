// SPDX-License-Identifier: AGPL-3.0-or-later
//! The HTTP control port over real connections, with a worker that does what each test wants.
#![allow(missing_docs)]

mod port;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use handler::deliver::fate::Fate;
use handler::publish::http::Limits;
use handler::publish::http::authorization::Gate;
use handler::publish::submission::{Output, Work};
use handler::subscribe::counts::{Counts, Listing, Page};
use settings::keys::Key;

use port::{LONG, Port, limits};

const EMPTY: &str = "POST /publish/ HTTP/1.1\r\nContent-Length: 12\r\n\r\n{\"items\":[]}";

fn port(limits: Limits) -> Port {
    Port::behind(Gate::default(), limits)
}

/// What comes until the end of the connection, which must not be a reset.
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn status(stream: TcpStream) -> String {
    answer(stream).split(' ').nth(1).unwrap_or("nothing").to_string()
}

#[test]
fn success_is_told_when_the_work_is_done_and_not_before() {
    let port = port(limits());
    let mut client = port.send(EMPTY);
    let (work, receipt) = port.next().begin().unwrap();
    assert_eq!(work, Work::Publish(Vec::new()));
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(client.read(&mut [0]).is_err());
    client.set_read_timeout(Some(LONG)).unwrap();
    receipt.complete();
    assert!(answer(client).ends_with("\r\n\r\nPublished\n"));
}

#[test]
fn a_busy_worker_costs_publishers_a_503_and_health_checks_nothing() {
    let port = port(Limits { wait: Duration::from_millis(200), ..limits() });
    let waiting: Vec<_> = (0..10).map(|_| port.send(EMPTY)).collect();
    let submissions: Vec<_> = waiting.iter().map(|_| port.next()).collect();
    for (path, text) in [("/", "Pushpin API\n"), ("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        assert!(answer(port.send(&format!("GET {path} HTTP/1.0\r\n\r\n"))).ends_with(text), "{path}");
    }
    // No more than ten may wait.
    let begin = Instant::now();
    assert_eq!(status(port.send(EMPTY)), "503");
    assert!(begin.elapsed() < Duration::from_millis(200));
    for client in waiting {
        let text = answer(client);
        assert!(
            text.starts_with("HTTP/1.1 503") && text.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"),
            "{text}"
        );
    }
    assert!(submissions.into_iter().all(|submission| submission.begin().is_none()), "they were told to try again");
}

#[test]
fn health_is_told_to_whoever_asks_and_only_if_asked() {
    let token = Key::Secret(b"token".to_vec());
    let port = Port::behind(Gate::new(None, None, Some(&token)).unwrap(), limits());
    assert_eq!(status(port.send("GET /channels HTTP/1.1\r\n\r\n")), "401");
    for path in ["/healthz", "/healthz/", "/readyz", "/readyz?verbose"] {
        let asked = |method: &str, more: &str| answer(port.send(&format!("{method} {path} HTTP/1.1\r\n{more}\r\n")));
        assert!(asked("GET", "Accept: text/html\r\n").starts_with("HTTP/1.1 200"), "{path}");
        for (method, more) in [("POST", "Content-Length: 0\r\n"), ("HEAD", ""), ("DELETE", "")] {
            let refused = asked(method, more);
            assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("\r\nAllow: GET\r\n"), "{refused}");
        }
    }
    assert_eq!(status(port.send("GET /healthz/x HTTP/1.1\r\n\r\n")), "404");
}

#[test]
fn work_that_was_begun_and_takes_too_long_is_not_called_undone() {
    let port = port(Limits { wait: Duration::from_millis(50), ..limits() });
    let client = port.send(EMPTY);
    let begun = port.next().begin();
    assert!(answer(client).contains("not everything may have been done"));
    drop(begun);
}

#[test]
fn the_oldest_of_too_many_idle_connections_go_and_no_publisher_waits_for_them() {
    for sent in ["", "POST /publish/ HT", "POST /publish/ HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"] {
        let port = port(limits());
        let idle: Vec<_> = (0..200).map(|_| port.send(sent)).collect();
        let client = port.send(EMPTY);
        port.next().begin().unwrap().1.complete();
        assert_eq!(status(client), "200", "{sent:?}");
        let closed = |stream: &&TcpStream| {
            stream.set_nonblocking(true).unwrap();
            let mut stream = *stream;
            !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        assert_eq!(idle[..100].iter().filter(closed).count(), 100, "{sent:?}");
        assert!(idle[101..].iter().filter(closed).count() <= 1, "{sent:?}");
    }
}

#[test]
fn halves_of_bodies_do_not_take_more_memory_than_is_allowed() {
    let port = port(limits());
    let half = format!("POST /publish/ HTTP/1.1\r\nContent-Length: 999999\r\n\r\n{}", "x".repeat(400_000));
    let halves: Vec<_> = (0..5).map(|_| port.send(&half)).collect();
    let client = port.send(EMPTY);
    port.next().begin().unwrap().1.complete();
    assert_eq!(status(client), "200");
    for stream in &halves[..3] {
        let mut stream = stream;
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)), "it was closed without an answer");
    }
}

#[test]
fn a_head_and_a_body_have_so_much_time() {
    let short = Duration::from_millis(100);
    let port = port(Limits { head_time: short, body_time: short, ..limits() });
    assert_eq!(answer(port.send("POST /publish/ HT")), "");
    assert_eq!(status(port.send("POST /publish/ HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")), "408");
}

#[test]
fn an_early_answer_reaches_a_client_that_goes_on_sending() {
    let port = port(limits());
    let large = "x".repeat(500_000);
    for (head, code) in [
        ("POST /publish/ HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", "400"),
        ("POST /nowhere HTTP/1.1\r\nContent-Length: 600000\r\n\r\n", "404"),
        ("POST /publish/ HTTP/1.1\r\nContent-Length: many\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        assert_eq!(status(port.send(&format!("{head}{large}"))), code, "{head}");
    }
}

#[test]
fn what_can_not_be_sent_to_clients_is_refused_with_the_item_and_the_field() {
    let port = port(limits());
    let body = r#"{"items":[{"channel":"c","http-stream":{"content":"x"}},
        {"channel":"c","http-response":{"headers":{"X":"a\r\nb"},"body":"x"}}]}"#;
    let text = answer(port.send(&format!("POST /publish/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())));
    let expected = "items[1]: 'http-response' cannot be sent: the value of header 'X' has a control character\n";
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with(expected), "{text}");
    assert!(port.submissions.try_recv().is_err());
}

#[test]
fn only_who_has_a_token_gets_work_done() {
    let token = settings::keys::Key::Secret(b"good".to_vec());
    let port = Port::behind(Gate::new(None, None, Some(&token)).unwrap(), limits());
    let with = |path: &str, headers: &str| {
        format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: 12\r\n\r\n{{\"items\":[]}}")
    };
    let good = "Authorization: Bearer good\r\n";
    for path in ["/publish/", "/recover/"] {
        let refused = answer(port.send(&with(path, ""))).to_ascii_lowercase();
        assert!(
            refused.starts_with("http/1.1 401") && refused.contains("\r\nwww-authenticate: bearer\r\n"),
            "{refused}"
        );
        let refused = answer(port.send(&with(path, "Authorization: Bearer bad\r\n"))).to_ascii_lowercase();
        assert!(refused.contains("\r\nwww-authenticate: bearer error=\"invalid_token\"\r\n"), "{refused}");
        assert_eq!(status(port.send(&with(path, &format!("{good}Authorization: Bearer bad\r\n")))), "401");
        let client = port.send(&with(path, good));
        // The first work that comes: nobody else got any done.
        port.next().begin().unwrap().1.complete();
        assert_eq!(status(client), "200");
    }
    // Health checks need none.
    assert_eq!(status(port.send("GET / HTTP/1.1\r\n\r\n")), "200");
}

/// One answer with a length; the connection may stay.
fn one_answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let head = text.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn with_headers(headers: &str, body: &str) -> String {
    format!("POST /publish/ HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn who_asks_for_it_stays_connected() {
    let port = port(limits());
    let stays = with_headers("Connection: x, Keep-Alive\r\n", "{\"items\":[]}");
    let mut client = port.send(&stays);
    for _ in 0..3 {
        port.next().begin().unwrap().1.complete();
        let text = one_answer(&mut client);
        assert!(text.contains("\r\nConnection: keep-alive\r\n") && text.ends_with("Published\n"), "{text}");
        client.write_all(stays.as_bytes()).unwrap();
    }
    port.next().begin().unwrap().1.complete();
    one_answer(&mut client);
    // Several at once are answered in their order, and what is wrong does not end the connection.
    let wrong = with_headers("Connection: keep-alive\r\n", "{}");
    let nowhere = "GET /nowhere HTTP/1.1\r\nConnection: keep-alive\r\n\r\n";
    client.write_all(format!("{wrong}{nowhere}{EMPTY}").as_bytes()).unwrap();
    assert!(one_answer(&mut client).starts_with("HTTP/1.1 400 "));
    assert!(one_answer(&mut client).starts_with("HTTP/1.1 404 "));
    port.next().begin().unwrap().1.complete();
    // The last one has not asked to stay. Clients of HTTP/1.0 may ask as well.
    assert!(answer(client).contains("\r\nConnection: close\r\n"));
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut client = port.send(old);
    let text = one_answer(&mut client);
    assert!(text.starts_with("HTTP/1.0 200 ") && text.contains("\r\nConnection: keep-alive\r\n"), "{text}");
    client.write_all(old.as_bytes()).unwrap();
    one_answer(&mut client);
}

#[test]
fn a_connection_whose_request_was_not_read_does_not_stay() {
    let port = port(limits());
    let head = "POST /nowhere HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
    let text = answer(port.send(head));
    assert!(text.starts_with("HTTP/1.1 404 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
}

#[test]
fn who_stays_has_so_much_time_for_the_next_request() {
    let port = port(Limits { idle_time: Duration::from_millis(100), ..limits() });
    for more in ["", "GET / HT"] {
        let mut client = port.send("GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n");
        one_answer(&mut client);
        client.write_all(more.as_bytes()).unwrap();
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "{more:?}");
    }
}

const TWO: Counts = Counts { http_response: 0, http_stream: 2, ws_message: 1 };

/// Answers a request by what came of the work that it leads to.
fn told(port: &Port, request: &str, work: &Work, output: Output) -> String {
    let client = port.send(request);
    let (begun, receipt) = port.next().begin().unwrap();
    assert_eq!(begun, *work, "{request}");
    receipt.answer(output);
    answer(client).split_once("\r\n\r\n").unwrap().1.to_string()
}

#[test]
fn who_asks_for_a_report_hears_who_got_each_item() {
    let port = port(limits());
    let item = |channel: &str| format!("{{\"channel\":\"{channel}\",\"http-stream\":{{\"content\":\"x\"}}}}");
    let body = |more: &str| format!("{{\"items\":[{},{},{}]{more}}}", item("a"), item("b"), item("c"));
    let in_query = with_headers("", &body("")).replace("/publish/", "/publish/?report=1");
    for request in [in_query, with_headers("", &body(",\"report\":true"))] {
        let client = port.send(&request);
        let (_, mut receipt) = port.next().begin().unwrap();
        [Fate::Published(TWO), Fate::Repeated, Fate::Waiting].into_iter().for_each(|fate| receipt.note(fate));
        receipt.complete();
        let text = answer(client);
        assert!(text.contains("Content-Type: application/json\r\n"), "{text}");
        let told: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let receivers = serde_json::json!({"http-response": 0, "http-stream": 2, "ws-message": 1});
        let expected = serde_json::json!({"message": "Published", "items": [
            {"channel": "a", "result": "published", "receivers": receivers},
            {"channel": "b", "result": "repeated"},
            {"channel": "c", "result": "waiting"},
        ]});
        assert_eq!(told, expected);
    }
    // Other queries are unknown, as they are to Pushpin.
    assert_eq!(status(port.send(&EMPTY.replace("/publish/", "/publish?report=2"))), "404");
    assert_eq!(status(port.send(&EMPTY.replace("/publish/", "/recover?report=1"))), "404");
}

#[test]
fn who_is_subscribed_to_a_channel_is_told() {
    let port = port(limits());
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n\r\n");
    let one = told(
        &port,
        &get("/channels/a%2fb%20c"),
        &Work::Count("a/b c".into(), None),
        Output::Counted(Some((TWO, None))),
    );
    let counts = r#""subscribers":{"http-response":0,"http-stream":2,"ws-message":1}"#;
    assert_eq!(one, format!("{{\"channel\":\"a/b c\",{counts}}}\n"));
    let none = told(&port, &get("/channels/x"), &Work::Count("x".into(), None), Output::Counted(None));
    assert_eq!(none, "Nobody is subscribed to this channel.\n");

    let page = |more| Output::Listed(Page { channels: vec![("a".into(), TWO)], more });
    let all = Work::List(Listing { limit: 100, ..Listing::default() });
    assert_eq!(
        told(&port, &get("/channels"), &all, page(false)),
        format!("{{\"channels\":[{{\"channel\":\"a\",{counts}}}]}}\n")
    );
    let some = Work::List(Listing { prefix: "a+".into(), after: Some("a+1".into()), limit: 1, ..Listing::default() });
    let text = told(&port, &get("/channels?prefix=a%2B&after=a%2B1&limit=1"), &some, page(true));
    assert!(text.ends_with(",\"next\":\"a\"}\n"), "{text}");
    for target in [
        "/channels?limit=0",
        "/channels?limit=1001",
        "/channels?limit=x",
        "/channels?x=1",
        "/channels?order=names",
        "/channels?order=subscribers&after=a",
        "/channels?prefix=%ff",
    ] {
        assert_eq!(status(port.send(&get(target))), "400", "{target}");
    }
    assert_eq!(status(port.send(&get("/channels/%ff"))), "400");
    let text = answer(port.send("POST /channels HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));
    assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("\r\nAllow: GET\r\n"), "{text}");
    assert_eq!(status(port.send(&get("/channelsx"))), "404");
}

#[test]
fn who_is_subscribed_is_told_to_those_with_a_token() {
    let token = settings::keys::Key::Secret(b"good".to_vec());
    let port = Port::behind(Gate::new(None, None, Some(&token)).unwrap(), limits());
    for target in ["/channels", "/channels/a"] {
        assert_eq!(status(port.send(&format!("GET {target} HTTP/1.1\r\n\r\n"))), "401");
    }
    let request = "GET /channels/a HTTP/1.1\r\nAuthorization: Bearer good\r\n\r\n";
    told(&port, request, &Work::Count("a".into(), None), Output::Counted(Some((TWO, None))));
}
