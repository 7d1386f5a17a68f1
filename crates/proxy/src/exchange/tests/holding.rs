//! Requests that the handler is asked about, takes over, or gives back.

use std::time::Duration;

use tnetstring::Value;
use zhttp::{Ids, Kind, Packet};

use super::stage::*;

#[test]
fn a_hold_goes_to_the_handler_after_the_frontend_agrees() {
    let mut stage = Stage::new("*,id=r,prefix=p- origin:80,sub=s");
    stage.until_accept();
    let sent = stage.raw();
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
    stage.call_id = id.clone();
    stage.verdict("success", &value(&[("accepted", Value::Bool(true))]));
    assert_eq!(stage.sent(), [""; 0]);
    assert!(stage.engine.is_empty());
}

#[test]
fn a_client_that_adopts_and_has_not_heard_from_us_is_handed_over_without_being_asked() {
    let mut stage = Stage::new("* origin:80");
    stage.request(Packet { ext: zhttp::Ext { adopt: true, ..zhttp::Ext::default() }, ..Packet::default() });
    stage.sent();
    stage.origin(grip_response("stream", b"hello", false));
    let sent = stage.raw();
    let [Sent::Accept(call)] = &sent[..] else { panic!("{sent:?}") };
    let Some(Value::List(requests)) = call.get(b"args").and_then(|args| args.get(b"requests")) else { panic!() };
    assert_eq!((requests[0].get(b"in-seq"), requests[0].get(b"out-seq")), (Some(&Value::Int(1)), Some(&Value::Int(0))));
    // It must not hear from us while the handler decides, or its numbers would be wrong.
    stage.wait(Duration::from_millis(500));
    assert_eq!(stage.sent(), [""; 0]);
}

#[test]
fn a_client_that_adopts_but_has_heard_from_us_is_asked() {
    let mut stage = Stage::new("* origin:80");
    stage.request(Packet { ext: zhttp::Ext { adopt: true, ..zhttp::Ext::default() }, ..Packet::default() });
    stage.sent();
    stage.wait(Duration::from_millis(20));
    assert_eq!(stage.sent(), ["client: keep-alive"]);
    stage.origin(grip_response("stream", b"hello", false));
    assert_eq!(stage.sent(), ["client: handoff-start"]);
}

#[test]
fn a_response_of_the_handler_is_given_to_the_client() {
    let mut stage = Stage::new("* origin:80");
    stage.until_accept();
    assert_eq!(stage.sent(), ["accept"]);
    let response = value(&[
        ("code", Value::Int(200)),
        ("reason", Value::Bytes(b"OK".to_vec())),
        ("headers", Value::List(vec![])),
        ("body", Value::Bytes(b"now".to_vec())),
    ]);
    stage.verdict("success", &value(&[("response", response)]));
    assert_eq!(stage.sent(), ["client: keep-alive", "client: data 200 [3]"]);
}

#[test]
fn a_hold_that_is_refused_or_finds_no_handler_is_an_error() {
    let mut stage = Stage::new("* origin:80");
    stage.until_accept();
    stage.sent();
    stage.verdict("bad-format", &Value::Bytes(b"what".to_vec()));
    assert_eq!(stage.sent(), ["client: keep-alive", "client: data 502 [32]"]);

    let mut stage = Stage::new("*,debug origin:80");
    stage.until_accept();
    stage.sent();
    stage.verdict("bad-format", &Value::Bytes(b"what".to_vec()));
    let sent = stage.raw();
    let Some(Sent::Client(message)) = sent.last() else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().body, b"Failed to parse accept instructions: what\n");

    let mut stage = Stage::new("* origin:80");
    stage.tray.no_handler = true;
    stage.until_accept();
    assert_eq!(stage.sent(), ["client: keep-alive", "client: data 500 [28]"]);

    let mut stage = Stage::new("* origin:80");
    stage.until_accept();
    stage.sent();
    stage.wait(Duration::from_secs(7));
    assert_eq!(stage.sent(), [""; 0]);
    stage.wait(Duration::from_secs(1));
    assert_eq!(stage.sent(), ["client: keep-alive", "client: data 500 [28]"]);
}

#[test]
fn a_large_stream_reaches_the_client_first_and_is_held_afterwards() {
    let mut stage = Stage::new("* origin:80");
    stage.request(Packet { credits: Some(1_000_000), ..Packet::default() });
    stage.sent();
    stage.origin(grip_response("stream", &[b'x'; 90_000], true));
    assert_eq!(stage.sent(), [""; 0]);
    stage.origin(data(&[b'x'; 60_000], true));
    let sent = stage.raw();
    let [Sent::Client(message), ..] = &sent[..] else { panic!() };
    let packet = Packet::decode(message).unwrap();
    assert_eq!((packet.code, packet.body.len(), packet.more), (Some(200), 150_000, true));
    assert_eq!(packet.headers.iter().count(), 0);
    stage.origin(data(b"", false));
    assert_eq!(stage.sent(), ["client: handoff-start"]);
    stage.client(Packet { kind: Kind::HandoffProceed, ..Packet::default() });
    let sent = stage.raw();
    let [Sent::Accept(call)] = &sent[..] else { panic!() };
    assert_eq!(call.get(b"args").and_then(|args| args.get(b"response-sent")), Some(&Value::Bool(true)));
}

#[test]
fn a_large_response_hold_is_an_error() {
    let mut stage = Stage::new("*,debug origin:80");
    stage.request(Packet::default());
    stage.sent();
    stage.origin(grip_response("response", &[b'x'; 100_001], true));
    let sent = stage.raw();
    let [Sent::Origin(_), Sent::Client(message)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(Packet::decode(message).unwrap().body, b"GRIP instruct response too large from origin:80\n");
}

#[test]
fn a_hold_needs_the_whole_request_and_not_too_much_of_it() {
    let mut stage = Stage::new("* origin:80");
    stage.request(Packet { more: true, ..Packet::default() });
    stage.sent();
    stage.origin(grip_response("response", b"", false));
    assert_eq!(stage.sent(), [""; 0]);
    stage.client(data(b"rest", false));
    assert_eq!(stage.sent(), ["client: handoff-start"]);

    let mut stage = Stage::new("* origin:80");
    stage.request(Packet { more: true, ..Packet::default() });
    stage.sent();
    stage.client(data(&[b'x'; 100_001], false));
    stage.origin(grip_response("response", b"", false));
    assert_eq!(stage.sent(), ["client: data 400 [43]"]);
}

#[test]
fn no_grip_passes_instructions_through() {
    let mut stage = Stage::new("*,no_grip origin:80");
    stage.request(Packet::default());
    stage.sent();
    stage.origin(grip_response("stream", b"x", false));
    let [Sent::Client(message)] = &stage.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().headers.get("Grip-Hold"), Some(&b"stream"[..]));
}

#[test]
fn a_handler_that_wants_it_is_asked_before_the_backend() {
    let mut stage = Stage::asking("* origin:80");
    stage.request(Packet::default());
    assert_eq!(stage.sent(), ["inspect"]);
    let id = stage.call_id.clone();
    let last = value(&[("c", Value::Bytes(b"5".to_vec()))]);
    stage.reply("inspect", &id, "success", &value(&[("no-proxy", Value::Bool(false)), ("last-ids", last)]));
    let [Sent::Open(message)] = &stage.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().headers.get("Grip-Last"), Some(&b"c; last-id=5"[..]));
}

#[test]
fn a_silent_handler_delays_a_request_by_eight_seconds_and_the_next_ones_not() {
    let mut stage = Stage::asking("* origin:80");
    stage.request(Packet::default());
    assert_eq!(stage.sent(), ["inspect"]);
    stage.wait(Duration::from_secs(8));
    assert!(stage.sent().contains(&"open: data +200000".to_string()));
    stage.origin(ok(b"", false));
    stage.sent();
    stage.request(Packet::default());
    assert_eq!(stage.sent(), ["inspect", "open: data +200000"]);
}

#[test]
fn a_retry_takes_the_client_over_at_once() {
    let mut stage = Stage::new("* origin:80");
    let state = value(&[
        ("rid", value(&[("sender", Value::Bytes(b"front".to_vec())), ("id", Value::Bytes(b"1".to_vec()))])),
        ("in-seq", Value::Int(3)),
        ("out-seq", Value::Int(4)),
        ("out-credits", Value::Int(8192)),
    ]);
    let request = value(&[("method", Value::Bytes(b"GET".to_vec())), ("uri", Value::Bytes(b"http://h/x".to_vec()))]);
    let packet = value(&[("requests", Value::List(vec![state])), ("request-data", request)]);
    stage.engine.retry(&tnetstring::to_vec(&packet).unwrap(), stage.now, &mut stage.tray);
    assert_eq!(stage.sent(), ["client: keep-alive", "open: data +200000"]);
    stage.client_seq = 3;
    stage.origin(ok(b"again", false));
    let [Sent::Client(message)] = &stage.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().ids, Ids::One(b"1", Some(5)));
}

#[test]
fn the_test_target_answers_and_holds_by_itself() {
    let mut stage = Stage::new("*,path_beg=/t test");
    stage.request(Packet { uri: Some(b"http://h/t/"), ..Packet::default() });
    assert_eq!(stage.sent(), ["client: data 200 [37]"]);
    stage.request(Packet { uri: Some(b"http://h/t/stream"), ..Packet::default() });
    assert_eq!(stage.sent(), ["client: handoff-start"]);
}
