// SPDX-License-Identifier: AGPL-3.0-or-later
//! The page for operators, as far as no browser is needed (tests/node/dashboard.mjs has one).

use std::io;

use pushpin_tests::client::{Client, Response, get};
use pushpin_tests::suite::{Suite, free_ports};
use pushpin_tests::until;
use serde_json::Value;

/// A suite with a dashboard, and its port.
fn start(settings: &str) -> (Suite, u16) {
    let [port] = free_ports();
    let mut suite = Suite::prepare("* test", &format!("{settings}\n[runner]\ndashboard_port={port}\n"));
    suite.launch();
    (suite, port)
}

fn ask(port: u16, request: &str, headers: &str, body: &str) -> io::Result<Client> {
    let mut client = Client::connect(port)?;
    let length = body.len();
    client.send(format!("{request} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes())?;
    Ok(client)
}

fn answer(port: u16, request: &str, headers: &str, body: &str) -> Response {
    ask(port, request, headers, body).unwrap().response().unwrap()
}

/// The next event of an answer that goes on.
fn event(client: &mut Client) -> Value {
    let chunk = String::from_utf8(client.chunk().unwrap()).unwrap();
    let data = chunk.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n"));
    serde_json::from_str(data.expect("one event is one chunk")).unwrap()
}

const LOCAL: &str = "Host: localhost\r\n";
const JSON: &str = "Host: localhost\r\nContent-Type: application/json\r\n";

#[test]
fn beyond_this_machine_it_needs_a_token() {
    let suite = Suite::prepare("* test", "[runner]\ndashboard_port=*:7998\n");
    let output = suite.run();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains("pushpin.conf:") && text.contains("dashboard_port: 0.0.0.0:7998 is reached from other"),
        "{text}"
    );
    assert!(suite.left_behind().is_empty());
    // With one it is not refused.
    let [port, metrics] = free_ports();
    let settings = format!("control_token=secret\nprometheus_port={metrics}\n[runner]\ndashboard_port=*:{port}\n");
    let mut suite = Suite::prepare("* test", &settings);
    suite.launch();
    assert_eq!(get(port, "/").unwrap().head.status, 200);
    assert_eq!(answer(port, "GET /events", LOCAL, "").head.status, 401);
    let cross = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nAuthorization: Bearer secret\r\n";
    assert_eq!(answer(port, "GET /events", cross, "").head.status, 403);
    let told = get(metrics, "/").unwrap().text();
    for sample in ["{status=\"401\"} 1", "{status=\"403\"} 1"] {
        assert!(told.contains(&format!("pushpin_dashboard_refusals_total{sample}\n")), "{told}");
    }
    let mut client = ask(port, "GET /events", "Host: suite.example\r\nAuthorization: Bearer secret\r\n", "").unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    suite.stop();
    assert!(suite.left_behind().is_empty());
}

#[test]
fn with_the_control_port_it_speaks_tls_beyond_this_machine() {
    use std::io::Write as _;
    let [port] = free_ports();
    let settings = format!("push_in_http_tls=true\ncontrol_token=secret\n[runner]\ndashboard_port=*:{port}\n");
    let mut suite = Suite::prepare("* test", &settings);
    crate::tls::certify(&suite, &format!("default_{}", suite.publish_port), "localhost");
    let certificate = crate::tls::certify(&suite, &format!("default_{port}"), "localhost");
    suite.launch();
    for (headers, expected) in [("", "HTTP/1.1 401"), ("Authorization: Bearer secret\r\n", "data: {")] {
        let mut client = crate::tls::connect(port, "localhost", &certificate).unwrap();
        client.write_all(format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).unwrap();
        crate::tls::read_until(&mut client, expected.as_bytes());
    }
    assert!(get(port, "/").is_err(), "who speaks no TLS is told nothing");
}

#[test]
fn it_tells_how_the_suite_is_also_after_the_handler_was_killed() {
    let (suite, port) = start("");
    let mut held = Client::connect(suite.port).unwrap();
    held.get("/stream?channel=%3Cb%3E").unwrap();
    held.head().unwrap();
    held.expect("[stream opened]\n").unwrap();
    let mut client = ask(port, "GET /events", LOCAL, "").unwrap();
    let head = client.head().unwrap();
    assert!(head.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    until("the channel is told", || event(&mut client)["channels"]["list"][0]["channel"] == "<b>");
    until("the hold is counted", || event(&mut client)["gauges"]["holds"]["stream"] == 1);
    let told = event(&mut client);
    assert_eq!(told["status"]["processes"].as_array().unwrap().len(), 4);
    assert!(told["usage"]["handler"]["memory_bytes"].as_u64().unwrap() > 100_000, "{told}");
    suite.kill("handler");
    until("the end is told", || {
        let processes = event(&mut client)["status"]["processes"].clone();
        processes.as_array().unwrap().iter().any(|process| process["last_end"]["reason"] == "SIGKILL")
    });
    until("the successor is asked", || event(&mut client)["channels"]["missing"].is_null());
}

#[test]
fn a_held_path_gets_what_is_published() {
    let (suite, port) = start("push_in_http_tls=false");
    let mut client = ask(port, "POST /hold", JSON, r#"{"path":"/stream","host":"h"}"#).unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    assert!(event(&mut client)["text"].as_str().unwrap().starts_with("GET /stream HTTP/1.1\r\nHost: h\r\n"));
    until("it is held", || event(&mut client)["text"].as_str().unwrap().contains("[stream opened]\n"));
    let items = r#"{"items":[{"channel":"test","formats":{"http-stream":{"content":"\u00e4\n"}}}]}"#;
    let published: Value = serde_json::from_slice(&answer(port, "POST /publish", JSON, items).body).unwrap();
    assert_eq!(published["items"][0]["receivers"]["http-stream"], 1);
    // A character for each byte.
    until("it has come", || event(&mut client)["text"].as_str().unwrap().contains("\u{c3}\u{a4}\n"));
    drop(suite);
}

#[test]
fn pages_of_others_are_told_nothing_and_nonsense_is_refused() {
    let (_suite, port) = start("");
    let statuses = [
        ("GET /events", "Host: other.example\r\n", "", 403),
        ("GET /events", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "", 403),
        ("POST /publish", "Host: localhost\r\nContent-Type: text/plain\r\n", "{}", 403),
        ("POST /publish", JSON, "{", 400),
        ("POST /publish", JSON, &"x".repeat(100_000), 413),
        ("POST /hold", JSON, "{}", 400),
        ("POST /hold", JSON, r#"{"path":"/\r\nX: y","host":"h"}"#, 400),
        ("GET /hold", LOCAL, "", 405),
        ("POST /", JSON, "", 405),
        ("GET /../pushpin.conf", LOCAL, "", 404),
        ("GET /channels", LOCAL, "", 404),
    ];
    for (request, headers, body, status) in statuses {
        assert_eq!(answer(port, request, headers, body).head.status, status, "{request} {headers}");
    }
}
