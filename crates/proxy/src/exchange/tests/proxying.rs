// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that go to a backend and come back.

use std::time::Duration;

use zhttp::{EXPIRY, Headers, Ids, KEEP_ALIVE, Kind, Packet};

use super::bench::*;

#[test]
fn a_plain_request_costs_four_packets() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["open: data +200000"]);
    bench.origin(ok(b"hello", false));
    assert_eq!(bench.sent(), ["client: data 200 [5]"]);
    assert!(bench.engine.is_empty());
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.sent(), [""; 0]);
}

#[test]
fn the_backend_gets_uri_address_and_signed_headers() {
    let mut bench = Bench::new("* origin:81,ssl");
    bench.request(Packet { peer_address: Some(b"127.0.0.1"), ..Packet::default() });
    let [Sent::Open(message)] = &bench.raw()[..] else { panic!() };
    let packet = Packet::decode(message).unwrap();
    assert_eq!(packet.uri, Some(&b"https://h/path"[..]));
    assert_eq!((packet.connect_host, packet.connect_port), (Some(&b"origin"[..]), Some(81)));
    assert!(packet.ignore_policies && packet.stream && packet.ext.multi);
    assert_eq!(packet.headers.get("Host"), Some(&b"h"[..]));
    assert_eq!(packet.headers.values("Grip-Sig").count(), 1);
    assert!(packet.headers.get("Grip-Feature").is_some());
}

#[test]
fn a_backend_that_takes_its_time_makes_the_request_be_acknowledged() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.wait(Duration::from_millis(9));
    assert_eq!(bench.sent(), [""; 0]);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.sent(), ["client: keep-alive"]);
}

#[test]
fn a_response_waits_for_the_credits_of_the_client() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { credits: Some(10), ..Packet::default() });
    bench.sent();
    bench.origin(ok(&[b'x'; 25], true));
    assert_eq!(bench.sent(), ["client: data 200 [10] more"]);
    bench.origin(data(b"yyyyy", false));
    assert_eq!(bench.sent(), [""; 0]);
    bench.client(credit(16));
    assert_eq!(bench.sent(), ["client: data [16] more"]);
    bench.client(credit(100));
    assert_eq!(bench.sent(), ["client: data [4]"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn the_backend_gets_credits_only_for_what_the_client_has_taken() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { credits: Some(1000), ..Packet::default() });
    bench.sent();
    bench.origin(ok(&[b'x'; 200_000], true));
    assert_eq!(bench.sent(), ["client: data 200 [1000] more"]);
    bench.client(credit(98_999));
    assert_eq!(bench.sent(), ["client: data [98999] more"]);
    bench.client(credit(1));
    assert_eq!(bench.sent(), ["client: data [1] more", "origin: credit +100000"]);
}

#[test]
fn a_backend_that_sends_more_than_it_may_is_cut_off() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { credits: Some(0), ..Packet::default() });
    bench.sent();
    bench.origin(ok(&[b'x'; 200_000], true));
    bench.origin(data(b"x", true));
    assert_eq!(bench.sent(), ["client: data 200 more", "origin: cancel", "client: cancel"]);
}

#[test]
fn an_upload_flows_under_the_credits_of_both_sides() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), more: true, ..Packet::default() });
    assert_eq!(bench.sent(), ["client: credit +200000"]);
    bench.client(data(&[b'x'; 10_000], true));
    assert_eq!(bench.sent(), ["open: data +200000 [10000] more"]);
    bench.client(data(&[b'x'; 150_000], true));
    assert_eq!(bench.sent(), [""; 0], "the backend's side is not known yet");
    bench.origin(credit(120_000));
    assert_eq!(bench.sent(), ["origin: data [120000] more", "client: credit +130000"]);
    bench.client(data(&[b'x'; 1], false));
    assert_eq!(bench.sent(), [""; 0]);
    bench.origin(credit(1_000_000));
    assert_eq!(bench.sent(), ["origin: data [30001]"]);
    bench.origin(ok(b"done", false));
    assert_eq!(bench.sent(), ["client: data 200 [4]"]);
}

#[test]
fn a_short_upload_is_read_to_its_end_before_the_backend_is_asked() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), body: b"one ", more: true, ..Packet::default() });
    assert_eq!(bench.sent(), ["client: credit +200000"]);
    bench.client(data(&[b'x'; 9_000], true));
    assert_eq!(bench.sent(), [""; 0]);
    bench.client(data(b" two", false));
    assert_eq!(bench.sent(), ["open: data +200000 [9008]"], "all of it in one packet, so that its length is known");
}

#[test]
fn a_client_that_goes_away_ends_the_request_to_the_backend() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.client(cancel());
    assert_eq!(bench.sent(), ["origin: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_client_that_goes_away_early_ends_the_request_once_the_backends_side_is_known() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.client(cancel());
    assert_eq!(bench.sent(), [""; 0]);
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    assert_eq!(bench.sent(), ["origin: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn an_instance_that_is_gone_takes_its_clients_along() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.engine.client_instance_left(b"front", bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["origin: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_backend_that_breaks_off_breaks_off_the_client() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(ok(b"part", true));
    bench.sent();
    bench.origin(error(b"undefined-condition"));
    assert_eq!(bench.sent(), ["client: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn the_next_target_is_tried_when_one_can_not_be_reached() {
    let mut bench = Bench::new("*,debug one:1 two:2");
    bench.request(Packet { method: Some(b"POST"), more: true, ..Packet::default() });
    bench.client(data(&[b'x'; 10_000], true));
    bench.sent();
    bench.client(data(b"body", false));
    bench.origin(credit(1000));
    assert_eq!(bench.sent(), ["origin: data [4]"]);
    bench.origin(error(b"remote-connection-failed"));
    assert_eq!(bench.sent(), ["open: data +200000 [10004]"], "all of the body is sent again");
    bench.origin(error(b"tls-error"));
    let [Sent::Client(message)] = &bench.raw()[..] else { panic!() };
    let packet = Packet::decode(message).unwrap();
    assert_eq!(packet.code, Some(502));
    assert_eq!(packet.body, b"Unable to connect to any targets. Tried: one:1, two:2\n");
}

#[test]
fn errors_of_the_backends_side_have_their_status_and_text() {
    for (condition, code, text) in [
        (&b"length-required"[..], 411, "Must provide Content-Length header.\n"),
        (b"policy-violation", 502, "Error while proxying to origin.\n"),
        (b"remote-connection-failed", 502, "Error while proxying to origin.\n"),
        (b"bad-request", 502, "Error while proxying to origin.\n"),
    ] {
        let mut bench = Bench::new("* origin:80");
        bench.request(Packet::default());
        bench.sent();
        bench.origin(error(condition));
        let [Sent::Client(message)] = &bench.raw()[..] else { panic!() };
        let packet = Packet::decode(message).unwrap();
        assert_eq!((packet.code, packet.body), (Some(code), text.as_bytes()));
        assert_eq!(packet.headers.get("Content-Length"), Some(text.len().to_string().as_bytes()));
    }
}

#[test]
fn without_a_route_or_an_outbound_process_there_is_a_502() {
    let mut bench = Bench::new("other.com origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["client: data 502 [16]"]);
    let mut bench = Bench::new("* origin:80");
    bench.recorded.no_outbound = true;
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["client: data 502 [32]"]);
}

#[test]
fn a_backends_side_that_is_silent_for_a_minute_is_given_up() {
    let mut bench = Bench::new("*,debug origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.wait(EXPIRY - Duration::from_secs(1));
    bench.client(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.sent();
    bench.wait(Duration::from_secs(1));
    let [Sent::Client(message)] = &bench.raw()[..] else { panic!() };
    assert_eq!(Packet::decode(message).unwrap().body, b"Error: zhttp service for route is unreachable.\n");
}

#[test]
fn a_request_that_no_outbound_process_takes_is_answered_after_eight_seconds() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.wait(Duration::from_millis(7_990));
    bench.sent();
    bench.wait(Duration::from_millis(20));
    assert_eq!(bench.sent(), ["client: data 502 [32]"]);
    assert!(
        bench.recorded.log[0].starts_with("no-outbound: GET http://h/path -> origin:80: "),
        "{:?}",
        bench.recorded.log
    );
    assert!(bench.engine.is_empty());
}

#[test]
fn what_a_dead_outbound_process_had_is_sent_again_twice_if_that_does_no_harm() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    for expected in ["open: data +200000", "open: data +200000", "client: data 502 [32]"] {
        bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
        bench.outbound_leaves();
        assert_eq!(bench.sent(), [expected]);
    }
}

#[test]
fn what_a_dead_outbound_process_had_is_not_done_twice() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), ..Packet::default() });
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.outbound_leaves();
    assert_eq!(bench.sent(), ["client: data 502 [32]"]);
    // A response that has begun is broken off.
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(ok(b"part", true));
    bench.sent();
    bench.outbound_leaves();
    assert_eq!(bench.sent(), ["client: cancel"]);
}

#[test]
fn what_a_dead_outbound_process_may_have_had_is_waited_for_one_second() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.outbound_leaves();
    bench.wait(Duration::from_millis(1010));
    assert_eq!(bench.sent(), ["open: data +200000", "client: keep-alive"]);
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), ..Packet::default() });
    bench.sent();
    bench.outbound_leaves();
    assert_eq!(bench.sent(), [""; 0], "it may still be on its way to the next one");
    bench.wait(Duration::from_millis(1010));
    assert_eq!(bench.sent(), ["client: data 502 [32]"]);
}

#[test]
fn what_an_outbound_process_takes_up_with_its_last_word_is_lost_with_it() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.outbound_leaves();
    // It comes by PUB, behind the end of the other link.
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.wait(Duration::from_millis(1010));
    assert_eq!(bench.sent(), ["client: keep-alive", "open: data +200000"]);
    // Another one may have its name, and have been told of after its first word.
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.engine.outbound_joined(b"out", bench.now, &mut bench.recorded);
    bench.wait(Duration::from_millis(1010));
    bench.origin(ok(b"answer", false));
    assert_eq!(bench.sent(), ["client: data 200 [6]"]);
}

#[test]
fn an_error_has_its_reason_in_the_log_and_a_request_its_duration() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.wait(Duration::from_millis(5));
    bench.origin(Packet { reason: Some(b"refused"), ..error(b"remote-connection-failed") });
    assert_eq!(
        bench.recorded.log,
        [
            "unreachable: GET http://h/path -> origin:80: can't connect (remote-connection-failed: refused)",
            "GET http://h/path -> origin:80 code=502 32 time=0.005",
        ]
    );
    let mut bench = Bench::new("other.com origin:80");
    bench.request(Packet::default());
    assert_eq!(bench.recorded.log[0], "no-route: GET http://h/path: no route matches this host and path");
}

#[test]
fn sessions_are_kept_alive_on_both_sides() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.wait(Duration::from_millis(10));
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    assert_eq!(bench.sent(), ["client: keep-alive"]);
    bench.wait(KEEP_ALIVE);
    assert_eq!(bench.sent(), ["client: keep-alive", "origin: keep-alive"]);
}

#[test]
fn a_packet_out_of_sequence_ends_the_session() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.client_seq = 5;
    bench.client(credit(1));
    assert_eq!(bench.sent(), ["client: cancel"]);
    bench.origin_seq = 1;
    bench.origin(ok(b"late", false));
    assert_eq!(bench.sent(), [""; 0]);
}

#[test]
fn a_request_that_is_none_is_refused() {
    let mut bench = Bench::new("* origin:80");
    bench.engine.request(b"garbage", bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), [""; 0]);
    bench.request(Packet { uri: Some(b"ftp://h/"), ..Packet::default() });
    assert_eq!(bench.sent(), ["client: cancel"]);
    let unstreamed =
        Packet { from: b"front", ids: Ids::One(b"1", Some(0)), uri: Some(b"http://h/"), ..Packet::default() };
    bench.engine.request(&bytes(&unstreamed), bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: error"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn an_id_that_is_in_use_is_refused_and_the_first_request_goes_on() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.request(Packet::default());
    assert_eq!(bench.sent(), ["client: cancel"]);
    bench.origin(ok(b"hello", false));
    assert_eq!(bench.sent(), ["client: data 200 [5]"]);
}

#[test]
fn stopping_tells_both_sides() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.engine.stop(bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: cancel", "origin: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn what_is_due_at_once_is_sent_in_the_order_of_its_numbers() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.wait(Duration::from_millis(20));
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.now += EXPIRY - Duration::from_secs(1);
    bench.client(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    // The client is to be kept alive, and the backend's side has expired.
    bench.wait(Duration::from_secs(2));
    let numbers: Vec<u32> = bench
        .raw()
        .iter()
        .filter_map(|sent| match sent {
            Sent::Client(message) => Packet::decode(message).unwrap().ids.single().unwrap().1,
            _ => None,
        })
        .collect();
    assert!(numbers.is_sorted() && !numbers.is_empty(), "{numbers:?}");
}

#[test]
fn a_packet_that_its_frontend_does_not_take_ends_the_request_on_both_sides() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.sent();
    bench.origin(ok(b"some", true));
    bench.sent();
    bench.recorded.client_full = true;
    bench.origin(data(b"more", true));
    assert_eq!(bench.sent(), ["origin: cancel"]);
    assert!(bench.engine.is_empty());
    // The frontend hears of it as soon as it takes packets again, once.
    bench.recorded.client_full = false;
    bench.engine.room(b"front", &mut bench.recorded);
    bench.engine.room(b"front", &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: cancel"]);
    assert!(bench.recorded.log[0].starts_with("client-full: "));
}

#[test]
fn a_keep_alive_that_is_not_taken_ends_its_sessions() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet::default());
    bench.wait(Duration::from_millis(20));
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    bench.sent();
    (bench.recorded.client_full, bench.recorded.origin_full) = (true, true);
    bench.wait(KEEP_ALIVE);
    assert!(bench.engine.is_empty(), "{:?}", bench.recorded.log);
    (bench.recorded.client_full, bench.recorded.origin_full) = (false, false);
    bench.engine.room(b"front", &mut bench.recorded);
    bench.engine.room(b"out", &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: cancel", "origin: cancel"]);
}

#[test]
fn a_piece_of_an_upload_that_the_outbound_process_does_not_take_is_an_error() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), more: true, ..Packet::default() });
    bench.client(data(&[b'x'; 10_000], true));
    bench.sent();
    bench.origin(credit(1000));
    bench.sent();
    bench.recorded.origin_full = true;
    bench.client(data(b"more", true));
    assert_eq!(bench.sent(), ["client: data 502 [32]"]);
    bench.recorded.origin_full = false;
    bench.engine.room(b"out", &mut bench.recorded);
    assert_eq!(bench.sent(), ["origin: cancel"]);
}

#[test]
fn a_frontend_that_asks_for_it_is_answered_through_its_router() {
    let mut bench = Bench::new("* origin:80");
    bench.recorded.by_router = true;
    bench.request(Packet { router_resp: true, ..Packet::default() });
    bench.sent();
    bench.wait(Duration::from_millis(20));
    bench.origin(ok(b"x", false));
    assert_eq!(bench.sent(), ["client: keep-alive", "client: data 200 [1]"]);
}

#[test]
fn a_frontend_of_pushpin_is_not_sent_more_headers_than_it_can_take() {
    let headers = |count| vec![(&b"A"[..], &b"b"[..]); count];
    for (count, adopt, sent) in [(64, false, 200), (65, false, 502), (65, true, 200)] {
        let mut bench = Bench::new("* origin:80");
        bench.request(Packet { ext: zhttp::Ext { adopt, ..zhttp::Ext::default() }, ..Packet::default() });
        bench.sent();
        bench.origin(Packet { headers: zhttp::Headers::Pairs(&headers(count)), ..ok(b"", false) });
        let answer = bench.sent().pop().unwrap();
        assert!(answer.starts_with(&format!("client: data {sent}")), "{count} headers: {answer}");
    }
}

#[test]
fn an_outbound_process_that_takes_a_request_too_late_is_told_to_stop() {
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { method: Some(b"POST"), ..Packet::default() });
    bench.wait(Duration::from_secs(8));
    assert!(bench.engine.is_empty());
    bench.sent();
    bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    assert_eq!(bench.sent(), ["origin: cancel"]);
    bench.origin(ok(b"all of it", false));
    assert_eq!(bench.sent(), [""; 0]);
}

#[test]
fn a_backend_that_wants_whole_requests_gets_one_packet_and_answers_with_one() {
    let mut bench = Bench::new("* zhttpreq/ipc://zmq");
    bench.request(Packet { method: Some(b"POST"), body: b"one ", more: true, ..Packet::default() });
    assert_eq!(bench.sent(), ["client: credit +200000"]);
    bench.client(data(b"two", false));
    let sent = bench.raw();
    let [Sent::Open(message)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(message).unwrap();
    assert_eq!((packet.body, packet.more, packet.stream, packet.credits), (&b"one two"[..], false, false, None));
    let (id, seq) = packet.ids.single().unwrap();
    assert_eq!(seq, None);
    let answer = Packet { ids: Ids::One(id, None), ..ok(&[b'x'; 5000], false) };
    bench.engine.origin_packet(&bytes(&answer), bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: data 200 [5000]"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_backend_with_sockets_of_its_own_that_leaves_takes_only_its_requests_with_it() {
    let mut bench = Bench::new("* zhttp/ipc://zmq");
    bench.request(Packet::default());
    bench.take();
    bench.engine.backend_left(b"out", bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), [""; 0]);
    bench.origin(ok(b"begun", true));
    bench.engine.backend_left(b"out", bench.now, &mut bench.recorded);
    assert_eq!(bench.sent(), ["client: data 200 [5] more", "client: cancel"]);
}

#[test]
fn interim_responses_are_passed_on_to_those_who_take_them() {
    let headers: &[(&[u8], &[u8])] = &[(b"Link", b"</a>"), (b"Grip-Hold", b"stream"), (b"Connection", b"x")];
    let early = || Packet {
        kind: Kind::KeepAlive,
        code: Some(103),
        reason: Some(b"Early Hints"),
        headers: Headers::Pairs(headers),
        ..Packet::default()
    };
    let takes = zhttp::Ext { interim: true, ..zhttp::Ext::default() };
    let mut bench = Bench::new("* origin:80");
    bench.request(Packet { ext: takes, ..Packet::default() });
    let sent = bench.take();
    let [Sent::Open(message)] = &sent[..] else { panic!("{sent:?}") };
    assert!(Packet::decode(message).unwrap().ext.interim);
    bench.origin(early());
    let sent = bench.take();
    let [Sent::Client(message)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(message).unwrap();
    assert_eq!((packet.kind, packet.code, packet.reason), (Kind::KeepAlive, Some(103), Some(&b"Early Hints"[..])));
    assert_eq!(packet.headers.iter().collect::<Vec<_>>(), [(&b"Link"[..], &b"</a>"[..])]);
    bench.origin(ok(b"hello", true));
    bench.origin(early());
    bench.origin(data(b"", false));
    assert_eq!(bench.sent(), ["client: data 200 [5] more", "client: data"]);

    let mut other = Bench::new("* origin:80");
    other.request(Packet::default());
    let sent = other.take();
    let [Sent::Open(message)] = &sent[..] else { panic!("{sent:?}") };
    assert!(!Packet::decode(message).unwrap().ext.interim);
    other.origin(early());
    assert_eq!(other.sent(), [""; 0]);
}
