// SPDX-License-Identifier: AGPL-3.0-or-later
//! Backends that are asked again: next links, gone links, long-polls that are proxied anew.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use pushpin_tests::client::Client;
use pushpin_tests::origin::{Origin, Request, respond};
use pushpin_tests::suite::Suite;
use pushpin_tests::{publish, until};

fn hold(stream: &mut TcpStream, mode: &str, channel: &str, more: &str, body: &str) -> io::Result<()> {
    let headers = format!("Content-Type: text/plain\r\nGrip-Hold: {mode}\r\nGrip-Channel: {channel}\r\n{more}");
    respond(stream, "200 OK", &headers, body.as_bytes())
}

fn hint(suite: &Suite, channel: &str) {
    let formats = r#"{"http-response":{"action":"hint"},"http-stream":{"action":"hint"}}"#;
    publish::post(suite, &format!(r#"{{"items":[{{"channel":"{channel}","formats":{formats}}}]}}"#)).unwrap();
}

/// Publishes a message that follows another one, in all formats.
fn follow(publish_port: u16, channel: &str, id: u32, prev_id: u32) -> io::Result<()> {
    let formats = format!(r#"{{"http-response":{{"body":"{id}\n"}},"http-stream":{{"content":"{id}\n"}}}}"#);
    let item = format!(r#"{{"channel":"{channel}","id":"{id}","prev-id":"{prev_id}","formats":{formats}}}"#);
    let body = format!(r#"{{"items":[{item}]}}"#);
    let mut client = Client::connect(publish_port)?;
    let length = body.len();
    client.send(format!("POST /publish/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    assert_eq!(client.response()?.head.status, 200);
    Ok(())
}

fn open(suite: &Suite, path: &str) -> Client {
    let mut client = Client::connect(suite.port).unwrap();
    client.get(path).unwrap();
    client
}

#[test]
fn two_hundred_streams_in_the_same_place_ask_their_backend_once() {
    let pages = Arc::new(AtomicUsize::new(0));
    let counted = pages.clone();
    let origin = Origin::start(move |request, stream| {
        let last = request.header("Grip-Last").and_then(|value| value.strip_prefix("c; last-id=")).unwrap_or("0");
        let last: u32 = last.parse().unwrap_or_default();
        let page = if request.target == "/next" {
            counted.fetch_add(1, Ordering::SeqCst);
            last + 1
        } else {
            0
        };
        let more = "Grip-Link: </next>; rel=next; timeout=3\r\n";
        hold(stream, "stream", &format!("c; prev-id={page}"), more, &format!("{page}\n"))
    });
    let mut suite =
        Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), "[handler]\nupdate_on_first_subscription=false\n");
    suite.launch();
    let mut clients: Vec<Client> = (0..200).map(|_| open(&suite, "/s")).collect();
    for client in &mut clients {
        client.head().unwrap();
        client.expect("0\n1\n2\n").unwrap();
    }
    // Clients that came while the first page was fetched have one of their own, and are together with the others after it.
    let pages = pages.load(Ordering::SeqCst);
    assert!((2..=6).contains(&pages), "{pages} requests for two pages");
}

#[test]
fn what_is_published_between_a_backends_answer_and_the_hold_is_not_missed() {
    let port = Arc::new(AtomicU16::new(0));
    let publish_port = port.clone();
    let origin = Origin::start(move |request: &Request, stream| {
        let mode = if request.target.starts_with("/poll") { "response" } else { "stream" };
        let channel = request.target.rsplit('?').next().unwrap_or_default();
        let more = format!("Grip-Link: </next?{channel}>; rel=next\r\n");
        match request.header("Grip-Last") {
            // The client has 1, and this is all there is.
            None => {
                follow(publish_port.load(Ordering::SeqCst), channel, 2, 1)?;
                hold(stream, mode, &format!("{channel}; prev-id=1"), &more, "1\n")
            }
            Some(_) if mode == "response" => respond(stream, "200 OK", "", b"2\n"),
            Some(_) => hold(stream, mode, &format!("{channel}; prev-id=2"), &more, "2\n"),
        }
    });
    let suite = Suite::before(origin.port);
    port.store(suite.publish_port, Ordering::SeqCst);
    // Nobody was on the first channels, so that the handler does not know what was published; of the last it does.
    let mut other = Client::connect(suite.port).unwrap();
    let origin_of_other = Origin::start(|_, stream| hold(stream, "stream", "d,e", "", "hi\n"));
    let routes = format!("* 127.0.0.1:{}\n*,path_beg=/other 127.0.0.1:{}\n", origin.port, origin_of_other.port);
    fs::write(suite.path("routes"), routes).unwrap();
    suite.send("proxy", Signal::SIGHUP);
    until("the routes are read", || {
        other = open(&suite, "/other");
        other.head().is_ok_and(|head| head.header("Grip-Hold").is_none()) && other.expect("hi\n").is_ok()
    });
    for channel in ["b", "d"] {
        let mut poll = open(&suite, &format!("/poll?{channel}"));
        assert_eq!(poll.response().unwrap().text(), "2\n");
    }
    for channel in ["c", "e"] {
        let mut stream = open(&suite, &format!("/stream?{channel}"));
        stream.head().unwrap();
        stream.expect("1\n2\n").unwrap();
        follow(suite.publish_port, channel, 3, 2).unwrap();
        stream.expect("3\n").unwrap();
    }
}

#[test]
fn a_repeated_request_is_the_same_and_takes_the_route_as_it_is_then() {
    let old = Origin::start(|_, stream| hold(stream, "response", "c", "", "none\n"));
    let new = Origin::start(|request, stream| {
        let signed = request.header("Grip-Sig").is_some();
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let x = request.header("X-A").unwrap_or_default().to_string();
        let seen = format!("{} {} {x} {text} {signed}\n", request.method, request.target);
        hold(stream, "stream", "d", "", &seen)
    });
    let suite = Suite::before(old.port);
    let mut client = Client::connect(suite.port).unwrap();
    client.send(b"POST /p?q=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nContent-Length: 4\r\n\r\nbody").unwrap();
    until("it is held", || suite.logs().contains("subscribe http://h/p?q=1 channel=c"));
    fs::write(suite.path("routes"), format!("* 127.0.0.1:{}\n", new.port)).unwrap();
    suite.send("proxy", Signal::SIGHUP);
    until("the routes are read", || suite.logs().matches("routes loaded").count() == 2);
    hint(&suite, "c");
    client.head().unwrap();
    client.expect("POST /p?q=1 1 body true\n").unwrap();
    // What was a long-poll is a stream now.
    publish::text(&suite, "d", "live").unwrap();
    client.expect("live").unwrap();
}

#[test]
fn a_backend_is_told_when_a_client_has_gone() {
    let origin = Origin::start(|request, stream| match request.target.as_str() {
        "/gone" => respond(stream, "204 No Content", "", b""),
        _ => hold(stream, "stream", "c", "Grip-Link: </gone>; rel=gone\r\n", "hi\n"),
    });
    let suite = Suite::before(origin.port);
    let mut client = open(&suite, "/s");
    client.head().unwrap();
    client.expect("hi\n").unwrap();
    assert_eq!(origin.request().target, "/s");
    client.close();
    let request = origin.request();
    assert_eq!((request.method.as_str(), request.target.as_str(), request.body.len()), ("POST", "/gone", 0));
}

#[test]
fn streams_go_on_when_the_proxy_that_fetches_their_page_is_killed() {
    let (asked, is_asked) = std::sync::mpsc::channel();
    let first = AtomicBool::new(true);
    let origin = Origin::start(move |request, stream| {
        if request.target != "/next" {
            return hold(stream, "stream", "c", "Grip-Link: </next>; rel=next\r\n", "hi\n");
        }
        if first.swap(false, Ordering::SeqCst) {
            // The test may be over.
            let _ = asked.send(());
            // Until outbound, whose proxy is gone, closes.
            let _ = std::io::Read::read(stream, &mut [0]);
            return Ok(());
        }
        hold(stream, "stream", "c", "", "page\n")
    });
    let suite = Suite::before(origin.port);
    let mut client = open(&suite, "/s");
    client.head().unwrap();
    client.expect("hi\n").unwrap();
    hint(&suite, "c");
    is_asked.recv_timeout(pushpin_tests::PATIENCE).expect("the page is asked for");
    suite.kill("proxy");
    client.expect("page\n").unwrap();
    publish::text(&suite, "c", "live").unwrap();
    client.expect("live").unwrap();
}
