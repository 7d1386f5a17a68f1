// SPDX-License-Identifier: AGPL-3.0-or-later
//! Filters: a message is evaluated once for each class of subscribers.

use super::desk::{Desk, LIMITS};

fn filtered(desk: &mut Desk, id: &str, mode: &str, channels: &str, meta: &str) -> Vec<String> {
    desk.hold("a", &[id], &[("Grip-Hold", mode), ("Grip-Channel", channels), ("Grip-Set-Meta", meta)], "none")
}

#[test]
fn a_message_of_ones_own_is_for_the_others_and_they_share_a_packet() {
    let mut desk = Desk::new(LIMITS);
    for (id, user) in [("1", "user=bob"), ("2", "user=alice"), ("3", "user=eve"), ("4", "user=bob")] {
        filtered(&mut desk, id, "stream", "c; filter=skip-self", user);
    }
    desk.stream("a", "5", "c");
    desk.written();
    desk.publish_item("\"channel\":\"c\",\"meta\":{\"sender\":\"bob\"},\"http-stream\":{\"content\":\"x\"}");
    assert_eq!(desk.turn(), ["a 2#2,3#2,5#2 \"x\" more"]);
    assert_eq!(desk.engine.totals().deliveries.filtered, 1);
    assert_eq!(desk.engine.totals().deliveries.sent, 5);
}

#[test]
fn streams_and_long_polls_get_what_their_data_makes_of_a_message() {
    let mut desk = Desk::new(LIMITS);
    for (id, mode, user) in [
        ("1", "stream", "user=bob"),
        ("2", "stream", "user=alice"),
        ("3", "response", "user=bob"),
        ("4", "stream", "user=bob"),
    ] {
        filtered(&mut desk, id, mode, "c; filter=var-subst", user);
    }
    desk.written();
    desk.publish("c", "\"http-stream\":{\"content\":\"s %(user)s\"},\"http-response\":{\"body\":\"r %(user)s\"}");
    assert_eq!(desk.turn(), ["a 3#2 200 OK \"r bob\"", "a 1#2,4#2 \"s bob\" more", "a 2#2 \"s alice\" more"]);
}

#[test]
fn a_filter_counts_for_its_channel_only() {
    let mut desk = Desk::new(LIMITS);
    filtered(&mut desk, "1", "stream", "c; filter=skip-self, d", "user=bob");
    desk.written();
    for channel in ["c", "d"] {
        desk.publish_item(&format!(
            "\"channel\":\"{channel}\",\"meta\":{{\"sender\":\"bob\"}},\"http-stream\":{{\"content\":\"{channel}\"}}"
        ));
    }
    assert_eq!(desk.turn(), ["a 1#2 \"d\" more"]);
}

#[test]
fn a_long_poll_that_is_not_meant_goes_on_waiting() {
    let mut desk = Desk::new(LIMITS);
    filtered(&mut desk, "1", "response", "c; filter=skip-self", "user=bob");
    desk.written();
    desk.publish_item("\"channel\":\"c\",\"meta\":{\"sender\":\"bob\"},\"http-response\":{\"body\":\"x\"}");
    assert_eq!((desk.turn(), desk.engine.held()), (vec![], 1));
    desk.publish("c", "\"http-response\":{\"body\":\"y\"}");
    assert_eq!((desk.turn(), desk.engine.held()), (vec!["a 1#2 200 OK \"y\"".to_string()], 0));
}

#[test]
fn a_message_whose_filter_fails_or_is_not_the_publishers_is_not_delivered_and_said() {
    let mut desk = Desk::new(LIMITS);
    filtered(&mut desk, "1", "stream", "c; filter=var-subst", "user=bob");
    desk.stream("a", "2", "c");
    desk.written();
    desk.content("c", "%(nobody)s;");
    desk.publish("c", "\"http-stream\":{\"content\":\"y\",\"content-filters\":[\"build-id\"]}");
    desk.publish("c", "\"http-stream\":{\"content\":\"%(user)s\",\"content-filters\":[\"var-subst\"]}");
    assert_eq!(desk.turn(), ["a 2#2 \"%(nobody)s;\" more", "a 1#2 \"bob\" more"]);
    assert_eq!(desk.out.warnings.len(), 4, "{:?}", desk.out.warnings);
    assert_eq!(desk.engine.totals().deliveries.filter_failed, 4);
}

#[test]
fn a_filtered_message_counts_for_the_ids_of_its_channel() {
    let mut desk = Desk::new(LIMITS);
    let channels = "c; prev-id=1; filter=skip-self; filter=build-id";
    filtered(&mut desk, "1", "response", channels, "user=bob, id_format=\"%(c)s\"");
    desk.written();
    let send = |desk: &mut Desk, prev: &str, id: &str, sender: &str| {
        desk.publish_item(&format!(
            "\"channel\":\"c\",\"prev-id\":\"{prev}\",\"id\":\"{id}\",\"meta\":{{\"sender\":\"{sender}\"}},\"http-response\":{{\"body\":\"id %I\"}}"
        ));
    };
    send(&mut desk, "1", "7", "bob");
    assert_eq!(desk.turn(), [""; 0]);
    send(&mut desk, "7", "8", "alice");
    assert_eq!(desk.turn(), ["a 1#2 200 OK \"id 8\""]);
}

#[test]
fn a_change_is_applied_to_each_backends_own_response() {
    let mut desk = Desk::new(LIMITS);
    let poll = |desk: &mut Desk, id: &str, body: &str| {
        desk.hold("a", &[id], &[("Grip-Hold", "response"), ("Grip-Channel", "c")], body);
    };
    poll(&mut desk, "1", "{\"a\":1}");
    poll(&mut desk, "2", "{\"a\":2}");
    poll(&mut desk, "3", "{\"a\":1}");
    poll(&mut desk, "4", "no json");
    desk.written();
    desk.publish("c", "\"http-response\":{\"body-patch\":[{\"op\":\"add\",\"path\":\"/b\",\"value\":0}]}");
    let sent = desk.turn();
    assert_eq!(
        sent[..3],
        [
            "a 1#2,3#2 200 OK \"{\\\"a\\\":1,\\\"b\\\":0}\"",
            "a 2#2 200 OK \"{\\\"a\\\":2,\\\"b\\\":0}\"",
            "a 4#2 502 Bad Gateway [Content-Type: text/plain] \"Error while proxying to origin.\\n\""
        ]
    );
    assert_eq!(desk.out.warnings.len(), 1);
}
