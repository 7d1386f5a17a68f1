// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that the handler is asked about, takes over, or gives back.

use std::time::Duration;

use tnetstring::Value;
use zhttp::{Ids, Kind, Packet};

use super::bench::*;

#[test]
fn a_hold_goes_to_the_handler_after_the_frontend_agrees() {
    let mut bench = Bench::new("*,id=r,prefix=p- origin:80,sub=s");
    bench.until_accept();
    let sent = bench.raw();
    let [Sent::Accept(call)] = &sent[..] else { panic!("{sent:?}") };
    let Some(arguments) = call.get(b"args") else { panic!() };
    let Some(Value::List(requests)) = arguments.get(b"requests") else { panic!() };
    let number = |key: &[u8]| match requests[0].get(key) {
        Some(Value::Int(number)) => *number,
        other => panic!("{other:?}"),
    };
    assert_eq!((number(b"in-seq"), number(b"out-seq"), number(b"out-credits")), (2, 1, 8192));
    let text = |value: &Value, key: &[u8]| match value.get(key) {
        Some(Value::Bytes(text)) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(requests[0].get(b"rid").unwrap(), b"sender"), "front");
    assert_eq!(text(arguments, b"route"), "r");
    assert_eq!(text(arguments, b"channel-prefix"), "p-");
    assert_eq!(arguments.get(b"channels"), Some(&Value::List(vec![Value::Bytes(b"s".to_vec())])));
    assert_eq!(text(arguments.get(b"response").unwrap(), b"body"), "timeout\n");
    assert_eq!(text(arguments.get(b"orig-request-data").unwrap(), b"uri"), "http://h/path");
    let Some(Value::Bytes(id)) = call.get(b"id") else { panic!() };
    bench.call_id = id.clone();
    bench.verdict("success", &value(&[("accepted", Value::Bool(true))]));
    assert_eq!(bench.sent(), [""; 0]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_client_that_adopts_and_has_not_heard_from_us_is_handed_over_without_being_asked() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { ext: zhttp::Ext { adopt: true, ..zhttp::Ext::default() }, ..Packet::default() });
    bench.sent();
    bench.origin(grip_response("stream", b"hello", false));
    let sent = bench.raw();
    let [Sent::Accept(call)] = &sent[..] else { panic!("{sent:?}") };
    let Some(Value::List(requests)) = call.get(b"args").and_then(|args| args.get(b"requests")) else { panic!() };
    assert_eq!((requests[0].get(b"in-seq"), requests[0].get(b"out-seq")), (Some(&Value::Int(1)), Some(&Value::Int(0))));
    // It must not hear from us while the handler decides, or its numbers would be wrong.
    bench.wait(Duration::from_millis(500));
    assert_eq!(bench.sent(), [""; 0]);
}

#[test]
fn a_client_that_adopts_but_has_heard_from_us_is_asked() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { ext: zhttp::Ext { adopt: true, ..zhttp::Ext::default() }, ..Packet::default() });
    bench.sent();
    bench.wait(Duration::from_millis(20));
    assert_eq!(bench.sent(), ["client: keep-alive"]);
    bench.origin(grip_response("stream", b"hello", false));
    assert_eq!(bench.sent(), ["client: handoff-start"]);
}

#[test]
fn a_response_of_the_handler_is_given_to_the_client() {
    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    assert_eq!(bench.sent(), ["accept"]);
    let response = value(&[
        ("code", Value::Int(200)),
        ("reason", Value::Bytes(b"OK".to_vec())),
        ("headers", Value::List(vec![])),
        ("body", Value::Bytes(b"now".to_vec())),
    ]);
    bench.verdict("success", &value(&[("response", response)]));
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 200 [3]"]);
}

#[test]
fn a_hold_that_is_refused_or_finds_no_handler_is_an_error() {
    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    bench.sent();
    bench.verdict("bad-format", &Value::Bytes(b"what".to_vec()));
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 502 [32]"]);

    let mut bench = Bench::new("*,debug origin:80");
    bench.until_accept();
    bench.sent();
    bench.verdict("bad-format", &Value::Bytes(b"what".to_vec()));
    let sent = bench.raw();
    let Some(Sent::Client(message)) = sent.last() else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().body, b"Failed to parse accept instructions: what\n");

    let mut bench = Bench::new("* origin:80");
    bench.recorded.no_handler = true;
    bench.until_accept();
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 500 [28]"]);

    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    bench.sent();
    bench.wait(Duration::from_secs(7));
    assert_eq!(bench.sent(), [""; 0]);
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 500 [28]"]);
}

#[test]
fn a_large_stream_reaches_the_client_first_and_is_held_afterwards() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { credits: Some(1_000_000), ..Packet::default() });
    bench.sent();
    bench.origin(grip_response("stream", &[b'x'; 90_000], true));
    assert_eq!(bench.sent(), [""; 0]);
    bench.origin(data(&[b'x'; 60_000], true));
    let sent = bench.raw();
    let [Sent::Client(message), ..] = &sent[..] else { panic!() };
    let packet = Packet::decode(message).unwrap();
    assert_eq!((packet.code, packet.body.len(), packet.more), (Some(200), 150_000, true));
    assert_eq!(packet.headers.iter().count(), 0);
    bench.origin(data(b"", false));
    assert_eq!(bench.sent(), ["client: handoff-start"]);
    bench.client(Packet { kind: Kind::HandoffProceed, ..Packet::default() });
    let sent = bench.raw();
    let [Sent::Accept(call)] = &sent[..] else { panic!() };
    assert_eq!(call.get(b"args").and_then(|args| args.get(b"response-sent")), Some(&Value::Bool(true)));
}

#[test]
fn a_large_stream_is_no_script_and_scripts_of_other_sites_may_read_it() {
    let mut bench = Bench::new("*,aco origin:80");
    let headers: &[(&[u8], &[u8])] = &[(b"Origin", b"https://s")];
    let uri = Some(&b"http://h/?callback=f"[..]);
    bench.request(Packet {
        uri,
        headers: zhttp::Headers::Pairs(headers),
        credits: Some(1_000_000),
        ..Packet::default()
    });
    bench.sent();
    bench.origin(grip_response("stream", &[b'x'; 150_000], true));
    let sent = bench.raw();
    let [Sent::Client(message), ..] = &sent[..] else { panic!() };
    let packet = Packet::decode(message).unwrap();
    assert_eq!(packet.body.len(), 150_000);
    let allowed = packet.headers.iter().find(|(name, _)| name == b"Access-Control-Allow-Origin");
    assert_eq!(allowed.map(|(_, value)| value), Some(&b"https://s"[..]));
}

#[test]
fn a_large_response_hold_is_an_error() {
    let mut bench = Bench::new("*,debug origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(grip_response("response", &[b'x'; 100_001], true));
    let sent = bench.raw();
    let [Sent::Origin(_), Sent::Client(message)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(Packet::decode(message).unwrap().body, b"GRIP instruct response too large from origin:80\n");
}

#[test]
fn a_hold_needs_the_whole_request_and_not_too_much_of_it() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { more: true, ..Packet::default() });
    bench.client(data(&[b'x'; 10_000], true));
    bench.sent();
    bench.origin(grip_response("response", b"", false));
    assert_eq!(bench.sent(), [""; 0]);
    bench.client(data(b"rest", false));
    assert_eq!(bench.sent(), ["client: handoff-start"]);

    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { more: true, ..Packet::default() });
    bench.client(data(&[b'x'; 100_001], false));
    bench.sent();
    bench.origin(grip_response("response", b"", false));
    assert_eq!(bench.sent(), ["client: data 400 [43]"]);
}

#[test]
fn no_grip_passes_instructions_through() {
    let mut bench = Bench::new("*,no_grip origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(grip_response("stream", b"x", false));
    let [Sent::Client(message)] = &bench.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().headers.get("Grip-Hold"), Some(&b"stream"[..]));
}

#[test]
fn a_handler_that_wants_it_is_asked_before_the_backend() {
    let mut bench = Bench::asking("* origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["inspect"]);
    let id = bench.call_id.clone();
    let last = value(&[("c", Value::Bytes(b"5".to_vec()))]);
    bench.reply("inspect", &id, "success", &value(&[("no-proxy", Value::Bool(false)), ("last-ids", last)]));
    let [Sent::Open(message)] = &bench.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().headers.get("Grip-Last"), Some(&b"c; last-id=5"[..]));
}

#[test]
fn a_silent_handler_delays_a_request_by_eight_seconds_and_the_next_ones_not() {
    let mut bench = Bench::asking("* origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["inspect"]);
    bench.wait(Duration::from_secs(8));
    assert!(bench.sent().contains(&"open: data +200000".to_string()));
    bench.origin(ok(b"", false));
    bench.sent();
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["inspect", "open: data +200000"]);
}

/// The handler gives the request of the client back, whose next packets have these numbers.
fn retry(in_seq: i64, out_seq: i64) -> Vec<u8> {
    let state = value(&[
        ("rid", value(&[("sender", Value::Bytes(b"front".to_vec())), ("id", Value::Bytes(b"1".to_vec()))])),
        ("in-seq", Value::Int(in_seq)),
        ("out-seq", Value::Int(out_seq)),
        ("out-credits", Value::Int(8192)),
    ]);
    let request = value(&[
        ("method", Value::Bytes(b"GET".to_vec())),
        ("uri", Value::Bytes(b"http://h/x".to_vec())),
        ("body", Value::Bytes(Vec::new())),
    ]);
    let packet = value(&[("requests", Value::List(vec![state])), ("request-data", request)]);
    tnetstring::to_vec(&packet).unwrap()
}

#[test]
fn a_retry_may_overtake_the_answer_that_the_handler_has_the_request() {
    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    bench.sent();
    bench.engine.retry(&retry(2, 2), bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: keep-alive", "open: data +200000"]);
    // The answer comes late and changes nothing.
    bench.verdict("success", &value(&[("accepted", Value::Bool(true))]));
    bench.origin(ok(b"again", false));
    assert_eq!(bench.sent(), ["client: data 200 [5]"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_retry_takes_the_client_over_at_once() {
    let mut bench = Bench::new("* origin:80");
    bench.engine.retry(&retry(3, 4), bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: keep-alive", "open: data +200000"]);
    bench.client_seq = 3;
    bench.origin(ok(b"again", false));
    let [Sent::Client(message)] = &bench.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().ids, Ids::One(b"1", Some(5)));
}

#[test]
fn the_test_target_answers_and_holds_by_itself() {
    let mut bench = Bench::new("*,path_beg=/t test");
    bench.request(Packet { uri: Some(b"http://h/t/"), ..Packet::default() });
    assert_eq!(bench.sent(), ["client: data 200 [37]"]);
    bench.request(Packet { uri: Some(b"http://h/t/stream"), ..Packet::default() });
    assert_eq!(bench.sent(), ["client: handoff-start"]);
}

#[test]
fn a_hold_that_a_dead_handler_was_asked_for_is_asked_of_its_successor_within_the_same_time() {
    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    assert_eq!(bench.sent(), ["accept"]);
    bench.wait(Duration::from_secs(5));
    bench.engine.accept_lost(bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["accept"]);
    bench.wait(Duration::from_secs(3));
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 500 [28]"]);
    bench.verdict("success", &value(&[("accepted", Value::Bool(true))]));
    assert!(bench.engine.is_empty() && bench.sent().is_empty());
}

#[test]
fn instructions_that_the_handler_does_not_understand_are_quoted_in_the_log() {
    let mut bench = Bench::new("* origin:80");
    bench.until_accept();
    bench.sent();
    bench.verdict("bad-format", &Value::Bytes(b"no channels".to_vec()));
    let log = "bad-instruct: GET http://h/path -> origin:80: bad GRIP instructions: no channels";
    assert_eq!(bench.recorded.log[0], log);
}

#[test]
fn a_retry_that_lacks_something_is_skipped_and_said() {
    let mut bench = Bench::new("* origin:80");
    for bad in [&b"junk"[..], b"0:}", b"29:8:requests,0:]7:inspect,1:1#}"] {
        bench.engine.retry(bad, bench.now, &mut bench.recorded);
    }
    assert!(bench.sent().is_empty() && bench.engine.is_empty());
    assert!(bench.recorded.log.len() == 3 && bench.recorded.log.iter().all(|line| line.starts_with("retry: skipping")));
}

#[test]
fn a_question_that_a_dead_handler_had_is_not_waited_for() {
    let mut bench = Bench::asking("* origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["inspect"]);
    bench.engine.inspect_lost(bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["open: data +200000"]);
}
