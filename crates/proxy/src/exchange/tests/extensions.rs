// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the suite can do beyond Pushpin, each with a peer that announces it and with one that does not, as Pushpin's.

use std::time::Duration;

use tnetstring::Value;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::bench::*;

const ROUTES: &str = "* origin:80";

/// The request of a frontend, with what it announces.
fn request(bench: &mut Bench, id: &[u8], ext: Ext, router_resp: bool) {
    let headers = Headers::Pairs(&[(b"Host", b"h")]);
    let ids = Ids::One(id, Some(0));
    let (method, uri) = (Some(&b"GET"[..]), Some(&b"http://h/path"[..]));
    let packet = Packet {
        from: b"front",
        ids,
        ext,
        router_resp,
        stream: true,
        credits: Some(65_536),
        method,
        uri,
        headers,
        ..Packet::default()
    };
    bench.engine.request(&bytes(&packet), bench.now, &mut bench.recorded);
}

/// The number of sessions in each keep-alive that a frontend with two requests gets.
fn keep_alives(ext: Ext) -> Vec<usize> {
    let mut bench = Bench::new(ROUTES);
    for id in [b"1", b"2"] {
        request(&mut bench, id, ext, false);
        bench.take();
        bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    }
    // The first packet tells who we are.
    bench.wait(Duration::from_millis(20));
    bench.raw();
    bench.wait(Duration::from_secs(45));
    let ids = |sent: &Sent| match sent {
        Sent::Client(bytes) => {
            let packet = Packet::decode(bytes).unwrap();
            assert_eq!(packet.kind, Kind::KeepAlive);
            Some(packet.ids.iter().count())
        }
        _ => None,
    };
    bench.raw().iter().filter_map(ids).collect()
}

#[test]
fn one_keep_alive_is_for_many_sessions_only_if_the_frontend_takes_that() {
    assert_eq!(keep_alives(Ext::MULTI), [2]);
    assert_eq!(keep_alives(Ext::default()), [1, 1]);
}

/// What a hold leads to before the frontend has heard from us.
fn hold(ext: Ext) -> Vec<String> {
    let mut bench = Bench::new(ROUTES);
    request(&mut bench, b"1", ext, false);
    bench.sent();
    bench.origin(grip_response("stream", b"hello", false));
    bench.sent()
}

#[test]
fn a_hold_is_handed_over_without_asking_only_if_the_frontend_adopts_whoever_answers() {
    assert_eq!(hold(Ext { adopt: true, ..Ext::MULTI }), ["accept"]);
    assert_eq!(hold(Ext::MULTI), ["client: handoff-start"]);
}

#[test]
fn answers_go_by_router_only_if_the_request_asks_for_that() {
    for by_router in [true, false] {
        let mut bench = Bench::new(ROUTES);
        // Each packet is checked to go by this way.
        bench.recorded.by_router = by_router;
        request(&mut bench, b"1", Ext::MULTI, by_router);
        bench.sent();
        bench.origin(ok(b"x", false));
        assert_eq!(bench.sent(), ["client: data 200 [1]"]);
    }
}

/// What the second request leads to, after a handler has answered the question about the first one.
fn second(answer: &[(&str, Value)]) -> Vec<String> {
    let mut bench = Bench::asking(ROUTES);
    request(&mut bench, b"1", Ext::MULTI, false);
    assert_eq!(bench.sent(), ["inspect"]);
    let id = bench.call_id.clone();
    bench.reply("inspect", &id, "success", &value(answer));
    bench.sent();
    request(&mut bench, b"2", Ext::MULTI, false);
    bench.sent()
}

#[test]
fn the_handler_is_not_asked_again_only_if_it_has_said_so() {
    let no_proxy = ("no-proxy", Value::Bool(false));
    assert_eq!(second(std::slice::from_ref(&no_proxy)), ["inspect"]);
    let again = second(&[no_proxy, ("inspect-again", Value::Int(60_000))]);
    assert!(again[0].starts_with("open:"), "{again:?}");
}

#[test]
fn the_coding_of_a_body_is_not_named_when_zurl_has_taken_it_off() {
    for (from, named) in [(&b"out"[..], true), (b"{0ac1}", false)] {
        let mut bench = Bench::new(ROUTES);
        request(&mut bench, b"1", Ext::MULTI, false);
        bench.take();
        let headers = Headers::Pairs(&[(b"Content-Encoding", b"gzip"), (b"X", b"y")]);
        let packet = Packet { from, ids: Ids::One(&bench.origin_id, Some(0)), headers, ..ok(b"x", false) };
        bench.engine.origin_packet(&bytes(&packet), bench.now, &mut bench.recorded);
        let sent = bench.raw();
        let [Sent::Client(answer)] = &sent[..] else { panic!("{sent:?}") };
        let headers = Packet::decode(answer).unwrap().headers;
        assert_eq!((headers.get("Content-Encoding").is_some(), headers.get("X")), (named, Some(&b"y"[..])));
    }
}

#[test]
fn bodies_keep_their_coding_only_if_a_handler_of_ours_may_get_them() {
    for (again, coded) in [(None, false), (Some(60_000), true), (Some(0), true)] {
        let again = again.map(|again| ("inspect-again", Value::Int(again)));
        let mut bench = Bench::asking(ROUTES);
        request(&mut bench, b"1", Ext::MULTI, false);
        bench.sent();
        let no_proxy = ("no-proxy", Value::Bool(false));
        let answer: Vec<_> = std::iter::once(no_proxy).chain(again).collect();
        let id = bench.call_id.clone();
        bench.reply("inspect", &id, "success", &value(&answer));
        let sent = bench.raw();
        let [Sent::Open(message)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(Packet::decode(message).unwrap().ext.coded, coded);
    }
}

#[test]
fn a_handler_of_pushpins_gets_a_small_window_with_a_client() {
    for (again, credits) in [(None, 16_384), (Some(60_000), 65_536), (Some(0), 65_536)] {
        let again = again.map(|again| ("inspect-again", Value::Int(again)));
        let mut bench = Bench::asking(ROUTES);
        request(&mut bench, b"1", Ext { adopt: true, ..Ext::MULTI }, false);
        bench.sent();
        let no_proxy = ("no-proxy", Value::Bool(false));
        let answer: Vec<_> = std::iter::once(no_proxy).chain(again).collect();
        let id = bench.call_id.clone();
        bench.reply("inspect", &id, "success", &value(&answer));
        bench.sent();
        bench.origin(grip_response("stream", b"hello", false));
        let sent = bench.raw();
        let [Sent::Accept(call)] = &sent[..] else { panic!("{sent:?}") };
        let Some(Value::List(requests)) = call.get(b"args").and_then(|args| args.get(b"requests")) else { panic!() };
        assert_eq!(requests[0].get(b"out-credits"), Some(&Value::Int(credits)));
    }
}
