// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets: what one side says reaches the other, and how they end.

use std::time::Duration;

use rpc::uuid::Uuid;
use rpc::ws_control::{self, Item, Kind as ItemKind};
use zhttp::{Ext, Headers, Kind, Packet};

use super::bench::{Bench, Sent, credit, error};

/// Says that a second server may push.
const LANES: Ext<'static> = Ext { lanes: true, ..Ext::MULTI };

/// A WebSocket that a backend has been asked for.
fn asked(routes: &str) -> Bench {
    asked_by(Ext::MULTI, Bench::new(routes))
}

/// The same, of a frontend that says this of itself.
fn asked_by(ext: Ext<'_>, mut bench: Bench) -> Bench {
    let headers: &[(&[u8], &[u8])] = &[
        (b"Host", b"h"),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
    ];
    bench.request(Packet { uri: Some(b"ws://h/chat"), headers: Headers::Pairs(headers), ext, ..Packet::default() });
    bench
}

fn accepted(headers: &[(&[u8], &[u8])]) -> Packet<'static> {
    // Tests are short.
    let headers = Box::leak(
        headers.iter().map(|(name, value)| (&*name.to_vec().leak(), &*value.to_vec().leak())).collect::<Box<[_]>>(),
    );
    Packet {
        code: Some(101),
        reason: Some(b"Switching Protocols"),
        headers: Headers::Pairs(headers),
        credits: Some(1000),
        ..Packet::default()
    }
}

fn open() -> Bench {
    let mut bench = asked("* h:1");
    bench.take();
    bench.origin(accepted(&[(b"X-A", b"1")]));
    bench.take();
    bench
}

/// A WebSocket whose backend speaks GRIP, and its name.
fn grip() -> (Bench, Vec<u8>) {
    let (bench, here) = grip_of(Ext::MULTI, Duration::from_secs(10));
    (bench, here.cid.to_vec())
}

/// The same of such a frontend, with so long a wait for successors of the handler, and what that is told of it.
fn grip_of(ext: Ext<'_>, recover_wait: Duration) -> (Bench, Item<'static>) {
    let mut bench = asked_by(ext, Bench::waiting("* h:1", recover_wait));
    bench.take();
    bench.origin(accepted(&[(b"Sec-WebSocket-Extensions", b"grip")]));
    let here = told_items(&mut bench).remove(0);
    (bench, here)
}

/// What the handler is told.
fn told_items(bench: &mut Bench) -> Vec<Item<'static>> {
    items_of(bench.take())
}

/// What the handler is told in what has been sent.
fn items_of(sent: Vec<Sent>) -> Vec<Item<'static>> {
    let packets = sent.into_iter().filter_map(|sent| match sent {
        // Tests are short.
        Sent::Control(bytes) => Some(ws_control::Packet::decode(Vec::leak(bytes.to_vec())).unwrap()),
        _ => None,
    });
    packets.flat_map(|packet| packet.items).collect()
}

fn items(bench: &mut Bench, items: Vec<Item<'_>>) {
    let message = ws_control::Packet { items, ..Default::default() }.encode().unwrap();
    bench.engine.control_packet(&message, bench.now, &mut bench.recorded);
}

fn text(body: &'static [u8]) -> Packet<'static> {
    Packet { content_type: Some(b"text"), body, ..Packet::default() }
}

fn close(code: u16) -> Packet<'static> {
    Packet { kind: Kind::Close, code: Some(code), body: b"bye", ..Packet::default() }
}

#[test]
fn the_backend_is_asked_by_a_handshake_that_offers_grip() {
    let mut bench = asked("* h:1");
    let sent = bench.take();
    let [Sent::Open(bytes)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(bytes).unwrap();
    assert_eq!((packet.uri, packet.stream, packet.credits), (Some(&b"ws://h/chat"[..]), false, Some(200_000)));
    let get = |name| packet.headers.values(name).collect::<Vec<_>>();
    assert_eq!(get("Sec-WebSocket-Extensions"), [b"grip"]);
    assert_eq!((get("Upgrade").len(), get("Grip-Sig").len(), get("Connection").len()), (1, 1, 0));
}

/// What a frontend hears first, and whether it may give the handshake to another proxy.
fn acknowledged(ext: Ext<'_>) -> (Kind, bool) {
    let mut bench = asked_by(ext, Bench::new("* h:1"));
    bench.take();
    bench.wait(Duration::from_millis(20));
    let sent = bench.take();
    let [Sent::Client(bytes)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(bytes).unwrap();
    (packet.kind, packet.ext.replay)
}

#[test]
fn a_handshake_may_go_to_another_proxy_until_it_is_answered() {
    assert_eq!(acknowledged(Ext { adopt: true, ..Ext::MULTI }), (Kind::KeepAlive, true));
    assert_eq!(acknowledged(Ext::MULTI), (Kind::KeepAlive, false));
    let mut bench = asked_by(Ext { adopt: true, ..Ext::MULTI }, Bench::new("* h:1"));
    bench.take();
    bench.origin(accepted(&[]));
    let sent = bench.take();
    let [Sent::Client(bytes)] = &sent[..] else { panic!("{sent:?}") };
    assert!(!Packet::decode(bytes).unwrap().ext.replay);
}

#[test]
fn what_one_side_says_reaches_the_other_and_is_paid_back() {
    let mut bench = asked("* h:1");
    bench.take();
    bench.origin(accepted(&[(b"X-A", b"1")]));
    assert_eq!(bench.sent(), ["client: data 101 +200000"]);
    bench.client(text(b"hello"));
    assert_eq!(bench.sent(), ["origin: data [5]"]);
    bench.origin(Packet { more: true, ..text(b"wo") });
    bench.origin(text(b"rld"));
    bench.origin(Packet { kind: Kind::Ping, body: b"p", ..Packet::default() });
    assert_eq!(bench.sent(), ["client: data [2] more", "client: data [3]", "client: ping [1]"]);
}

#[test]
fn a_close_goes_round_and_then_all_is_over() {
    for by_client in [true, false] {
        let mut bench = open();
        if by_client {
            bench.client(close(1000));
            assert_eq!(bench.sent(), ["origin: close 1000 [3]"]);
            bench.origin(close(1000));
            assert_eq!(bench.sent(), ["client: close 1000 [3]"]);
        } else {
            bench.origin(close(4000));
            assert_eq!(bench.sent(), ["client: close 4000 [3]"]);
            bench.client(close(4000));
            assert_eq!(bench.sent(), ["origin: close 4000 [3]"]);
        }
        assert!(bench.engine.is_empty());
    }
}

#[test]
fn a_close_that_is_not_answered_ends_all_in_a_while() {
    let mut bench = open();
    bench.client(close(1000));
    bench.take();
    bench.wait(Duration::from_secs(11));
    assert_eq!(bench.sent(), ["client: cancel", "origin: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn credits_of_the_client_hold_the_backend_back() {
    let mut bench = asked("* h:1");
    bench.take();
    bench.origin(accepted(&[]));
    bench.take();
    for _ in 0..5 {
        bench.origin(Packet { content_type: Some(b"binary"), body: &[7; 3000], ..Packet::default() });
    }
    // 8192 were granted.
    assert_eq!(bench.sent(), ["client: data [3000]", "client: data [3000]", "client: data [2192] more"],);
    bench.client(credit(100_000));
    assert_eq!(bench.sent(), ["client: data [808]", "client: data [3000]", "client: data [3000]"]);
}

#[test]
fn a_refusal_passes_and_a_failure_goes_to_the_next_target() {
    let mut bench = asked("* h:1 h:2");
    assert_eq!(bench.sent().len(), 1);
    bench.origin(error(b"remote-connection-failed"));
    let sent = bench.take();
    let [Sent::Open(bytes)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(Packet::decode(bytes).unwrap().connect_port, Some(2));
    let refusal = Packet {
        kind: Kind::Error,
        condition: Some(b"rejected"),
        code: Some(403),
        reason: Some(b"Forbidden"),
        headers: Headers::Pairs(&[(b"X-Why", b"no")]),
        body: b"rejected body",
        ..Packet::default()
    };
    bench.origin(refusal);
    let sent = bench.take();
    let [Sent::Client(bytes)] = &sent[..] else { panic!("{sent:?}") };
    let packet = Packet::decode(bytes).unwrap();
    assert_eq!(
        (packet.condition, packet.code, packet.body),
        (Some(&b"rejected"[..]), Some(403), &b"rejected body"[..])
    );
    assert_eq!(packet.headers.get("X-Why"), Some(&b"no"[..]));
    assert!(bench.engine.is_empty());
    assert!(bench.recorded.log.last().unwrap().contains("code=403 13"), "{:?}", bench.recorded.log);
}

#[test]
fn one_side_that_breaks_off_takes_the_other_with_it() {
    let mut bench = open();
    bench.client(Packet { kind: Kind::Cancel, ..Packet::default() });
    assert_eq!(bench.sent(), ["origin: cancel"]);
    let mut bench = open();
    bench.origin(error(b"disconnected"));
    assert_eq!(bench.sent(), ["client: cancel"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn control_messages_go_to_the_handler_and_its_messages_to_the_client() {
    let (mut bench, cid) = grip();
    bench.origin(text(b"m:snapshot"));
    bench.origin(text(br#"c:{"type":"subscribe","channel":"a"}"#));
    assert_eq!(bench.sent(), ["client: data [8]", r#"control: Grip {\"type\":\"subscribe\",\"channel\":\"a\"}"#]);
    let ack = Item { req_id: Some(b"0".into()), ..Item::new(ItemKind::Ack, &cid[..]) };
    let send = Item { message: Some(b"news".into()), ..Item::new(ItemKind::Send, &cid[..]) };
    items(&mut bench, vec![ack, send.clone()]);
    assert_eq!(bench.sent(), ["client: data [4]"]);
    // One that is to be acknowledged, in the middle of a message of the backend.
    bench.origin(Packet { more: true, ..text(b"m:a") });
    items(&mut bench, vec![Item { req_id: Some(b"d".into()), ..send }]);
    assert_eq!(bench.sent(), ["client: data [1] more"]);
    bench.origin(text(b"b"));
    assert_eq!(bench.sent(), ["client: data [1]", "client: data [4]", "control: Ack"]);
}

#[test]
fn how_the_network_cuts_messages_of_a_backend_that_speaks_grip_changes_nothing() {
    let (mut bench, _) = grip();
    bench.origin(Packet { more: true, ..text(b"m") });
    assert_eq!(bench.sent(), [""; 0]);
    bench.origin(text(b":x"));
    assert_eq!(bench.sent(), ["client: data [1]"]);
    bench.origin(Packet { more: true, ..text(b"c") });
    bench.origin(Packet { more: true, ..text(br#":{"type":"subscribe","#) });
    bench.origin(Packet { kind: Kind::Ping, body: b"p", ..Packet::default() });
    assert_eq!(bench.sent(), ["client: ping [1]"]);
    bench.origin(text(br#""channel":"a"}"#));
    assert_eq!(bench.sent(), [r#"control: Grip {\"type\":\"subscribe\",\"channel\":\"a\"}"#]);
}

#[test]
fn a_control_message_without_end_ends_the_websocket() {
    let (mut bench, _) = grip();
    bench.origin(Packet { more: true, ..text(b"c:") });
    // A tenth of what it may have, and a byte too much.
    let piece: &[u8] = Vec::leak(vec![b' '; 100_000]);
    for _ in 0..10 {
        bench.origin(Packet { more: true, ..text(piece) });
    }
    let sent = bench.sent();
    assert!(sent.iter().all(|sent| sent.starts_with("origin: credit")), "{sent:?}");
    bench.origin(Packet { more: true, ..text(b" ") });
    assert_eq!(bench.sent(), ["client: cancel", "origin: cancel", "control: Gone"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_published_close_closes_both_sides() {
    let (mut bench, cid) = grip();
    let item = Item { code: Some(4001), reason: Some(b"bye".into()), ..Item::new(ItemKind::Close, &cid[..]) };
    items(&mut bench, vec![item]);
    assert_eq!(bench.sent(), ["client: close 4001 [3]", "origin: close"]);
    bench.client(close(4001));
    bench.origin(Packet { kind: Kind::Close, ..Packet::default() });
    assert_eq!(bench.sent(), ["control: Gone"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_client_that_the_handler_has_told_to_close_is_not_told_again() {
    let (mut bench, cid) = grip();
    let item = Item { code: Some(4001), told: true, ..Item::new(ItemKind::Close, &cid[..]) };
    items(&mut bench, vec![item]);
    bench.origin(text(b"m:too late"));
    assert_eq!(bench.sent(), ["origin: close"]);
    bench.origin(Packet { kind: Kind::Close, ..Packet::default() });
    bench.client(close(4001));
    assert_eq!(bench.sent(), ["control: Gone"]);
    assert!(bench.engine.is_empty());
}

#[test]
fn a_frontend_that_lets_others_push_is_named_to_the_handler() {
    // With recovery nobody would know, after the handler's end, who has had what it has pushed.
    for (ext, recover_wait) in [(Ext::MULTI, Duration::ZERO), (LANES, Duration::from_secs(10))] {
        let (_, here) = grip_of(ext, recover_wait);
        assert_eq!((here.client, here.lane), (None, None));
    }
    let (_, here) = grip_of(LANES, Duration::ZERO);
    assert_eq!(here.lane, Some(ws_control::Lane { credits: 8192 }));
    assert!(here.client.is_some_and(|client| !client.sender.is_empty() && !client.id.is_empty()));
}

#[test]
fn the_handler_is_told_after_how_many_packets_its_pushes_come_when_that_is_known() {
    let subscribe = || text(br#"c:{"type":"subscribe","channel":"a"}"#);
    let (mut bench, _) = grip_of(LANES, Duration::ZERO);
    // The answer to the handshake and a snapshot have left.
    bench.origin(text(b"m:snapshot"));
    bench.origin(subscribe());
    assert_eq!(told_items(&mut bench)[0].after, Some(2));
    // The end of this one waits for credits.
    bench.origin(Packet { more: true, ..text(b"m:") });
    for _ in 0..3 {
        bench.origin(Packet { more: true, ..text(&[b'x'; 3000]) });
    }
    bench.origin(text(b"end"));
    bench.origin(subscribe());
    let unknown = told_items(&mut bench);
    assert_eq!((unknown.len(), unknown[0].kind, unknown[0].after), (1, ItemKind::Grip, None));
    bench.client(credit(500));
    assert!(told_items(&mut bench).is_empty());
    bench.origin(text(b"m:not waited for"));
    bench.client(credit(10_000));
    let sent = bench.take();
    let packets = sent.iter().filter(|sent| matches!(sent, Sent::Client(..))).count();
    let items = items_of(sent);
    assert_eq!((items.len(), items[0].kind), (1, ItemKind::KeepAlive));
    // Two had left before, then an empty beginning and three parts, one by the first credits, two of what had waited, and the last.
    assert_eq!((packets, items[0].after), (3, Some(2 + 4 + 1 + 2)));
    // An original's frontend gets nothing in this way.
    let (mut bench, _) = grip();
    bench.origin(subscribe());
    assert_eq!(told_items(&mut bench)[0].after, None);
}

#[test]
fn a_detached_client_is_the_handlers_alone() {
    let (mut bench, cid) = grip();
    items(&mut bench, vec![Item::new(ItemKind::Detach, &cid[..])]);
    assert_eq!(bench.sent(), ["origin: close"]);
    bench.origin(Packet { kind: Kind::Close, ..Packet::default() });
    bench.client(text(b"to nobody"));
    assert_eq!(bench.sent(), [""; 0]);
    let send = Item { message: Some(b"news".into()), ..Item::new(ItemKind::Send, &cid[..]) };
    items(&mut bench, vec![send]);
    assert_eq!(bench.sent(), ["client: data [4]"]);
    bench.wait(Duration::from_secs(30));
    bench.take();
    bench.client(close(1000));
    assert_eq!(bench.sent(), ["client: close 1000 [3]", "control: Gone"]);
}

#[test]
fn a_handler_that_does_not_answer_ends_what_needs_it() {
    let (mut bench, _) = grip();
    bench.origin(text(b"c:{}"));
    bench.take();
    bench.wait(Duration::from_secs(9));
    let sent = bench.sent();
    assert!(sent.contains(&"client: cancel".to_string()) && sent.contains(&"origin: cancel".to_string()), "{sent:?}");
    assert!(bench.engine.is_empty());
}

#[test]
fn clients_of_a_handler_that_is_gone_are_closed_within_a_second() {
    let (mut bench, cid) = grip();
    let ack = Item { req_id: Some(b"0".into()), ..Item::new(ItemKind::Ack, &cid[..]) };
    items(&mut bench, vec![ack]);
    bench.engine.accept_lost(bench.now, &mut bench.recorded);
    bench.wait(Duration::from_millis(1100));
    let sent = bench.sent();
    assert!(sent.contains(&"client: close 1012 [15]".to_string()), "{sent:?}");
}

/// What handlers have been told since the last call, an item or a flag each.
fn told(bench: &mut Bench) -> Vec<String> {
    let packet = |sent: &Sent| match sent {
        Sent::Control(bytes) => {
            let packet = ws_control::Packet::decode(bytes).unwrap();
            assert!(packet.from.is_some() || packet.marks.is_empty(), "nobody knows whose they are");
            let marks = packet.marks.iter().map(|mark| format!("mark {} {}", mark.run, mark.id.escape_ascii()));
            let items = packet.items.iter().map(|item| match item.run {
                Some(run) => format!("{:?} again after {run}", item.kind),
                None => format!("{:?}", item.kind),
            });
            marks.chain(items).chain(packet.named_all.then(|| "all".to_string())).collect()
        }
        _ => Vec::new(),
    };
    bench.take().iter().flat_map(packet).collect()
}

#[test]
fn clients_wait_for_a_successor_of_a_handler_that_has_said_that_there_may_be_one() {
    let (mut bench, cid) = grip();
    bench.origin(text(br#"c:{"type":"subscribe","channel":"a"}"#));
    let number = |number: &'static [u8]| Item { req_id: Some(number.into()), ..Item::new(ItemKind::Ack, &cid[..]) };
    let goes_on = |bench: &mut Bench, items| {
        let message = ws_control::Packet { items, takes_up: true, ..Default::default() }.encode().unwrap();
        bench.engine.control_packet(&message, bench.now, &mut bench.recorded);
    };
    goes_on(&mut bench, vec![number(b"0")]);
    // The second message is for others.
    let marks = [(7, &b"m"[..], 1), (8, b"n", 0)].map(|(run, id, count)| ws_control::Mark {
        run,
        channel: b"a".into(),
        id: id.into(),
        first: 0,
        count,
    });
    let send = Item { message: Some(b"news".into()), ..Item::new(ItemKind::Send, &cid[..]) };
    let message = ws_control::Packet { items: vec![send], marks: marks.into(), ..Default::default() };
    bench.engine.control_packet(&message.encode().unwrap(), bench.now, &mut bench.recorded);
    bench.take();
    for question in [&b"1"[..], b"2"] {
        bench.engine.accept_lost(bench.now, &mut bench.recorded);
        bench.wait(Duration::from_secs(8));
        told(&mut bench);
        bench.engine.handler_joined(bench.now, &mut bench.recorded);
        assert_eq!(told(&mut bench), ["mark 7 m", "mark 8 n", "Here again after 7", "Grip", "all"]);
        let question = Item { req_id: Some(question.into()), ..Item::new(ItemKind::Ack, &cid[..]) };
        goes_on(&mut bench, vec![question]);
    }
    bench.wait(Duration::from_secs(11));
    assert!(!bench.sent().iter().any(|sent| sent.contains("1012")));
    // Nobody comes.
    bench.engine.accept_lost(bench.now, &mut bench.recorded);
    bench.wait(Duration::from_millis(10_010));
    bench.wait(Duration::from_millis(1100));
    assert!(bench.sent().contains(&"client: close 1012 [15]".to_string()));
}

#[test]
fn an_unknown_name_is_told_so_and_many_of_one_message_leave_in_one_packet() {
    let (mut bench, cid) = grip();
    items(&mut bench, vec![Item::new(ItemKind::Detach, &b"unknown"[..]), Item::new(ItemKind::Cancel, &b"other"[..])]);
    assert_eq!(bench.sent(), ["control: Cancel"]);
    let send = |cid: &'static [u8]| Item { message: Some(b"news".into()), ..Item::new(ItemKind::Send, cid) };
    items(&mut bench, vec![send(cid.clone().leak()), send(b"gone"), send(cid.leak())]);
    // Both for the same client here, so that one can count them.
    assert_eq!(bench.sent(), ["client: data [4]", "control: Cancel"]);
}

#[test]
fn a_message_for_many_comes_to_each_and_what_is_not_here_is_told_so() {
    let (mut bench, cid) = grip();
    let [here, unknown] = [Uuid::parse(&cid).unwrap(), Uuid::random(9)].map(Uuid::bytes);
    let send = |cid: &'static [u8], also: Vec<u8>| Item {
        message: Some(b"news".into()),
        also: Some(also.into()),
        ..Item::new(ItemKind::Send, cid)
    };
    items(&mut bench, vec![send(b"gone", [unknown, here].concat())]);
    assert_eq!(bench.sent(), ["client: data [4]", "control: Cancel, Cancel"]);
    // Half a name at the end is none.
    items(&mut bench, vec![send(cid.leak(), here[..9].to_vec())]);
    assert_eq!(bench.sent(), ["client: data [4]"]);
    // One that has had it is passed over.
    let mark = |run| ws_control::Mark { run, channel: b"a".into(), id: b"m".into(), first: 0, count: 1 };
    for (run, expected) in [(7, vec!["client: data [4]", "control: Cancel"]), (7, vec!["control: Cancel"])] {
        let items = vec![send(b"gone", here.to_vec())];
        let packet = ws_control::Packet { items, marks: vec![mark(run)], ..Default::default() }.encode().unwrap();
        bench.engine.control_packet(&packet, bench.now, &mut bench.recorded);
        assert_eq!(bench.sent(), expected);
    }
}

#[test]
fn the_test_target_sends_back_what_it_gets() {
    let mut bench = Bench::new("* test");
    bench.request(Packet { uri: Some(b"ws://h/ws?channel=a"), ..Packet::default() });
    let sent = bench.sent();
    assert_eq!(sent[0], "client: data 101 +200000");
    assert!(sent[1].starts_with("control: Here, Grip") && sent[1].contains("subscribe"), "{sent:?}");
    bench.client(text(b"hello"));
    assert_eq!(bench.sent(), ["client: data [5]"]);
    bench.client(close(1000));
    assert_eq!(bench.sent(), ["client: close 1000 [3]", "control: Gone"]);
}

/// Publishes so many bytes to a client that has granted less, and gives what the client gets.
fn publish(bench: &mut Bench, cid: &[u8], bytes: usize) -> Vec<String> {
    let message = vec![b'x'; bytes];
    let item = Item { message: Some((&message[..]).into()), ..Item::new(ItemKind::Send, cid) };
    items(bench, vec![item]);
    client_gets(bench)
}

fn client_gets(bench: &mut Bench) -> Vec<String> {
    bench.sent().into_iter().filter(|sent| sent.starts_with("client")).collect()
}

#[test]
fn a_client_that_is_behind_is_given_time_to_read() {
    let (mut bench, cid) = grip();
    assert_eq!(publish(&mut bench, &cid, 1_100_000), ["client: data [8192] more"]);
    bench.wait(Duration::from_secs(4));
    bench.client(credit(200_000));
    assert_eq!(client_gets(&mut bench), ["client: data [200000] more"]);
    // It has come below the limit, so the time begins anew when it is above again.
    bench.wait(Duration::from_secs(2));
    assert_eq!(publish(&mut bench, &cid, 200_000), [""; 0]);
    bench.wait(Duration::from_millis(4900));
    assert_eq!(client_gets(&mut bench), [""; 0]);
    bench.wait(Duration::from_millis(200));
    assert_eq!(client_gets(&mut bench), ["client: cancel"]);
}

#[test]
fn a_client_that_is_far_behind_is_given_up_at_once() {
    let (mut bench, cid) = grip();
    assert_eq!(publish(&mut bench, &cid, 15_000_000), ["client: data [8192] more"]);
    assert_eq!(publish(&mut bench, &cid, 1_100_000), ["client: cancel"]);
}

#[test]
fn messages_without_content_take_room_as_well() {
    let (mut bench, cid) = grip();
    // So that nothing can leave.
    publish(&mut bench, &cid, 8193);
    let many = || (0..1000).map(|_| Item { message: Some((&b""[..]).into()), ..Item::new(ItemKind::Send, &cid[..]) });
    for _ in 0..20 {
        items(&mut bench, many().collect());
    }
    bench.wait(Duration::from_secs(6));
    assert_eq!(client_gets(&mut bench), ["client: cancel"]);
}
