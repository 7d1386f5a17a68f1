// SPDX-License-Identifier: AGPL-3.0-or-later
//! Next links: pages between and before holds, and what happens when they can not be had.

use std::time::Duration;

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

fn desk() -> Desk {
    let mut desk = Desk::new(Limits { queue_bytes: 10_000, ..LIMITS });
    desk.uri = "http://x.test/dir/p0?a";
    desk
}

/// A stream on a channel with a next link.
fn held(desk: &mut Desk, id: &str, channel: &str, link: &str) -> Vec<String> {
    desk.hold("f", &[id], &[("Grip-Hold", "stream"), ("Grip-Channel", channel), ("Grip-Link", link)], "hi")
}

#[test]
fn pages_are_fetched_until_one_goes_nowhere() {
    let mut desk = desk();
    let sent = desk.hold("f", &["1"], &[("X", "y"), ("Grip-Link", "<p1>; rel=next")], "zero");
    assert_eq!(sent, ["f 1#1 200 OK [X: y] \"zero\" more", "ask GET http://x.test/dir/p1"]);
    let sent = desk.respond(0, Some(200), &[("X", "z"), ("Grip-Link", "</p2>; rel=next")], "one", false);
    assert_eq!(sent, ["f 1#2 \"one\" more", "ask GET http://x.test/p2"]);
    assert_eq!(desk.respond(0, Some(201), &[], "tw", true), ["f 1#3 \"tw\" more"]);
    assert_eq!(desk.respond(1, None, &[], "o", false), ["f 1#4 \"o\" more", "f 1#5"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn an_address_of_another_site_is_asked_outside() {
    let mut desk = desk();
    let sent = desk.hold("f", &["1"], &[("Grip-Link", "<http://other/x>; rel=next")], "");
    assert_eq!(sent[1], "ask GET http://other/x outside");
}

#[test]
fn a_hold_after_a_page_is_a_hold() {
    let mut desk = desk();
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "zero");
    let sent = desk.respond(0, Some(200), &[("Grip-Hold", "stream"), ("Grip-Channel", "c")], "one", false);
    assert_eq!(sent, ["f 1#2 \"one\" more", "follow c"]);
    desk.content("c", "live");
    assert_eq!(desk.turn(), ["f 1#3 \"live\" more"]);
}

#[test]
fn channels_of_a_page_take_the_place_of_the_old_ones() {
    let mut desk = desk();
    held(&mut desk, "1", "a,b", "</n>; rel=next");
    desk.publish("a", "\"http-stream\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), ["ask GET http://x.test/n"]);
    let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "b,c"), ("Grip-Link", "</m>; rel=next")];
    assert_eq!(desk.respond(0, Some(200), &headers, "", false), ["follow c", "unfollow a"]);
    ["a", "b", "c"].iter().for_each(|channel| desk.content(channel, channel));
    assert_eq!(desk.turn(), ["f 1#2 \"bc\" more"]);
}

#[test]
fn what_is_published_while_a_page_is_fetched_comes_after_it() {
    let mut desk = desk();
    held(&mut desk, "1", "c", "</n>; rel=next");
    desk.content("c", "before");
    desk.publish("c", "\"http-stream\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), ["f 1#2 \"before\" more", "ask GET http://x.test/n"]);
    desk.content("c", "kept");
    assert_eq!(desk.turn(), [""; 0]);
    desk.content("c", "too");
    assert_eq!(desk.turn(), [""; 0]);
    let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c")];
    assert_eq!(desk.respond(0, Some(200), &headers, "page", false), ["f 1#3 \"page\" more", "f 1#4 \"kepttoo\" more"]);
    desk.content("c", "after");
    assert_eq!(desk.turn(), ["f 1#5 \"after\" more"]);
}

#[test]
fn a_link_is_fetched_when_its_time_is_over_unless_all_channels_had_messages() {
    let mut desk = desk();
    held(&mut desk, "1", "c", "</n>; rel=next; timeout=10");
    desk.pass(SECOND * 5);
    desk.content("c", "x");
    desk.pass(SECOND * 6);
    assert!(!desk.written().iter().any(|line| line.starts_with("ask")));
    assert!(desk.pass(SECOND * 10).contains(&"ask GET http://x.test/n".to_string()));
}

#[test]
fn many_in_the_same_place_ask_once_and_share_the_answer() {
    let mut desk = desk();
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    for id in &ids {
        held(&mut desk, id, "c; prev-id=1", "</n>; rel=next; timeout=10");
    }
    let sent = desk.pass(SECOND * 11);
    assert_eq!(
        sent.iter().filter(|line| line.starts_with("ask")).collect::<Vec<_>>(),
        ["ask GET http://x.test/n [c; last-id=1]"]
    );
    let headers =
        [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=4"), ("Grip-Link", "</n>; rel=next; timeout=10")];
    let sent = desk.respond(0, Some(200), &headers, "2..4", false);
    // 128 sessions a packet.
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|line| line.ends_with("\"2..4\" more")), "{sent:?}");
    assert_eq!(desk.pass(SECOND * 11), ["ask GET http://x.test/n [c; last-id=4]"]);
}

#[test]
fn another_place_another_link_or_another_route_is_asked_for_apart() {
    let mut desk = desk();
    held(&mut desk, "1", "c; prev-id=1", "</n>; rel=next; timeout=10");
    held(&mut desk, "2", "c; prev-id=2", "</n>; rel=next; timeout=10");
    held(&mut desk, "3", "c; prev-id=1", "</m>; rel=next; timeout=10");
    desk.prefix = "x-";
    held(&mut desk, "4", "c; prev-id=1", "</n>; rel=next; timeout=10");
    let sent = desk.pass(SECOND * 12);
    assert_eq!(sent.iter().filter(|line| line.starts_with("ask")).count(), 3, "{sent:?}");
    // The fourth waits for its turn.
    let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c"), ("Grip-Link", "</n>; rel=next")];
    let sent = desk.respond(0, Some(200), &headers, "", false);
    assert_eq!(sent.iter().filter(|line| line.starts_with("ask")).count(), 1, "{sent:?}");
}

#[test]
fn those_who_come_to_be_in_the_same_place_ask_together_from_then_on() {
    let mut desk = desk();
    held(&mut desk, "1", "c; prev-id=1", "</n>; rel=next; timeout=100");
    let item = "\"channel\":\"c\",\"id\":\"2\",\"prev-id\":\"1\",\"formats\":{\"http-stream\":{\"content\":\"2\"}}";
    held(&mut desk, "2", "c; prev-id=2", "</n>; rel=next; timeout=100");
    desk.publish_item(item);
    // What the second has already makes it ask.
    assert_eq!(desk.turn(), ["f 1#2 \"2\" more"]);
    assert_eq!(desk.pass(TICK), ["ask GET http://x.test/n [c; last-id=2]"]);
    let headers =
        [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=2"), ("Grip-Link", "</n>; rel=next; timeout=100")];
    assert_eq!(desk.respond(0, Some(200), &headers, "", false), [""; 0]);
    desk.publish("c", "\"http-stream\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), ["ask GET http://x.test/n [c; last-id=2]"]);
    assert_eq!(desk.respond(0, Some(200), &headers, "x", false), ["f 2#2,1#3 \"x\" more"]);
}

#[test]
fn a_gap_is_noticed_and_filled_by_the_next_page() {
    let mut desk = desk();
    held(&mut desk, "1", "c; prev-id=1", "</n>; rel=next");
    let item = |id: u32, prev: u32| {
        format!(
            "\"channel\":\"c\",\"id\":\"{id}\",\"prev-id\":\"{prev}\",\"formats\":{{\"http-stream\":{{\"content\":\"{id}\"}}}}"
        )
    };
    desk.publish_item(&item(2, 1));
    assert_eq!(desk.turn(), ["f 1#2 \"2\" more"]);
    desk.publish_item(&item(4, 3));
    desk.pass(SECOND * 6);
    desk.expire_sequences();
    assert_eq!(desk.pass(TICK), ["ask GET http://x.test/n [c; last-id=2]"]);
    desk.publish_item(&item(5, 4));
    let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=4"), ("Grip-Link", "</n>; rel=next")];
    assert_eq!(desk.respond(0, Some(200), &headers, "34", false), ["f 1#3 \"34\" more", "f 1#4 \"5\" more"]);
    desk.publish_item(&item(6, 5));
    assert_eq!(desk.turn(), ["f 1#5 \"6\" more"]);
}

#[test]
fn a_page_that_fails_is_tried_again_and_the_stream_ends_after_the_last_try() {
    let mut desk = desk();
    desk.debug = true;
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "zero");
    for wait in [1, 2, 4, 8, 16] {
        assert_eq!(desk.respond(0, Some(503), &[], "busy", false), [""; 0]);
        assert_eq!(desk.pass(SECOND * wait - TICK), [""; 0]);
        assert_eq!(desk.pass(SECOND + TICK * 2), ["ask GET http://x.test/p1"]);
    }
    let sent = desk.respond(0, Some(503), &[], "busy", false);
    assert_eq!(sent, ["f 1#2 \"\\n\\nFailed to retrieve next link.\\n\""]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_page_that_breaks_off_after_it_has_begun_ends_the_stream() {
    let mut desk = desk();
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "zero");
    desk.respond(0, Some(200), &[], "on", true);
    let id = desk.out.opened[0].clone();
    let cancel =
        zhttp::Packet { ids: zhttp::Ids::One(&id, Some(1)), kind: zhttp::Kind::Cancel, ..zhttp::Packet::default() };
    desk.proxy_packet(cancel);
    assert_eq!(desk.turn(), ["f 1#3"]);
}

#[test]
fn without_a_proxy_a_page_is_tried_again() {
    let mut desk = desk();
    desk.out.no_proxy = true;
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "zero");
    assert_eq!(desk.pass(SECOND * 2), ["ask GET http://x.test/p1"]);
    desk.out.no_proxy = false;
    desk.pass(SECOND * 4);
    assert_eq!(desk.respond(0, Some(200), &[], "one", false), ["f 1#2 \"one\" more", "f 1#3"]);
}

#[test]
fn what_a_page_must_not_be_ends_the_stream() {
    for (headers, text) in [
        (&[("Grip-Hold", "response"), ("Grip-Channel", "c")][..], "Next link returned non-stream hold."),
        (&[("Grip-Hold", "no")], "Grip-Hold must be set to either 'response' or 'stream'"),
        (
            &[("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=1")],
            "channel 'c' specifies prev-id, but no next link found",
        ),
        (&[("Content-Type", "application/grip-instruct")], "failed to parse application/grip-instruct content as JSON"),
    ] {
        for debug in [true, false] {
            let mut desk = desk();
            desk.debug = debug;
            desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "");
            let sent = desk.respond(0, Some(200), headers, "", false);
            let told = if debug { format!("f 1#2 \"\\n\\n{text}\\n\"") } else { "f 1#2".into() };
            assert_eq!(sent, [told]);
            assert_eq!(desk.engine.held(), 0);
        }
    }
}

#[test]
fn a_client_that_goes_takes_its_request_with_it() {
    let mut desk = desk();
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "");
    desk.respond(0, Some(200), &[], "on", true);
    desk.cancel("f", "1");
    assert_eq!(desk.turn(), ["proxy cancel"]);
}

#[test]
fn a_slow_client_slows_its_page_down_and_not_that_of_others() {
    let mut desk = desk();
    desk.credits = 10;
    desk.hold("f", &["1"], &[("Grip-Link", "</p1>; rel=next")], "");
    let body = "x".repeat(5_000);
    let mut granted = 0;
    for seq in 0..30 {
        let code = (seq == 0).then_some(200);
        granted +=
            desk.respond(seq, code, &[], &body, true).iter().filter(|line| line.starts_with("proxy credit")).count();
        if seq == 1 {
            break;
        }
    }
    assert_eq!(granted, 0);
    desk.grant("f", "1", 1, 20_000);
    desk.pass(SECOND);
    assert_eq!(desk.engine.held(), 1);
}

#[test]
fn backends_are_told_of_clients_that_are_gone_but_not_of_more_than_may_wait() {
    let mut desk = desk();
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c"), ("Grip-Link", "</gone>; rel=gone")];
        desk.hold("f", &[id], &headers, "");
    }
    desk.cancel("f", "1");
    assert_eq!(desk.turn(), ["ask POST http://x.test/gone"]);
    desk.frontend_goes("f");
    desk.turn();
    let totals = desk.engine.totals().fetches;
    assert_eq!((totals.made, totals.dropped), (3, 2));
}

#[test]
fn keep_alives_are_not_put_into_a_page() {
    let mut desk = desk();
    let headers = [
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "c"),
        ("Grip-Keep-Alive", "k; timeout=5"),
        ("Grip-Link", "</n>; rel=next"),
    ];
    desk.hold("f", &["1"], &headers, "");
    desk.publish("c", "\"http-stream\":{\"action\":\"hint\"}");
    desk.turn();
    desk.respond(0, Some(200), &[], "pa", true);
    let sent = desk.pass(SECOND * 20);
    assert!(!sent.iter().any(|line| line.contains("\"k\"")), "{sent:?}");
    desk.respond(1, None, &[], "ge", true);
    let sent = desk.respond(2, None, &[], "", false);
    assert_eq!(sent, ["f 1#4", "unfollow c"]);
}
