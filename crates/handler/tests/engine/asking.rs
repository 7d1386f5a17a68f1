// SPDX-License-Identifier: AGPL-3.0-or-later
//! Filters that ask a backend: `http-check` and `http-modify`.

use std::time::Duration;

use rpc::ws_control::{Item, Kind as What};
use zhttp::{Ids, Kind, Packet};

use super::desk::{Desk, LIMITS};
use super::websockets::{grip, here, item};
use handler::engine::Limits;

const SECOND: Duration = Duration::from_secs(1);
const BOB: &str = "user=bob, url=/check";
/// What is asked about the messages for Bob.
const ASK: &str = r#"ask POST http://x.test/check [{"url":"/check","user":"bob"}] [{}]"#;

fn held(desk: &mut Desk, id: &str, mode: &str, channels: &str, meta: &str) {
    desk.hold("a", &[id], &[("Grip-Hold", mode), ("Grip-Channel", channels), ("Grip-Set-Meta", meta)], "none");
    desk.written();
}

/// Streams of Bob on the channel `c` with a filter.
fn bobs(ids: &[&str], filters: &str) -> Desk {
    let mut desk = Desk::new(LIMITS);
    ids.iter().for_each(|id| held(&mut desk, id, "stream", &format!("c; {filters}"), BOB));
    desk
}

fn publish(desk: &mut Desk, content: &str) -> Vec<String> {
    desk.content("c", content);
    desk.turn()
}

/// A whole answer to the latest request.
fn answer(desk: &mut Desk, code: u16, headers: &[(&str, &str)], body: &str) -> Vec<String> {
    desk.respond(0, Some(code), headers, body, false)
}

#[test]
fn what_is_let_through_is_delivered_to_all_of_a_class_after_one_request() {
    let mut desk = bobs(&["1", "2", "3"], "filter=http-check");
    desk.stream("a", "4", "c");
    desk.written();
    assert_eq!(publish(&mut desk, "x"), ["a 4#2 \"x\" more", ASK]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2,2#2,3#2 \"x\" more"]);
    assert_eq!((desk.engine.totals().deliveries.sent, desk.engine.totals().fetches.made), (4, 1));
}

#[test]
fn what_a_backend_drops_is_not_delivered_and_counted() {
    let mut desk = bobs(&["1"], "filter=http-check");
    publish(&mut desk, "x");
    assert_eq!(answer(&mut desk, 200, &[("Action", "drop")], "ignored"), [""; 0]);
    assert_eq!(desk.engine.totals().deliveries.filtered, 1);
    assert!(desk.out.warnings.is_empty(), "{:?}", desk.out.warnings);
    // Only this word counts.
    publish(&mut desk, "y");
    assert_eq!(answer(&mut desk, 200, &[("Action", "Drop")], ""), ["a 1#2 \"y\" more"]);
}

#[test]
fn content_is_what_the_backend_makes_of_it() {
    for (code, headers, body, got) in [
        (200, vec![], "new", Some("new")),
        (200, vec![], "", Some("")),
        (204, vec![], "", Some("x")),
        (200, vec![("action", "drop")], "new", None),
    ] {
        let mut desk = bobs(&["1"], "filter=http-modify");
        assert_eq!(publish(&mut desk, "x"), [format!("{ASK} \"x\"")]);
        let sent = answer(&mut desk, code, &headers, body);
        let plain = |desk: &mut Desk, got: &str| {
            desk.stream("b", "1", "d");
            desk.written();
            desk.content("d", got);
            desk.turn().iter().map(|line| line.replacen('b', "a", 1)).collect()
        };
        // As if it had been published so.
        let expected: Vec<String> = got.map(|got| plain(&mut desk, got)).unwrap_or_default();
        assert_eq!(sent, expected, "{code} {body}");
    }
}

#[test]
fn an_answer_may_come_in_pieces() {
    let mut desk = bobs(&["1"], "filter=http-modify");
    publish(&mut desk, "x");
    assert_eq!(desk.respond(0, Some(200), &[], "on", true), [""; 0]);
    assert_eq!(desk.respond(1, None, &[], "", true), [""; 0]);
    assert_eq!(desk.respond(2, None, &[], "e", false), ["a 1#2 \"one\" more"]);
}

#[test]
fn filters_run_in_their_order_around_those_that_ask() {
    let mut desk =
        bobs(&["1"], "filter=skip-self; filter=var-subst; filter=http-modify; filter=http-check; filter=var-subst");
    let item = |sender: &str| {
        format!("\"channel\":\"c\",\"meta\":{{\"sender\":\"{sender}\"}},\"http-stream\":{{\"content\":\"I %(user)s\"}}")
    };
    desk.publish_item(&item("bob"));
    assert_eq!(desk.turn(), [""; 0]);
    desk.publish_item(&item("al"));
    let ask = ASK.replace("[{}]", r#"[{"sender":"al"}]"#);
    assert_eq!(desk.turn(), [format!("{ask} \"I bob\"")]);
    assert_eq!(answer(&mut desk, 200, &[], "you %(user)s"), [ask]);
    assert_eq!(answer(&mut desk, 200, &[], "ignored"), ["a 1#2 \"you bob\" more"]);
}

#[test]
fn what_is_published_while_an_answer_is_awaited_stays_behind_in_order() {
    let mut desk = bobs(&["1"], "filter=http-check");
    assert_eq!(publish(&mut desk, "1"), [ASK]);
    assert_eq!(publish(&mut desk, "2"), [""; 0]);
    desk.publish("c", "\"http-stream\":{\"action\":\"close\"}");
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(answer(&mut desk, 200, &[], ""), ["a 1#2 \"1\" more", ASK]);
    assert_eq!(answer(&mut desk, 200, &[], ""), ["a 1#3 \"2\" more", "a 1#4", "unfollow c"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn who_has_come_after_a_message_does_not_get_it() {
    let mut desk = bobs(&["1"], "filter=http-check");
    publish(&mut desk, "1");
    held(&mut desk, "2", "stream", "c; filter=http-check", BOB);
    publish(&mut desk, "2");
    assert_eq!(answer(&mut desk, 200, &[], ""), ["a 1#2 \"1\" more", ASK]);
    assert_eq!(answer(&mut desk, 200, &[], ""), ["a 1#3,2#2 \"2\" more"]);
}

#[test]
fn a_client_that_goes_while_an_answer_is_awaited_changes_nothing_for_others() {
    let mut desk = bobs(&["1", "2"], "filter=http-check");
    publish(&mut desk, "1");
    desk.cancel("a", "1");
    assert_eq!(answer(&mut desk, 200, &[], ""), ["a 2#2 \"1\" more"]);
    // And if all go, nobody is asked for them any more.
    publish(&mut desk, "2");
    publish(&mut desk, "3");
    desk.cancel("a", "2");
    desk.written();
    assert_eq!(answer(&mut desk, 200, &[], ""), [""; 0]);
    assert_eq!(desk.engine.totals().fetches.made, 2);
}

#[test]
fn a_message_about_which_nothing_is_heard_is_not_delivered_and_said_and_the_next_one_is_asked_about() {
    type Fail = fn(&mut Desk) -> Vec<String>;
    let ended: Fail = |desk| {
        let id = desk.out.opened.last().unwrap().clone();
        let ids = Ids::One(&id, Some(0));
        desk.proxy_packet(Packet {
            ids,
            kind: Kind::Error,
            condition: Some(b"remote-connection-failed"),
            ..Packet::default()
        });
        desk.turn()
    };
    let (modify, check) = ("filter=http-modify", "filter=http-check");
    let cases: [(&str, Fail, &str); 5] = [
        (check, |desk| answer(desk, 500, &[], "x"), "http-check: unexpected network request status: code=500"),
        (
            check,
            |desk| answer(desk, 302, &[("Action", "drop")], ""),
            "http-check: unexpected network request status: code=302",
        ),
        (modify, ended, "http-modify: network request failed: connection refused"),
        (
            modify,
            |desk| answer(desk, 200, &[], &"x".repeat(100_001)),
            "http-modify: network response exceeded 100000 bytes",
        ),
        (
            check,
            |desk| {
                // The proxy has taken the request, and the backend does not answer it.
                let id = desk.out.opened.last().unwrap().clone();
                desk.proxy_packet(Packet { ids: Ids::One(&id, Some(0)), kind: Kind::KeepAlive, ..Packet::default() });
                assert_eq!(desk.pass(9 * SECOND), [""; 0]);
                let mut sent = desk.pass(2 * SECOND);
                assert_eq!(sent.remove(0), "proxy cancel");
                sent
            },
            "http-check: network request failed: request timed out",
        ),
    ];
    for (filters, fail, text) in cases {
        let mut desk = bobs(&["1"], filters);
        publish(&mut desk, "1");
        publish(&mut desk, "2");
        let sent = fail(&mut desk);
        assert!(sent.iter().any(|line| line.starts_with(ASK)), "{text}: {sent:?}");
        assert!(!sent.iter().any(|line| line.contains("a 1#2")), "{text}: {sent:?}");
        assert!(desk.out.warnings.iter().any(|line| line.contains(text)), "{text}: {:?}", desk.out.warnings);
        assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2 \"2\" more"], "{text}");
        assert_eq!(desk.engine.totals().deliveries.filter_failed, 1);
    }
}

#[test]
fn a_backend_must_say_whom_to_ask_and_about_no_more_than_a_request_may_have() {
    for (meta, content, text) in [
        ("user=bob", "x", "missing url value"),
        ("user=bob, url=\"ftp://x/y\"", "x", "invalid url value"),
        (BOB, &*"x".repeat(100_001), "content or meta exceeds 100000 bytes"),
    ] {
        let mut desk = Desk::new(Limits { filter_bytes: 1_000_000, ..LIMITS });
        held(&mut desk, "1", "stream", "c; filter=http-modify", meta);
        assert_eq!(publish(&mut desk, content), [""; 0]);
        assert!(desk.out.warnings[0].contains(&format!("http-modify: {text}")), "{:?}", desk.out.warnings);
    }
}

#[test]
fn a_message_that_can_not_fit_the_subscription_is_not_asked_about() {
    let mut desk = bobs(&["1"], "filter=http-modify");
    let send = |desk: &mut Desk, filters: &str| {
        desk.publish("c", &format!("\"http-stream\":{{\"content\":\"x\",\"content-filters\":[{filters}]}}"));
        desk.turn()
    };
    assert_eq!(send(&mut desk, ""), [""; 0]);
    assert_eq!(desk.out.warnings.len(), 1);
    assert_eq!(send(&mut desk, "\"http-modify\""), [format!("{ASK} \"x\"")]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2 \"x\" more"]);
}

#[test]
fn each_class_and_each_mode_is_asked_about_by_itself() {
    let mut desk = Desk::new(Limits { filter_requests: 9, ..LIMITS });
    for (id, mode, user) in
        [("1", "stream", "al"), ("2", "response", "al"), ("3", "stream", "bo"), ("4", "stream", "al")]
    {
        held(&mut desk, id, mode, "c; filter=http-modify", &format!("user={user}, url=http://other/{user}"));
    }
    desk.publish("c", "\"http-stream\":{\"content\":\"s\"},\"http-response\":{\"body\":\"r\"}");
    let sent = desk.turn();
    let asked: Vec<_> = sent.iter().map(|line| (line.contains("/al outside "), line.contains("\"r\""))).collect();
    assert_eq!(asked, [(true, false), (true, true), (false, false)], "{sent:?}");
    let ids = desk.out.opened.clone();
    assert_eq!(desk.respond_to(&ids[2], 0, Some(204), &[], "", false), ["a 3#2 \"s\" more"]);
    assert_eq!(desk.respond_to(&ids[1], 0, Some(200), &[], "R", false), ["a 2#2 200 OK \"R\""]);
    assert_eq!(desk.respond_to(&ids[0], 0, Some(200), &[], "S", false), ["a 1#2,4#2 \"S\" more"]);
}

#[test]
fn a_change_is_made_before_it_is_asked_about_and_each_response_is_asked_about_once() {
    let mut desk = Desk::new(LIMITS);
    for (id, body) in [("1", "{\"a\":1}"), ("2", "{\"a\":2}"), ("3", "{\"a\":1}")] {
        let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c; filter=http-modify"), ("Grip-Set-Meta", BOB)];
        desk.hold("a", &[id], &headers, body);
    }
    desk.written();
    desk.publish("c", "\"http-response\":{\"body-patch\":[{\"op\":\"add\",\"path\":\"/b\",\"value\":0}]}");
    assert_eq!(desk.turn(), [format!("{ASK} {:?}", "{\"a\":1,\"b\":0}")]);
    let sent = answer(&mut desk, 204, &[], "");
    assert_eq!(
        sent,
        [format!("a 1#2,3#2 200 OK {:?}", "{\"a\":1,\"b\":0}"), format!("{ASK} {:?}", "{\"a\":2,\"b\":0}")]
    );
    assert_eq!(answer(&mut desk, 200, &[], "two"), ["a 2#2 200 OK \"two\""]);
}

#[test]
fn a_message_that_is_kept_back_counts_for_prev_id_and_is_told_to_whom_is_asked() {
    let mut desk = Desk::new(LIMITS);
    desk.uri = "http://x.test/";
    held(&mut desk, "1", "response", "c; prev-id=1; filter=http-check", BOB);
    let send = |desk: &mut Desk, prev: &str, id: &str| {
        desk.publish_item(&format!(
            "\"channel\":\"c\",\"prev-id\":\"{prev}\",\"id\":\"{id}\",\"http-response\":{{\"body\":\"{id}\"}}"
        ));
        desk.turn()
    };
    assert_eq!(send(&mut desk, "1", "2"), [format!("{ASK} [c; last-id=2]")]);
    assert_eq!(answer(&mut desk, 200, &[("Action", "drop")], ""), [""; 0]);
    assert_eq!(send(&mut desk, "2", "3"), [format!("{ASK} [c; last-id=3]")]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2 200 OK \"3\""]);
}

#[test]
fn streams_at_different_places_that_come_to_the_same_one_get_what_was_waiting_for_them() {
    let mut desk = Desk::new(LIMITS);
    let hold = |desk: &mut Desk, id: &str, prev: &str| {
        let channel = format!("c; prev-id={prev}; filter=http-check");
        let link = ("Grip-Link", "</next>; rel=next; timeout=600");
        desk.hold("a", &[id], &[("Grip-Hold", "stream"), ("Grip-Channel", &channel), link, ("Grip-Set-Meta", BOB)], "");
        desk.written();
    };
    let send = |desk: &mut Desk, prev: &str, id: &str| {
        desk.publish_item(&format!(
            "\"channel\":\"c\",\"prev-id\":\"{prev}\",\"id\":\"{id}\",\"http-stream\":{{\"content\":\"{id}\"}}"
        ));
        desk.turn()
    };
    hold(&mut desk, "1", "1");
    assert_eq!(send(&mut desk, "1", "2"), [format!("{ASK} [c; last-id=2]")]);
    // This one has the message already, and from now on the two are alike.
    hold(&mut desk, "2", "2");
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2 \"2\" more"]);
    let asked = send(&mut desk, "2", "3");
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#3,2#2 \"3\" more"]);
}

#[test]
fn a_page_is_not_asked_for_before_what_waits_has_been_delivered() {
    let mut desk = Desk::new(Limits { queue_bytes: 10_000, ..LIMITS });
    let headers = [
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "c; filter=http-check"),
        ("Grip-Set-Meta", BOB),
        ("Grip-Link", "</n>; rel=next"),
    ];
    desk.hold("a", &["1"], &headers, "");
    desk.written();
    assert_eq!(publish(&mut desk, "x"), [ASK]);
    desk.publish("c", "\"http-stream\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), [""; 0]);
    // This one comes after the page.
    assert_eq!(publish(&mut desk, "y"), [""; 0]);
    assert_eq!(desk.pass(SECOND), [""; 0]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#2 \"x\" more"]);
    assert_eq!(desk.pass(SECOND), ["ask GET http://x.test/n"]);
    assert_eq!(answer(&mut desk, 200, &headers, "page"), ["a 1#3 \"page\" more", ASK]);
    assert_eq!(answer(&mut desk, 204, &[], ""), ["a 1#4 \"y\" more"]);
}

#[test]
fn a_long_poll_is_not_given_back_as_if_it_had_what_waits() {
    for (headers, expected) in [(vec![], "a 1#2 200 OK \"2\""), (vec![("Action", "drop")], "a 1#2 handoff-start")] {
        let mut desk = Desk::new(LIMITS);
        held(&mut desk, "1", "response", "c; prev-id=1; filter=http-check", BOB);
        let send = |desk: &mut Desk, prev: &str, id: &str| {
            desk.publish_item(&format!(
                "\"channel\":\"c\",\"prev-id\":\"{prev}\",\"id\":\"{id}\",\"no-seq\":true,\"http-response\":{{\"body\":\"{id}\"}}"
            ));
            desk.turn()
        };
        assert_eq!(send(&mut desk, "1", "2"), [format!("{ASK} [c; last-id=2]")]);
        // One has been missed in between.
        assert_eq!(send(&mut desk, "3", "4"), [""; 0]);
        assert_eq!(desk.pass(SECOND), [""; 0]);
        let mut sent = answer(&mut desk, 200, &headers, "");
        sent.extend(desk.pass(SECOND));
        assert_eq!(sent[0], expected);
    }
}

#[test]
fn so_many_are_asked_at_a_time_and_do_not_hold_up_links() {
    let mut desk = Desk::new(LIMITS);
    for id in ["1", "2", "3"] {
        held(&mut desk, id, "stream", "c; filter=http-check", &format!("user=u{id}, url=/check"));
    }
    desk.hold("f", &["4"], &[("Grip-Hold", "stream"), ("Grip-Channel", "d"), ("Grip-Link", "</n>; rel=next")], "");
    desk.written();
    assert_eq!(publish(&mut desk, "x").len(), LIMITS.filter_requests);
    let ids = desk.out.opened.clone();
    desk.publish("d", "\"http-stream\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), ["ask GET http://x.test/n"]);
    let sent = desk.respond_to(&ids[0], 0, Some(204), &[], "", false);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent.contains(&"a 1#2 \"x\" more".to_string()), "{sent:?}");
    assert!(sent.iter().any(|line| line.contains("\"user\":\"u3\"")), "{sent:?}");
}

#[test]
fn what_comes_when_too_much_waits_is_dropped_for_those_whose_filters_ask_and_said() {
    let mut desk = bobs(&["1"], "filter=http-check");
    desk.stream("a", "2", "c");
    desk.written();
    for content in 0..=LIMITS.filter_messages {
        publish(&mut desk, &content.to_string());
    }
    assert_eq!(desk.engine.totals().deliveries.inquiries_dropped, 1);
    assert!(desk.out.warnings[0].contains("filter_messages_max"), "{:?}", desk.out.warnings);
    for content in 0..LIMITS.filter_messages {
        let sent = answer(&mut desk, 204, &[], "");
        assert_eq!(sent[0], format!("a 1#{} \"{content}\" more", content + 2));
    }
    assert_eq!(publish(&mut desk, "later").len(), 2);
    // Bytes count too.
    let mut desk = bobs(&["1"], "filter=http-check");
    publish(&mut desk, &"x".repeat(LIMITS.filter_bytes));
    publish(&mut desk, "y");
    assert_eq!(desk.engine.totals().deliveries.inquiries_dropped, 1);
}

#[test]
fn a_limited_rate_counts_what_is_delivered_when_it_is() {
    let mut desk = Desk::new(Limits { message_rate: Some(40), ..LIMITS });
    for id in ["1", "2"] {
        held(&mut desk, id, "stream", "c; filter=http-check", BOB);
    }
    publish(&mut desk, "x");
    let mut sent = answer(&mut desk, 204, &[], "");
    sent.extend(desk.pass(SECOND));
    sent.sort();
    let all = sent.join(" ");
    assert!(all.contains("1#2") && all.contains("2#2") && !all.contains("#3"), "{sent:?}");
}

#[test]
fn a_hold_whose_filters_ask_has_no_record_and_ends_with_its_handler() {
    let mut desk = Desk::new(LIMITS);
    desk.by_router = true;
    held(&mut desk, "1", "stream", "c; filter=http-check", BOB);
    held(&mut desk, "2", "stream", "c; filter=skip-self", BOB);
    desk.shut_down();
    assert_eq!(desk.written(), ["a by router 1#2 cancel"]);
}

fn socket<'a>(cid: &'a str, debug: bool) -> Item<'a> {
    Item { uri: Some("ws://x.test/dir/ws".into()), debug, route: Some("r".into()), ..here(cid) }
}

/// WebSockets of Bob with a filter.
fn sockets(cids: &[&str], filter: &str, debug: bool) -> Desk {
    let mut desk = Desk::new(LIMITS);
    let subscribe = format!("{{\"type\":\"subscribe\",\"channel\":\"c\",\"filters\":[\"{filter}\"]}}");
    let meta = |name: &str, value: &str| format!("{{\"type\":\"set-meta\",\"name\":\"{name}\",\"value\":\"{value}\"}}");
    for cid in cids {
        let (user, url) = (meta("user", "bob"), meta("url", "../check"));
        desk.control(vec![socket(cid, debug), grip(cid, &subscribe), grip(cid, &user), grip(cid, &url)]);
    }
    desk.told();
    desk.written();
    desk
}

const WS_ASK: &str = r#"ask POST http://x.test/check outside [{"url":"../check","user":"bob"}] [{}]"#;

#[test]
fn websockets_are_asked_about_over_http_and_get_what_comes_of_it_in_order() {
    let mut desk = sockets(&["a", "b"], "http-modify", false);
    for message in [r#"{"content":"1"}"#, r#"{"content-bin":"Mg=="}"#, r#"{"action":"close"}"#] {
        desk.message("c", message);
    }
    assert_eq!(desk.turn(), [format!("{WS_ASK} \"1\"")]);
    // Who has subscribed since is not meant.
    let subscribe = r#"{"type":"subscribe","channel":"c","filters":["http-modify"]}"#;
    desk.control(vec![socket("d", false), grip("d", subscribe)]);
    assert_eq!(answer(&mut desk, 200, &[], "one"), [format!("{WS_ASK} \"2\"")]);
    assert_eq!(desk.told(), [["a Send text \"one\"", "b Send text \"one\""]]);
    assert_eq!(answer(&mut desk, 204, &[], ""), [""; 0]);
    let told = desk.told().concat();
    assert_eq!(told, ["a Send binary \"2\"", "b Send binary \"2\"", "a Close", "b Close"]);
}

#[test]
fn a_websocket_that_leaves_while_an_answer_is_awaited_gets_nothing() {
    let mut desk = sockets(&["a", "b"], "http-check", false);
    desk.message("c", r#"{"content":"1"}"#);
    assert_eq!(desk.turn(), [WS_ASK]);
    desk.control(vec![item(What::Gone, "a"), grip("b", r#"{"type":"unsubscribe","channel":"c"}"#)]);
    desk.written();
    assert_eq!(answer(&mut desk, 204, &[], ""), [""; 0]);
    assert_eq!(desk.told(), [[""; 0]; 0]);
}

#[test]
fn a_websocket_is_told_of_a_filter_that_fails_only_with_debug() {
    for debug in [false, true] {
        let mut desk = sockets(&["a"], "http-check", debug);
        desk.message("c", r#"{"content":"1"}"#);
        desk.turn();
        answer(&mut desk, 404, &[], "");
        let text = "a Close 1011 \"filter error: http-check: unexpected network request status: code=404\"";
        let expected: Vec<&str> = debug.then_some(text).into_iter().collect();
        assert_eq!(desk.told().concat(), expected);
    }
}
