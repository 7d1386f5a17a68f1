// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that share a request, beside a backend that counts.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::Suite;
use pushpin_tests::{publish, until};

/// What holds a backend's answers back until a test lets them go.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A backend that writes the first of these, and the rest when the gate is open, and how many requests it has got.
fn counting(
    gate: &Gate,
    begin: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    end: impl Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> (Origin, Arc<AtomicUsize>) {
    let (gate, count) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let origin = Origin::start(move |request, stream| {
        if request.target == "/warm" {
            return respond(stream, "200 OK", "", b"");
        }
        counted.fetch_add(1, Ordering::SeqCst);
        begin(request, stream)?;
        gate.wait();
        end(request, stream)
    });
    (origin, count)
}

fn sharing(origin: &Origin, more: &str) -> Suite {
    let mut suite = Suite::prepare(&format!("*{more} 127.0.0.1:{}", origin.port), "[handler]\nshare_all=true\n");
    suite.launch();
    // As long as the proxy does not know of a handler, nothing is shared.
    until("requests are shared", || {
        let mut clients: Vec<Client> = (0..20).map(|_| ask(&suite, "GET", "/warm", "")).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.response().unwrap().head.status, 200));
        let logs = suite.logs();
        let mut groups: Vec<&str> =
            logs.split(" shared=0x").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
        groups.sort_unstable();
        groups.windows(2).any(|two| two[0] == two[1])
    });
    suite
}

/// Sends a request on a connection of its own.
fn ask(suite: &Suite, method: &str, path: &str, headers: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: example.com\r\n{headers}\r\n").as_bytes()).unwrap();
    client
}

#[test]
fn fifty_clients_share_one_request_and_each_gets_all_of_a_large_response() {
    let gate = Gate::default();
    let body: Arc<Vec<u8>> = Arc::new((0..300_000u32).flat_map(|number| number.to_be_bytes()).collect());
    let (first, rest) = (body.clone(), body.clone());
    let begin = move |_: &Request, stream: &mut TcpStream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", first.len())?;
        stream.write_all(&first[..1000])
    };
    let (origin, count) = counting(&gate, begin, move |_, stream| stream.write_all(&rest[1000..]));
    let suite = sharing(&origin, "");
    let mut clients: Vec<Client> = (0..50).map(|n| ask(&suite, "GET", "/a", &format!("User-Agent: {n}\r\n"))).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.head().unwrap().status, 200));
    clients.remove(7).close();
    gate.open();
    // The first is slow: it is read last.
    for client in clients.iter_mut().rev() {
        let mut got = Vec::new();
        while got.len() < body.len() {
            let some = client.some(body.len() - got.len()).unwrap();
            assert!(!some.is_empty(), "{} bytes", got.len());
            got.extend_from_slice(&some);
        }
        assert!(got == *body);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // What was shared is over: who asks now is asked for.
    assert_eq!(ask(&suite, "GET", "/a", "").response().unwrap().body.len(), body.len());
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn clients_with_other_cookies_methods_or_bodies_have_requests_of_their_own() {
    let gate = Gate::default();
    let begin = |_: &Request, stream: &mut TcpStream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n");
    let (origin, count) = counting(&gate, begin, |request, stream| {
        let cookie = request.header("Cookie").unwrap_or("-").to_string();
        stream.write_all(if request.method == "HEAD" { b"" } else { cookie.as_bytes() })
    });
    let suite = sharing(&origin, "");
    let cookie = |cookie| (ask(&suite, "GET", "/c", &format!("Cookie: {cookie}\r\n")), cookie);
    let mut clients: Vec<(Client, &str)> = ["a", "b", "a", "b", "a"].into_iter().map(cookie).collect();
    let post = |_| (ask(&suite, "POST", "/c", "Content-Length: 0\r\n"), "-");
    clients.extend((0..2).map(post));
    let head = |_| ask(&suite, "HEAD", "/c", "");
    let mut heads: Vec<Client> = (0..3).map(head).collect();
    clients.iter_mut().for_each(|(client, _)| assert_eq!(client.head().unwrap().status, 200));
    heads.iter_mut().for_each(|client| assert_eq!(client.head().unwrap().header("Content-Length"), Some("1")));
    gate.open();
    for (client, cookie) in &mut clients {
        assert_eq!(client.some(1).unwrap(), cookie.as_bytes());
    }
    // A response to HEAD is over with its head, so they may have come one after the other.
    let requests = count.load(Ordering::SeqCst);
    assert!((5..=7).contains(&requests), "{requests}");
}

#[test]
fn a_response_that_sets_a_cookie_is_for_one_client() {
    let number = AtomicUsize::new(0);
    let gate = Gate::default();
    let (origin, count) = counting(
        &gate,
        |_, _| Ok(()),
        move |_, stream| {
            let session = number.fetch_add(1, Ordering::SeqCst).to_string();
            respond(stream, "200 OK", &format!("Set-Cookie: session={session}\r\n"), session.as_bytes())
        },
    );
    let suite = sharing(&origin, "");
    let mut clients: Vec<Client> = (0..10).map(|_| ask(&suite, "GET", "/a", "")).collect();
    gate.open();
    let mut sessions: Vec<String> = clients.iter_mut().map(|client| client.response().unwrap().text()).collect();
    sessions.sort();
    sessions.dedup();
    assert_eq!((sessions.len(), count.load(Ordering::SeqCst)), (10, 10));
}

#[test]
fn a_hold_is_shared_and_every_client_gets_what_is_published() {
    let gate = Gate::default();
    let (origin, count) = counting(
        &gate,
        |_, _| Ok(()),
        |request, stream| {
            let mode = request.target.trim_start_matches('/');
            respond(stream, "200 OK", &format!("Grip-Hold: {mode}\r\nGrip-Channel: {mode}\r\n"), b"hello\n")
        },
    );
    let suite = sharing(&origin, ",aco");
    let mut streams: Vec<Client> = (0..20).map(|_| ask(&suite, "GET", "/stream", "")).collect();
    let mut polls: Vec<Client> = (0..20).map(|_| ask(&suite, "GET", "/response", "")).collect();
    let mut script = ask(&suite, "GET", "/response?callback=cb", "");
    until("the backend has got its requests", || count.load(Ordering::SeqCst) >= 3);
    gate.open();
    for client in &mut streams {
        client.head().unwrap();
        client.expect("hello\n").unwrap();
    }
    publish::text(&suite, "stream", "one\n").unwrap();
    streams.iter_mut().for_each(|client| client.expect("one\n").unwrap());
    let message = r#"{"items":[{"channel":"response","formats":{"http-response":{"body":"two\n"}}}]}"#;
    until("all are held", || suite.logs().matches(" accept").count() == 41);
    publish::post(&suite, message).unwrap();
    for client in &mut polls {
        assert_eq!(client.response().unwrap().text(), "two\n");
    }
    assert!(script.response().unwrap().text().starts_with("/**/cb({\"code\": 200"));
    // Nobody sees when a request has come that is shared, so some may have come too late.
    let requests = count.load(Ordering::SeqCst);
    assert!((3..41).contains(&requests), "{requests} requests for 41 clients");
}

#[test]
fn a_response_that_breaks_off_does_so_for_all() {
    let gate = Gate::default();
    let begin =
        |_: &Request, stream: &mut TcpStream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    let (origin, count) = counting(&gate, begin, |_, _| Err(io::ErrorKind::Other.into()));
    let suite = sharing(&origin, "");
    let mut clients: Vec<Client> = (0..10).map(|_| ask(&suite, "GET", "/a", "")).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.head().unwrap().status, 200));
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest().unwrap(), b"half");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn polls_that_a_hint_sends_back_share_requests() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let version = Arc::new(AtomicUsize::new(0));
    let current = version.clone();
    let origin = Origin::start(move |request, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let version = current.load(Ordering::SeqCst);
        if request.header("If-Version").is_some_and(|has| has == version.to_string()) {
            respond(stream, "200 OK", "Grip-Hold: response\r\nGrip-Channel: c\r\n", b"nothing\n")
        } else {
            respond(stream, "200 OK", "", version.to_string().as_bytes())
        }
    });
    let suite = Suite::before(origin.port);
    for round in 0..3 {
        let asked = count.load(Ordering::SeqCst);
        let mut polls: Vec<Client> =
            (0..50).map(|_| ask(&suite, "GET", "/p", &format!("If-Version: {round}\r\n"))).collect();
        let mut other = ask(&suite, "GET", "/p", &format!("If-Version: {round}\r\nCookie: me\r\n"));
        until("all are held", || suite.logs().matches(" accept").count() == 51 * (round + 1));
        assert_eq!(count.load(Ordering::SeqCst), asked + 51);
        version.store(round + 1, Ordering::SeqCst);
        let hint = r#"{"items":[{"channel":"c","formats":{"http-response":{"action":"hint"}}}]}"#;
        publish::post(&suite, hint).unwrap();
        for client in polls.iter_mut().chain([&mut other]) {
            assert_eq!(client.response().unwrap().text(), (round + 1).to_string());
        }
        // Some may be given back only after the others have been answered, but not each of them.
        let again = count.load(Ordering::SeqCst) - asked - 51;
        assert!((2..51).contains(&again), "{again} requests for 51 polls");
    }
}
