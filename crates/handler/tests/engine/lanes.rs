// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets whose frontend lets us push: frames go straight to it, beside the proxy, and must not come before what the
//! proxy has sent.

use std::time::Duration;

use handler::engine::Limits;
use proptest::prelude::*;
use rpc::ws_control::{Client, Item, Kind, Lane};
use zhttp::{Ids, Kind as PacketKind, Packet};

use super::desk::{Desk, LIMITS};
use super::websockets::{grip, here, item, subscribe};

const SECOND: Duration = Duration::from_secs(1);

/// A session of the frontend `f` that has the WebSocket's name.
fn offered(cid: &str, credits: u32) -> Item<'_> {
    let client = Client { sender: "f".into(), id: cid.into(), router_resp: true };
    Item { client: Some(client), lane: Some(Lane { credits }), ..here(cid) }
}

fn after(number: u32, item: Item<'_>) -> Item<'_> {
    Item { after: Some(number), ..item }
}

impl Desk {
    /// WebSockets that are subscribed to a channel and pushed into.
    fn lanes(&mut self, cids: &[&str], channel: &str, credits: u32) {
        self.peer("f");
        let message = subscribe(channel);
        for cid in cids {
            self.control(vec![offered(cid, credits), after(1, grip(cid, &message))]);
        }
        self.told();
        self.turn();
    }
}

#[test]
fn a_publish_is_framed_once_and_is_one_packet_for_many() {
    let mut desk = Desk::new(LIMITS);
    let names: Vec<String> = (0..130).map(|n| n.to_string()).collect();
    desk.lanes(&names.iter().map(String::as_str).collect::<Vec<_>>(), "x", 100);
    for message in [r#"{"content":"hi"}"#, r#"{"content-bin":"AQI="}"#, r#"{"type":"ping"}"#] {
        desk.message("x", message);
    }
    let sent = desk.turn();
    assert_eq!(sent.iter().map(|line| line.matches('#').count()).collect::<Vec<_>>(), [128, 2]);
    // No `more`: the packet ends with a message.
    assert_eq!(
        sent[1],
        format!("f by router 128#1,129#1 lane 1 {:?}", "\u{fffd}\u{2}hi\u{fffd}\u{2}\u{1}\u{2}\u{fffd}\0")
    );
    assert_eq!(desk.told(), [[""; 0]; 0]);
    assert_eq!((desk.engine.held(), desk.engine.websockets()), (0, 130));
}

#[test]
fn the_frontend_is_told_what_comes_first_before_anything_is_pushed() {
    let mut desk = Desk::new(LIMITS);
    desk.peer("f");
    // Without a word of the backend there is nothing to push.
    desk.control(vec![offered("a", 100)]);
    assert_eq!(desk.turn(), [""; 0]);
    let (x, y) = (subscribe("x"), subscribe("y"));
    desk.control(vec![after(3, grip("a", &x))]);
    desk.message("x", r#"{"content":"1"}"#);
    desk.control(vec![after(5, grip("a", &y))]);
    desk.message("x", r#"{"content":"2"}"#);
    // What was published before the second subscription does not wait for it.
    let expected = [
        "follow x",
        "f by router a#0 lane 1 keep-alive after 3",
        "f by router a#1 lane 1 \"\u{fffd}\\u{1}1\"",
        "follow y",
        "f by router a#2 lane 1 keep-alive after 5",
        "f by router a#3 lane 1 \"\u{fffd}\\u{1}2\"",
    ];
    let mut sent = desk.turn();
    sent.sort_by_key(|line| line.contains("follow"));
    let mut expected = expected.map(str::to_string).to_vec();
    expected.sort_by_key(|line| line.contains("follow"));
    assert_eq!(sent, expected);
    desk.control(vec![after(5, grip("a", r#"{"type":"unsubscribe","channel":"y"}"#))]);
    assert_eq!(desk.turn(), ["unfollow y"]);
}

#[test]
fn nothing_is_pushed_until_the_proxy_knows_what_comes_first() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a", "b"], "x", 100);
    let (cid, again) = ("a", subscribe("x"));
    // Something of the backend waits in the proxy.
    desk.control(vec![grip(cid, &again)]);
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), ["f by router b#1 lane 1 \"\u{fffd}\\u{1}1\""]);
    desk.grant("f", cid, 1, 50);
    desk.message("x", r#"{"action":"close"}"#);
    assert_eq!(desk.turn(), ["unfollow x", "f by router b#2 lane 1 close"]);
    assert_eq!(desk.told(), [["b Close told"]]);
    desk.control(vec![after(7, item(Kind::KeepAlive, cid))]);
    let expected = [
        "f by router a#1 lane 1 keep-alive after 7",
        "f by router a#2 lane 1 \"\u{fffd}\\u{1}1\"",
        "f by router a#3 lane 1 close",
    ];
    assert_eq!(desk.turn(), expected);
    assert_eq!(desk.told(), [["a Close told"]]);
}

#[test]
fn a_close_comes_behind_what_waits_and_the_proxy_hears_of_it_then() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a"], "x", 3);
    desk.message("x", r#"{"content":"12345"}"#);
    desk.message("x", r#"{"action":"close","code":4001,"reason":"bye"}"#);
    desk.message("x", r#"{"content":"late"}"#);
    // In the middle of a message: more of it follows.
    assert_eq!(desk.turn(), ["unfollow x", "f by router a#1 lane 1 \"\u{fffd}\\u{5}1\" more"]);
    assert_eq!(desk.told(), [[""; 0]; 0]);
    desk.grant("f", "a", 1, 100);
    assert_eq!(desk.turn(), ["f by router a#2 lane 1 \"2345\"", "f by router a#3 lane 1 close 4001  \"bye\""]);
    assert_eq!(desk.told(), [["a Close told 4001 \"bye\""]]);
    desk.control(vec![item(Kind::Gone, "a")]);
    assert_eq!((desk.turn().len(), desk.engine.websockets()), (0, 0));
}

#[test]
fn a_slow_reader_is_ended_by_the_measure_of_streams() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a", "b"], "x", 10);
    desk.grant("f", "b", 1, 1000);
    desk.message("x", &format!("{{\"content\":\"{}\"}}", "x".repeat(300)));
    desk.turn();
    assert_eq!(desk.told(), [[""; 0]; 0]);
    desk.pass(5 * SECOND + SECOND / 5);
    assert_eq!(desk.told(), [["a Cancel"]]);
    assert_eq!((desk.engine.totals().slow_closed, desk.engine.websockets()), (1, 1));
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), ["f by router b#2 lane 1 \"\u{fffd}\\u{1}1\""]);
}

#[test]
fn those_without_a_lane_are_reached_by_the_proxy() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a"], "x", 100);
    let message = subscribe("x");
    desk.control(vec![here("b"), grip("b", &message)]);
    // One whose frontend is not known.
    let client = Client { sender: "nobody".into(), id: "c".into(), router_resp: false };
    let here = Item { client: Some(client), lane: Some(Lane { credits: 9 }), ..here("c") };
    desk.control(vec![here, after(1, grip("c", &message))]);
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), ["f by router a#1 lane 1 \"\u{fffd}\\u{1}1\""]);
    assert_eq!(desk.told(), [["b Send text \"1\"", "c Send text \"1\""]]);
    // What filters have made too long for a frame is refused where it always was; no publisher can send it as it is.
    let meta = format!(r#"{{"type":"set-meta","name":"u","value":"{}"}}"#, "x".repeat(126));
    let filtered = r#"{"type":"subscribe","channel":"y","filters":["var-subst"]}"#;
    desk.control(vec![grip("a", &meta), after(1, grip("a", filtered))]);
    desk.turn();
    desk.message("y", r#"{"type":"ping","content":"%(u)s"}"#);
    assert_eq!((desk.turn().len(), desk.told().concat().len()), (0, 1));
}

#[test]
fn several_channels_of_a_turn_keep_their_order() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a", "b"], "x", 100);
    desk.control(vec![after(1, grip("b", &subscribe("y")))]);
    desk.stream("f", "s", "x");
    desk.turn();
    for (channel, content) in [("x", "1"), ("y", "2"), ("x", "3")] {
        desk.message(channel, &format!("{{\"content\":\"{content}\"}}"));
    }
    desk.content("x", "stream");
    let mut sent = desk.turn();
    sent.sort();
    let frames = |contents: &[&str]| contents.iter().map(|c| format!("\u{fffd}\\u{{1}}{c}")).collect::<String>();
    let expected = [
        format!("f by router a#1 lane 1 \"{}\"", frames(&["1", "3"])),
        format!("f by router b#1 lane 1 \"{}\"", frames(&["1", "2", "3"])),
        "f s#2 \"stream\" more".to_string(),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn delayed_messages_go_the_way_of_pushes_and_nobody_acknowledges_them() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a"], "x", 100);
    desk.control(vec![after(1, grip("a", r#"{"type":"send-delayed","content":"d","timeout":3}"#))]);
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), ["f by router a#1 lane 1 \"\u{fffd}\\u{1}1\""]);
    assert_eq!(desk.pass(3 * SECOND + SECOND / 10), ["f by router a#2 lane 1 \"\u{fffd}\\u{1}d\""]);
    desk.pass(10 * SECOND);
    assert_eq!((desk.told(), desk.engine.websockets()), (vec![], 1));
}

#[test]
fn keep_alives_are_pushed_and_count_what_was_pushed() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a"], "x", 100);
    desk.control(vec![after(1, grip("a", r#"{"type":"keep-alive","content":"k","timeout":20}"#))]);
    assert_eq!(desk.told(), [["a KeepAliveSetup 20s idle"]]);
    desk.pass(12 * SECOND);
    desk.message("x", r#"{"content":"1"}"#);
    desk.turn();
    desk.pass(8 * SECOND);
    // The proxy has seen nothing; the client has.
    desk.control(vec![item(Kind::NeedKeepAlive, "a")]);
    assert_eq!((desk.told(), desk.turn().len()), (vec![vec!["a KeepAliveSetup 12s idle".to_string()]], 0));
    desk.pass(12 * SECOND);
    desk.control(vec![item(Kind::NeedKeepAlive, "a")]);
    assert_eq!(desk.told(), [["a KeepAliveSetup 20s idle"]]);
    assert_eq!(desk.turn(), ["f by router a#2 lane 1 \"\u{fffd}\\u{1}k\""]);
    // By interval, the proxy goes on by itself.
    desk.control(vec![after(1, grip("a", r#"{"type":"keep-alive","content":"k","timeout":20,"mode":"interval"}"#))]);
    desk.told();
    desk.control(vec![item(Kind::NeedKeepAlive, "a")]);
    assert_eq!((desk.told(), desk.turn().len()), (vec![], 1));
}

#[test]
fn one_that_its_frontend_or_proxy_ends_is_forgotten_and_one_that_breaks_the_rules_is_ended() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a", "b", "c", "d"], "x", 100);
    desk.cancel("f", "a");
    desk.control(vec![item(Kind::Gone, "b")]);
    desk.grant("f", "c", 7, 1);
    assert_eq!(desk.told(), [["c Cancel"]]);
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), ["f by router d#1 lane 1 \"\u{fffd}\\u{1}1\""]);
    let (to, now) = (handler::context::Address { peer: desk.peer("f"), by_router: true }, desk.now);
    desk.engine.on_peer_gone(to, &mut handler::context::Context::new(now, &mut desk.out));
    assert_eq!(desk.engine.websockets(), 0);
    desk.lanes(&["e"], "x", 100);
    desk.link("f", handler::context::Sent::Lost);
    desk.message("x", r#"{"content":"1"}"#);
    desk.turn();
    assert_eq!(desk.engine.websockets(), 0);
}

#[test]
fn the_lane_is_kept_alive_and_not_closed_when_we_stop() {
    let mut desk = Desk::new(LIMITS);
    desk.lanes(&["a"], "x", 100);
    desk.control(vec![item(Kind::KeepAlive, "a")]);
    let sent = desk.pass(46 * SECOND);
    assert_eq!(sent, ["f by router a#1 lane 1 keep-alive"]);
    let now = desk.now;
    desk.engine.shut_down(&mut handler::context::Context::new(now, &mut desk.out));
    assert_eq!(desk.written(), [""; 0]);
}

#[test]
fn a_limited_rate_keeps_the_order_of_pushes() {
    let mut desk = Desk::new(Limits { message_rate: Some(40), ..LIMITS });
    desk.lanes(&["a", "b"], "x", 100);
    for message in [r#"{"content":"1"}"#, r#"{"content":"2"}"#, r#"{"action":"close"}"#] {
        desk.message("x", message);
    }
    let mut sent = desk.turn();
    sent.extend(desk.pass(SECOND));
    let to_a: Vec<_> = sent.iter().filter(|line| line.contains("a#")).collect();
    assert!(to_a[0].contains("\\u{1}1"), "{sent:?}");
    assert!(to_a.last().is_some_and(|line| line.ends_with("close")), "{sent:?}");
    assert_eq!(desk.told().concat(), ["a Close told", "b Close told"]);
}

/// Takes frames apart; what is left is a part of one.
fn frames(mut bytes: &[u8]) -> (Vec<usize>, usize) {
    let mut lengths = Vec::new();
    loop {
        let (header, len) = match bytes {
            [0x81, len @ ..=125, ..] => (2, usize::from(*len)),
            [0x81, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => return (lengths, bytes.len()),
        };
        if bytes.len() < header + len {
            return (lengths, bytes.len());
        }
        lengths.push(len);
        bytes = &bytes[header + len..];
    }
}

proptest! {
    /// Whatever the credits: each client gets all messages, in order, and a packet that says that no message goes on ends
    /// with one.
    #[test]
    fn in_any_turns_messages_arrive_whole_and_in_order(
        steps in prop::collection::vec((0u8..6, 0usize..2, 1usize..300), 1..80),
    ) {
        let mut desk = Desk::new(Limits { queue_bytes: 1_000_000, ..LIMITS });
        let cids = ["a", "b"];
        desk.out.bodies = Some(Vec::new());
        desk.lanes(&cids, "x", 5);
        let (mut published, mut seqs) = (Vec::new(), [1, 1]);
        for (what, who, len) in steps {
            match what {
                0 | 1 => {
                    published.push(len);
                    desk.message("x", &format!("{{\"content\":\"{}\"}}", "m".repeat(len)));
                }
                2 => drop(desk.turn()),
                3 => desk.control(vec![grip(cids[who], r#"{"type":"set-meta","name":"n","value":"v"}"#)]),
                4 => desk.control(vec![after(len as u32, item(Kind::KeepAlive, cids[who]))]),
                _ => {
                    desk.grant("f", cids[who], seqs[who], len as u32);
                    seqs[who] += 1;
                }
            }
        }
        for (who, cid) in cids.into_iter().enumerate() {
            desk.control(vec![after(1000, item(Kind::KeepAlive, cid))]);
            let ids = Ids::One(cid.as_bytes(), Some(seqs[who]));
            let credits = Some(1_000_000);
            desk.packet("f", Packet { ids, kind: PacketKind::Credit, credits, ..Packet::default() });
        }
        desk.turn();
        for cid in cids {
            let mut got = Vec::new();
            let to_it = |(id, body, _): &&(String, Vec<u8>, bool)| id == cid && !body.is_empty();
            for (_, body, more) in desk.out.bodies.iter().flatten().filter(to_it) {
                got.extend_from_slice(body);
                prop_assert!(*more || frames(&got).1 == 0, "a packet to {cid} ends within a message and says that it does not");
            }
            prop_assert_eq!(frames(&got), (published.clone(), 0));
        }
    }
}
