// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets: items of the proxy in, items for the proxy out.

use std::time::Duration;

use handler::context::Sent;
use proptest::prelude::*;
use rpc::uuid::Uuid;
use rpc::ws_control::{Item, Kind, Mark, Packet};

use super::desk::{Desk, LIMITS};

const SECOND: Duration = Duration::from_secs(1);

pub fn item<'a>(kind: Kind, cid: &'a str) -> Item<'a> {
    Item::new(kind, cid)
}

pub fn grip<'a>(cid: &'a str, message: &'a str) -> Item<'a> {
    Item { message: Some(message.into()), ..item(Kind::Grip, cid) }
}

pub fn here(cid: &str) -> Item<'_> {
    Item { uri: Some("ws://x/".into()), ttl: Some(60), ..item(Kind::Here, cid) }
}

pub fn subscribe(channel: &str) -> String {
    format!("{{\"type\":\"subscribe\",\"channel\":\"{channel}\"}}")
}

/// An item in a line.
fn line(item: &Item<'_>) -> String {
    let text = |octets: &Option<rpc::Octets<'_>>| octets.as_deref().map(|b| String::from_utf8_lossy(b).into_owned());
    let mut line = format!("{} {:?}", String::from_utf8_lossy(&item.cid), item.kind);
    for part in [
        text(&item.req_id).map(|number| format!(" #{number}")),
        text(&item.content_type).map(|name| format!(" {name}")),
        text(&item.message).map(|message| format!(" {message:?}")),
        item.queue.then(|| " queue".to_string()),
        item.told.then(|| " told".to_string()),
        item.code.map(|code| format!(" {code}")),
        text(&item.reason).map(|reason| format!(" {reason:?}")),
        item.timeout.map(|timeout| format!(" {timeout}s")),
        text(&item.keep_alive_mode).map(|mode| format!(" {mode}")),
    ] {
        line += &part.unwrap_or_default();
    }
    line
}

#[test]
fn websockets_that_are_named_again_get_what_they_have_not_had() {
    let mut desk = Desk::new(LIMITS);
    let proxy = desk.peer("proxy");
    desk.engine.expect_websockets(desk.now + 10 * SECOND);
    let marks =
        [(5, "1"), (6, "2")].map(|(run, id)| Mark { run, channel: "c".into(), id: id.into(), ..Mark::default() });
    desk.engine.note_sent_to_sockets(proxy, &marks, desk.now);
    desk.control(vec![grip("a", "{}"), item(Kind::KeepAlive, "a")]);
    assert!(desk.told().is_empty(), "it may still be named");
    for (cid, run) in [("a", 5), ("b", 6)] {
        desk.control(vec![Item { run: Some(run), ..here(cid) }, grip(cid, &subscribe("c"))]);
    }
    assert_eq!(desk.engine.on_all_named(), 2);
    desk.engine.on_recovered();
    // One that has come since knows what comes from now on.
    desk.control(vec![here("new"), grip("new", &subscribe("c"))]);
    desk.told();
    let mut publish = |id: &str| {
        let formats = format!(r#""formats":{{"ws-message":{{"content":"{id}"}}}}"#);
        desk.publish_item(&format!(r#""channel":"c","id":"{id}",{formats}"#));
        desk.told().concat()
    };
    assert_eq!(publish("1"), [""; 0]);
    assert_eq!(publish("2"), ["a Send text \"2\""]);
    let all = publish("3");
    assert_eq!(all.len(), 3, "{all:?}");
    // It has missed that.
    desk.control(vec![Item { run: Some(6), ..here("late") }, grip("late", &subscribe("c"))]);
    assert_eq!(desk.told().concat()[0], "late Close 1012 \"service restart\"");
}

#[test]
fn a_packet_says_which_items_are_of_which_message() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b"], "c");
    for more in [r#""id":"1","#, "", r#""id":"2","#] {
        let formats = r#""formats":{"ws-message":{"content":"x"}}"#;
        desk.publish_item(&format!(r#""channel":"c",{more}{formats}"#));
    }
    desk.engine.flush(&mut handler::context::Context::new(desk.now, &mut desk.out));
    let packets = std::mem::take(&mut desk.out.control);
    let packet = Packet::decode(&packets[0]).unwrap();
    let marks: Vec<_> = packet.marks.iter().map(|mark| (mark.run, &mark.id[..], mark.first, mark.count)).collect();
    assert_eq!((packets.len(), marks), (1, vec![(1, &b"1"[..], 0, 2), (2, b"", 2, 2), (3, b"2", 4, 2)]));
}

#[test]
fn a_proxy_that_takes_them_gets_one_item_for_all_websockets_of_a_message() {
    let mut desk = Desk::new(LIMITS);
    let names = [1, 2, 3].map(|number| Uuid::random(number).text());
    let names = [&names[0][..], &names[1], &names[2], b"another"].map(|name| std::str::from_utf8(name).unwrap());
    desk.sockets(&names, "c");
    desk.told();
    let publish = |desk: &mut Desk| -> Vec<(String, Vec<Uuid>)> {
        for _ in 0..2 {
            desk.publish_item(r#""channel":"c","formats":{"ws-message":{"content":"x"}}"#);
        }
        desk.engine.flush(&mut handler::context::Context::new(desk.now, &mut desk.out));
        let [packet] = &std::mem::take(&mut desk.out.control)[..] else { panic!("not one packet") };
        let packet = Packet::decode(packet).unwrap();
        let marked: Vec<_> = packet.marks.iter().map(|mark| (mark.first, mark.count)).collect();
        let half = packet.items.len() as u32 / 2;
        assert_eq!(marked, [(0, half), (half, half)]);
        let also = |item: &Item<'_>| item.also.iter().flat_map(|also| Uuid::parse_many(also)).collect();
        packet.items.iter().map(|item| (line(item), also(item))).collect()
    };
    assert_eq!(publish(&mut desk).len(), 8);
    for (many, expected) in [(true, 4), (false, 8)] {
        let packet = Packet { named_all: true, many, ..Packet::default() };
        desk.engine.on_control(&packet, &mut handler::context::Context::new(desk.now, &mut desk.out));
        assert_eq!(publish(&mut desk).len(), expected);
    }
    let packet = Packet { named_all: true, many: true, ..Packet::default() };
    desk.engine.on_control(&packet, &mut handler::context::Context::new(desk.now, &mut desk.out));
    let [(first, also), (other, none), ..] = &publish(&mut desk)[..] else { panic!() };
    assert_eq!(also[..], [Uuid::random(2), Uuid::random(3)]);
    assert!(first.starts_with(names[0]) && other.starts_with("another") && none.is_empty(), "{first} {other}");
    // Those that were lost are all told so when they are named again.
    desk.out.links.push(("control".into(), Sent::Lost));
    desk.message("c", r#"{"content":"z"}"#);
    desk.engine.flush(&mut handler::context::Context::new(desk.now, &mut desk.out));
    desk.out.links.clear();
    for name in names {
        desk.control(vec![item(Kind::KeepAlive, name)]);
    }
    let told = desk.told().concat();
    assert!(names.iter().all(|name| told.contains(&format!("{name} Cancel"))), "{told:?}");
    // A proxy that comes next has not said it yet.
    desk.sockets(&names, "c");
    desk.engine.proxy_left();
    desk.engine.on_all_named();
    assert_eq!(publish(&mut desk).len(), 8);
}

#[test]
fn what_a_successor_of_the_proxy_is_sent_again_follows_its_answer_and_says_which_message_it_is_of() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b"], "c");
    desk.publish_item(r#""channel":"c","id":"1","formats":{"ws-message":{"content":"x"}}"#);
    desk.told();
    desk.engine.proxy_left();
    let named = |cid| Item { run: Some(0), req_id: Some("7".into()), ..here(cid) };
    desk.control(vec![named("a"), named("b")]);
    let packets = std::mem::take(&mut desk.out.control);
    let [packet] = &packets[..] else { panic!("{} packets", packets.len()) };
    let packet = Packet::decode(packet).unwrap();
    let lines: Vec<_> = packet.items.iter().map(line).collect();
    assert_eq!(lines, ["a Ack #7", "a Send text \"x\"", "b Ack #7", "b Send text \"x\""]);
    let marks: Vec<_> = packet.marks.iter().map(|mark| (mark.run, mark.first, mark.count)).collect();
    assert_eq!(marks, [(1, 1, 1), (1, 3, 1)]);
}

#[test]
fn what_is_published_for_websockets_that_nobody_has_named_waits_and_its_publisher_as_well() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b"], "c");
    desk.engine.proxy_left();
    assert!(!desk.engine.waits_for_names(), "nothing has been published since");
    desk.message("c", r#"{"content":"x"}"#);
    assert!(desk.told().is_empty() && desk.engine.waits_for_names());
    desk.control(vec![Item { run: Some(0), ..here("a") }]);
    assert_eq!((desk.told().concat(), desk.engine.waits_for_names()), (vec!["a Send text \"x\"".into()], true));
    desk.control(vec![item(Kind::Gone, "b")]);
    assert!(!desk.engine.waits_for_names());
}

impl Desk {
    /// What the proxy has been told, an item a line; packets are apart.
    pub fn told(&mut self) -> Vec<Vec<String>> {
        self.engine.flush(&mut handler::context::Context::new(self.now, &mut self.out));
        let packets = std::mem::take(&mut self.out.control);
        let lines = |packet: &Vec<u8>| Packet::decode(packet).unwrap().items.iter().map(line).collect();
        packets.iter().map(lines).collect()
    }

    pub fn control(&mut self, items: Vec<Item<'_>>) {
        let packet = Packet { items, ..Default::default() };
        let packet = packet.encode().unwrap();
        let packet = Packet::decode(&packet).unwrap();
        self.engine.on_control(&packet, &mut handler::context::Context::new(self.now, &mut self.out));
    }

    /// WebSockets that are subscribed to a channel.
    fn sockets(&mut self, cids: &[&str], channel: &str) {
        for cid in cids {
            self.control(vec![here(cid), grip(cid, &subscribe(channel))]);
        }
        self.told();
        self.written();
    }

    pub fn message(&mut self, channel: &str, message: &str) {
        self.publish(channel, &format!("\"ws-message\":{message}"));
    }
}

#[test]
fn packets_are_those_of_the_original() {
    let mut desk = Desk::new(handler::engine::Limits { records: false, ..LIMITS });
    let packet = Packet::decode(b"115:5:items,102:98:3:cid,1:c,4:type,4:here,6:req-id,1:0,3:uri,7:ws://x/,5:route,1:r,14:channel-prefix,1:p,3:ttl,2:60#}]}").unwrap();
    desk.engine.on_control(&packet, &mut handler::context::Context::new(desk.now, &mut desk.out));
    desk.control(vec![grip("c", &subscribe("x"))]);
    desk.message("px", r#"{"content":"hi"}"#);
    desk.turn();
    let sent: Vec<String> = desk.out.control.iter().map(|packet| String::from_utf8(packet.clone()).unwrap()).collect();
    let expected = [
        "52:5:items,40:36:3:cid,1:c,4:type,3:ack,6:req-id,1:0,}]}",
        "78:5:items,66:62:3:cid,1:c,4:type,4:send,12:content-type,4:text,7:message,2:hi,}]}",
    ];
    assert_eq!(sent, expected);
}

#[test]
fn acknowledgements_and_what_an_item_leads_to_share_a_packet() {
    let mut desk = Desk::new(LIMITS);
    let numbered = |item, number: &'static str| Item { req_id: Some(number.into()), ..item };
    desk.control(vec![
        numbered(here("a"), "0"),
        numbered(grip("a", r#"{"type":"keep-alive","content":"ka","timeout":2}"#), "1"),
        numbered(grip("a", "nonsense"), "2"),
        item(Kind::NeedKeepAlive, "a"),
        numbered(item(Kind::KeepAlive, "b"), "9"),
        item(Kind::Cancel, "b"),
        numbered(item(Kind::Ack, "a"), "7"),
    ]);
    let expected =
        ["a Ack #0", "a Ack #1", "a KeepAliveSetup 2s idle", "a Ack #2", "a Send text \"ka\"", "b Ack #9", "b Cancel"];
    assert_eq!(desk.told(), [expected]);
    assert_eq!(desk.out.warnings.len(), 1);
    desk.control(vec![grip("a", r#"{"type":"keep-alive"}"#), item(Kind::NeedKeepAlive, "a")]);
    assert_eq!(desk.told(), [["a KeepAliveSetup"]]);
}

#[test]
fn a_publish_is_for_those_who_are_subscribed_and_many_share_a_packet() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b", "c"], "x");
    desk.control(vec![grip("b", r#"{"type":"unsubscribe","channel":"x"}"#)]);
    for message in [r#"{"content":"1"}"#, r#"{"content-bin":"AQI="}"#, r#"{"type":"ping"}"#, r#"{"action":"hint"}"#] {
        desk.message("x", message);
    }
    let each = ["Send text \"1\"", "Send binary \"\\u{1}\\u{2}\"", "Send ping"];
    let expected: Vec<String> = each.iter().flat_map(|what| [format!("a {what}"), format!("c {what}")]).collect();
    assert_eq!(desk.told(), [expected]);
    desk.control(vec![item(Kind::Gone, "a"), item(Kind::Gone, "c")]);
    assert_eq!((desk.written(), desk.engine.websockets()), (vec!["unfollow x".to_string()], 1));
}

#[test]
fn a_packet_has_128_items_or_256_kb_at_most_and_refresh_is_apart() {
    let mut desk = Desk::new(LIMITS);
    let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
    desk.sockets(&names.iter().map(String::as_str).collect::<Vec<_>>(), "x");
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.told().iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
    desk.message("x", &format!("{{\"content\":\"{}\"}}", "x".repeat(100_000)));
    assert!(desk.told().iter().all(|packet| packet.len() == 2));
    desk.control(names[1..].iter().map(|name| item(Kind::Gone, name)).collect());
    for message in [r#"{"content":"1"}"#, r#"{"action":"refresh"}"#, r#"{"content":"2"}"#] {
        desk.message("x", message);
    }
    assert_eq!(desk.told(), [["000 Send text \"1\""], ["000 Refresh"], ["000 Send text \"2\""]]);
}

#[test]
fn backends_are_asked_by_channel() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b"], "x");
    desk.engine.refresh_channel("x", &mut handler::context::Context::new(desk.now, &mut desk.out));
    desk.engine.refresh_channel("none", &mut handler::context::Context::new(desk.now, &mut desk.out));
    assert_eq!(desk.told(), [["a Refresh", "b Refresh"]]);
}

#[test]
fn a_channel_of_the_route_stays_and_the_others_are_limited() {
    let mut desk = Desk::new(LIMITS);
    let route = Item { channel: Some("route".into()), req_id: Some("1".into()), ..item(Kind::Subscribe, "a") };
    desk.control(vec![Item { channel_prefix: Some("p-".into()), ..here("a") }, route]);
    let all: Vec<String> = (0..30).map(|n| subscribe(&n.to_string())).collect();
    desk.control(all.iter().map(|message| grip("a", message)).collect());
    let follows = desk.written();
    assert_eq!((follows.len(), &*follows[0], &*follows[1]), (20, "follow route", "follow p-0"));
    let unsubscribe = |channel: &str| format!("{{\"type\":\"unsubscribe\",\"channel\":\"{channel}\"}}");
    desk.control(vec![grip("a", &unsubscribe("route")), grip("a", &unsubscribe("0"))]);
    assert_eq!(desk.written(), ["unfollow p-0"]);
}

#[test]
fn a_route_channel_that_has_the_prefix_can_not_be_unsubscribed_from() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a"], "x");
    desk.control(vec![Item { channel: Some("x".into()), ..item(Kind::Subscribe, "a") }]);
    desk.control(vec![grip("a", r#"{"type":"unsubscribe","channel":"x"}"#)]);
    assert_eq!(desk.written(), [""; 0]);
}

#[test]
fn a_close_is_the_last_thing() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a"], "x");
    desk.message("x", r#"{"content":"1"}"#);
    desk.message("x", r#"{"action":"close","code":4001,"reason":"bye"}"#);
    desk.message("x", r#"{"content":"2"}"#);
    desk.control(vec![grip("a", &subscribe("y")), item(Kind::NeedKeepAlive, "a")]);
    desk.message("y", r#"{"content":"3"}"#);
    assert_eq!(desk.told().concat(), ["a Send text \"1\"", "a Close 4001 \"bye\""]);
    assert_eq!(desk.written(), ["unfollow x"]);
}

#[test]
fn filters_follow_what_the_backend_sets() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b", "c"], "other");
    let filtered = r#"{"type":"subscribe","channel":"x","filters":["skip-self","var-subst"]}"#;
    let user = |name: &str| format!("{{\"type\":\"set-meta\",\"name\":\"user\",\"value\":\"{name}\"}}");
    for (cid, name) in [("a", "ann"), ("b", "bob"), ("c", "ann")] {
        desk.control(vec![grip(cid, filtered), grip(cid, &user(name))]);
    }
    let item = |content: &str| {
        format!("\"channel\":\"x\",\"meta\":{{\"sender\":\"bob\"}},\"ws-message\":{{\"content\":\"{content}\"}}")
    };
    desk.publish_item(&item("hi %(user)s"));
    assert_eq!(desk.told(), [["a Send text \"hi ann\"", "c Send text \"hi ann\""]]);
    desk.control(vec![grip("b", &user("eve")), grip("c", &user("bob"))]);
    desk.publish_item(&item("hi %(user)s"));
    assert_eq!(desk.told(), [["a Send text \"hi ann\"", "b Send text \"hi eve\""]]);
    desk.control(vec![grip("c", &subscribe("x"))]);
    desk.publish_item(&item("%(user)s"));
    let told = desk.told().concat();
    assert!(told.contains(&"c Send text \"%(user)s\"".to_string()), "{told:?}");
}

#[test]
fn another_subscription_may_be_required_and_has_its_name_without_the_prefix() {
    let mut desk = Desk::new(LIMITS);
    let filtered = r#"{"type":"subscribe","channel":"x","filters":["require-sub"]}"#;
    for cid in ["a", "b"] {
        desk.control(vec![Item { channel_prefix: Some("p-".into()), ..here(cid) }, grip(cid, filtered)]);
    }
    desk.control(vec![grip("b", &subscribe("vip"))]);
    let meta = "\"channel\":\"p-x\",\"meta\":{\"require_sub\":\"vip\"},\"ws-message\":{\"content\":\"1\"}";
    desk.publish_item(meta);
    assert_eq!(desk.told(), [["b Send text \"1\""]]);
    desk.control(vec![grip("b", r#"{"type":"unsubscribe","channel":"vip"}"#)]);
    desk.publish_item(meta);
    assert_eq!(desk.told(), [[""; 0]; 0]);
}

#[test]
fn what_can_not_be_ends_the_connection_and_is_named_only_with_debug() {
    for debug in [false, true] {
        let mut desk = Desk::new(LIMITS);
        let reason = |text: &str| if debug { format!(" {text:?}") } else { String::new() };
        for cid in ["a", "c"] {
            desk.control(vec![Item { debug, ..here(cid) }]);
        }
        let six = r#"{"type":"subscribe","channel":"x","filters":["a","b","c","d","e","f"]}"#;
        desk.control(vec![grip("a", six)]);
        assert_eq!(desk.told(), [[format!("a Close 1011{}", reason("too many filters for channel 'x'"))]]);
        desk.control(vec![grip("c", r#"{"type":"subscribe","channel":"x","filters":["var-subst"]}"#)]);
        desk.message("x", r#"{"content":"%(none)s"}"#);
        let told = desk.told();
        match debug {
            true => {
                assert_eq!(told, [["c Close 1011 \"filter error: var-subst: No such variable 'none' at position 7\""]])
            }
            false => assert!(told.is_empty(), "{told:?}"),
        }
    }
}

#[test]
fn a_delayed_message_waits_and_must_be_acknowledged() {
    let mut desk = Desk::new(LIMITS);
    let delayed = |content: &str| format!("{{\"type\":\"send-delayed\",\"content\":\"{content}\",\"timeout\":3}}");
    desk.control(vec![here("a"), grip("a", &delayed("1")), grip("a", &delayed("2"))]);
    assert_eq!(desk.told(), [["a Send #0 text \"1\" queue"]]);
    desk.pass(2 * SECOND);
    assert_eq!(desk.told(), [[""; 0]; 0]);
    desk.pass(SECOND + SECOND / 10);
    assert_eq!(desk.told(), [["a Send #1 text \"2\" queue"]]);
    desk.control(vec![grip("a", &delayed("3")), grip("a", r#"{"type":"flush-delayed"}"#)]);
    assert_eq!(desk.told(), [["a Send #2 text \"3\" queue"]]);
    for number in ["0", "1"] {
        desk.control(vec![Item { req_id: Some(number.into()), ..item(Kind::Ack, "a") }]);
    }
    desk.pass(7 * SECOND);
    assert_eq!((desk.told(), desk.engine.websockets()), (vec![], 1));
    desk.pass(2 * SECOND);
    assert_eq!((desk.told(), desk.engine.websockets()), (vec![vec!["a Cancel".to_string()]], 0));
    assert_eq!(desk.engine.totals().websockets_unanswered, 1);
}

#[test]
fn one_that_the_proxy_does_not_name_is_forgotten() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a", "b"], "x");
    desk.pass(45 * SECOND);
    desk.control(vec![Item { ttl: Some(60), ..item(Kind::KeepAlive, "a") }]);
    desk.pass(30 * SECOND);
    assert_eq!((desk.engine.websockets(), desk.engine.totals().websockets_expired), (1, 1));
    assert_eq!(desk.pass(31 * SECOND), ["unfollow x"]);
    assert_eq!(desk.engine.websockets(), 0);
    // Its own proxy is told as soon as it names it.
    desk.control(vec![item(Kind::KeepAlive, "a")]);
    assert_eq!(desk.told(), [["a Cancel"]]);
}

#[test]
fn those_whose_messages_are_lost_are_given_up() {
    let mut desk = Desk::new(LIMITS);
    desk.sockets(&["a"], "x");
    desk.sockets(&["b"], "y");
    desk.link("control", Sent::Lost);
    desk.message("x", r#"{"content":"1"}"#);
    desk.turn();
    assert_eq!((desk.engine.websockets(), desk.engine.totals().websockets_lost), (1, 1));
    desk.link("control", Sent::Taken);
    desk.control(vec![item(Kind::KeepAlive, "a")]);
    assert_eq!(desk.told(), [["a Cancel"]]);
}

#[test]
fn a_channel_is_followed_as_long_as_anybody_listens_in_any_way() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("f", "1", "x");
    desk.sockets(&["a"], "x");
    desk.cancel("f", "1");
    assert_eq!(desk.written(), [""; 0]);
    desk.message("x", r#"{"content":"1"}"#);
    assert_eq!(desk.told(), [["a Send text \"1\""]]);
    desk.control(vec![item(Kind::Gone, "a")]);
    assert_eq!(desk.written(), ["unfollow x"]);
}

#[test]
fn a_limited_rate_counts_for_websockets_too_and_keeps_their_order() {
    let mut desk = Desk::new(handler::engine::Limits { message_rate: Some(40), ..LIMITS });
    desk.sockets(&["a", "b"], "x");
    for message in [r#"{"content":"1"}"#, r#"{"content":"2"}"#, r#"{"action":"close"}"#] {
        desk.message("x", message);
    }
    assert!(desk.told().concat().len() < 6);
    desk.pass(SECOND);
    let told = desk.told().concat();
    assert!(told.ends_with(&["a Close".to_string(), "b Close".to_string()]), "{told:?}");
}

proptest! {
    /// Whatever the proxy says: every item with a number is acknowledged, a message is for those who are subscribed, and
    /// when all are gone, nothing is left.
    #[test]
    fn any_items_leave_a_table_that_is_right(steps in prop::collection::vec((0u8..9, 0u8..4, 0u8..3), 1..120)) {
        let mut desk = Desk::new(LIMITS);
        let mut model: std::collections::BTreeMap<String, std::collections::BTreeSet<String>> = Default::default();
        for (what, who, channel) in steps {
            let (cid, channel) = (format!("w{who}"), format!("c{channel}"));
            let filters = ["[]", r#"["skip-self"]"#, r#"["require-sub","skip-self"]"#][usize::from(what) % 3];
            let message = match what {
                0 | 1 => format!("{{\"type\":\"subscribe\",\"channel\":\"{channel}\",\"filters\":{filters}}}"),
                2 => format!("{{\"type\":\"unsubscribe\",\"channel\":\"{channel}\"}}"),
                3 => format!("{{\"type\":\"set-meta\",\"name\":\"user\",\"value\":\"{channel}\"}}"),
                _ => "{".to_string(),
            };
            match what {
                4 => {
                    desk.control(vec![here(&cid)]);
                    model.entry(cid).or_default();
                }
                5 => {
                    desk.control(vec![item(Kind::Gone, &cid)]);
                    model.remove(&cid);
                }
                6..=8 => {
                    desk.told();
                    desk.message(&channel, r#"{"content":"x"}"#);
                    let mut told = desk.told().concat();
                    told.sort();
                    let expected = model.iter().filter(|(_, channels)| channels.contains(&channel));
                    let expected: Vec<_> = expected.map(|(cid, _)| format!("{cid} Send text \"x\"")).collect();
                    prop_assert_eq!(told, expected);
                }
                _ => {
                    desk.told();
                    desk.control(vec![Item { req_id: Some("5".into()), ..grip(&cid, &message) }]);
                    prop_assert_eq!(&desk.told().concat()[0], &format!("{cid} Ack #5"));
                    if let Some(channels) = model.get_mut(&cid) {
                        match what {
                            0 | 1 => drop(channels.insert(channel)),
                            2 => drop(channels.remove(&channel)),
                            _ => {}
                        }
                    }
                }
            }
        }
        for who in 0..4 {
            desk.control(vec![item(Kind::Gone, &format!("w{who}"))]);
        }
        desk.message("c0", r#"{"content":"x"}"#);
        let sends = desk.told().concat().iter().filter(|line| line.contains("Send")).count();
        prop_assert_eq!((desk.engine.websockets(), sends), (0, 0));
    }
}
