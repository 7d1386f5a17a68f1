// SPDX-License-Identifier: AGPL-3.0-or-later
//! Beginning and end of holds, and what long-polls get.

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;
use zhttp::{Ids, Kind, Packet};

const STREAM: &[(&str, &str)] = &[("Grip-Hold", "stream"), ("Grip-Channel", "c"), ("Content-Type", "text/plain")];
const RESPONSE: &str = "\"http-response\"";

#[test]
fn a_stream_begins_with_head_and_body_and_goes_on() {
    let mut desk = Desk::new(LIMITS);
    let sent = desk.hold("a", &["1"], STREAM, "hello\n");
    assert_eq!(sent, ["a 1#1 200 OK [Content-Type: text/plain] \"hello\\n\" more", "follow c"]);
}

#[test]
fn a_body_larger_than_the_credits_is_sent_as_they_come() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 3;
    assert_eq!(desk.hold("a", &["1"], &STREAM[..2], "hello")[0], "a 1#1 200 OK \"hel\" more");
    desk.grant("a", "1", 1, 100);
    assert_eq!(desk.written(), ["a 1#2 \"lo\" more"]);
}

#[test]
fn a_first_body_larger_than_the_queue_does_not_make_a_client_slow() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 1;
    let body = "x".repeat(500);
    desk.hold("a", &["1"], &STREAM[..2], &body);
    desk.grant("a", "1", 1, 1);
    assert_eq!(desk.written(), ["a 1#2 \"x\" more"]);
}

#[test]
fn a_long_poll_only_says_whose_it_is_and_waits() {
    let mut desk = Desk::new(LIMITS);
    let sent = desk.hold("a", &["1"], &[("Grip-Hold", "response"), ("Grip-Channel", "c")], "none");
    assert_eq!(sent, ["a 1#1 keep-alive", "follow c"]);
}

#[test]
fn a_long_poll_is_answered_by_a_publish_and_is_over() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("a", "1", "c");
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"news\"}}"));
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"late\"}}"));
    assert_eq!(desk.written(), ["a 1#2 200 OK \"news\""]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn equal_long_polls_share_a_packet() {
    let mut desk = Desk::new(LIMITS);
    for id in ["1", "2", "3"] {
        desk.poll("a", id, "c");
    }
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"x\"}}"));
    assert_eq!(desk.written(), ["a 1#2,2#2,3#2 200 OK \"x\""]);
}

#[test]
fn headers_that_a_publisher_lists_are_hidden() {
    // As Pushpin 1.36 does it: names are compared in any case and as a whole, over all lines.
    let mut desk = Desk::new(LIMITS);
    let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c"), ("X-I", "1"), ("X-J", "1")];
    desk.hold("f", &["1"], &headers, "instruct");
    let published = "[[\"X-A\",\"1\"],[\"X-B\",\"1\"],[\"X-C\",\"1\"],\
        [\"Grip-Expose-Headers\",\" x-a ,, X-B;q, \\\"X-C\\\"\"],[\"grip-expose-headers\",\"X-I\"]]";
    desk.publish("c", &format!("{RESPONSE}:{{\"headers\":{published},\"body\":\"x\"}}"));
    assert_eq!(desk.written(), ["f 1#2 200 OK [X-J: 1] [X-B: 1] [X-C: 1] \"x\""]);
}

#[test]
fn published_headers_replace_those_of_the_instruct_and_some_never_appear() {
    let mut desk = Desk::new(LIMITS);
    let headers =
        [("Grip-Hold", "response"), ("Grip-Channel", "c"), ("X-A", "own"), ("X-B", "own"), ("Content-Length", "4")];
    desk.hold("a", &["1"], &headers, "none");
    let published = "[[\"x-a\",\"new\"],[\"X-C\",\"new\"],[\"content-length\",\"9\"],[\"Grip-Status\",\"500\"]]";
    desk.publish("c", &format!("{RESPONSE}:{{\"code\":201,\"headers\":{published},\"body\":\"x\"}}"));
    assert_eq!(desk.written(), ["a 1#2 201 Created [X-B: own] [x-a: new] [X-C: new] \"x\""]);
}

#[test]
fn a_response_larger_than_the_credits_comes_in_parts_and_once() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 2;
    desk.poll("a", "1", "c");
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"hello\"}}"));
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"other\"}}"));
    assert_eq!(desk.written(), ["a 1#2 200 OK \"he\" more"]);
    desk.grant("a", "1", 1, 2);
    desk.grant("a", "1", 2, 2);
    assert_eq!(desk.written(), ["a 1#3 \"ll\" more", "a 1#4 \"o\""]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_response_larger_than_the_queue_is_sent_to_its_end() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 1;
    desk.poll("a", "1", "c");
    desk.publish("c", &format!("{RESPONSE}:{{\"body\":\"{}\"}}", "x".repeat(500)));
    desk.grant("a", "1", 1, 9);
    desk.grant("a", "1", 2, 490);
    let sizes: Vec<usize> = desk.written().iter().map(|line| line.matches('x').count()).collect();
    assert_eq!(sizes, [1, 9, 490]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_hold_hears_all_of_its_channels() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "one, two");
    for channel in ["one", "two", "three"] {
        desk.content(channel, channel);
    }
    assert_eq!(desk.turn(), ["a 1#2 \"onetwo\" more"]);
}

#[test]
fn the_prefix_is_for_the_backends_channels_and_the_routes_own_are_added() {
    let mut desk = Desk::new(LIMITS);
    (desk.prefix, desk.implicit) = ("p-", vec!["route"]);
    let sent = desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c")], "");
    assert_eq!(sent[1..], ["follow route", "follow p-c"]);
}

#[test]
fn a_channel_named_twice_is_one_subscription() {
    let mut desk = Desk::new(LIMITS);
    desk.implicit = vec!["c", "c", ""];
    let sent = desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c, c")], "");
    assert_eq!(sent[1..], ["follow c"]);
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 1#2 \"x\" more"]);
    desk.cancel("a", "1");
    assert_eq!(desk.written(), ["unfollow c"]);
}

#[test]
fn channels_beyond_the_maximum_are_left_out() {
    let mut desk = Desk::new(Limits { subscriptions: 2, ..LIMITS });
    desk.implicit = vec!["route"];
    let sent = desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c1, c2, c3")], "");
    assert_eq!(sent[1..], ["follow route", "follow c1", "follow c2"]);
}

#[test]
fn what_does_not_ask_to_be_held_is_not_held() {
    let mut desk = Desk::new(LIMITS);
    assert_eq!(desk.hold("a", &["1"], &[("Grip-Channel", "c")], "x"), ["pass \"x\""]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn several_requests_given_over_at_once_are_held_each() {
    let mut desk = Desk::new(LIMITS);
    desk.hold("a", &["1", "2"], STREAM, "");
    assert_eq!(desk.engine.held(), 2);
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 1#2,2#2 \"x\" more"]);
}

#[test]
fn a_session_given_over_twice_is_held_once() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    assert_eq!(desk.hold("a", &["1"], STREAM, ""), [""; 0]);
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 1#2 \"x\" more"]);
}

#[test]
fn what_was_published_before_a_hold_is_not_for_it() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.content("c", "old");
    let sent = desk.hold("a", &["2"], STREAM, "");
    assert_eq!(sent[0], "a 1#2 \"old\" more");
    desk.content("c", "new");
    assert_eq!(desk.turn(), ["a 1#3,2#2 \"new\" more"]);
}

#[test]
fn a_client_that_leaves_is_unsubscribed_at_once() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.cancel("a", "1");
    assert_eq!(desk.written(), ["unfollow c"]);
    desk.content("c", "x");
    assert_eq!(desk.turn(), [""; 0]);
}

#[test]
fn a_client_that_leaves_with_an_error_needs_no_number() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.packet("a", Packet { ids: Ids::One(b"1", Some(77)), kind: Kind::Error, ..Packet::default() });
    assert_eq!(desk.written(), ["unfollow c"]);
}

#[test]
fn a_packet_out_of_sequence_ends_the_hold() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.grant("a", "1", 9, 10);
    assert_eq!(desk.written(), ["a 1#2 cancel", "unfollow c"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_keep_alive_that_crossed_the_hand_off_does_not_end_the_hold() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.grant("a", "1", 2, 10);
    desk.grant("a", "1", 3, 10);
    assert_eq!(desk.written(), [""; 0]);
    assert_eq!(desk.engine.held(), 1);
}

#[test]
fn a_frontend_that_goes_takes_only_its_own_clients() {
    let mut desk = Desk::new(LIMITS);
    for (frontend, id) in [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")] {
        desk.stream(frontend, id, "c");
    }
    desk.frontend_goes("a");
    assert_eq!(desk.engine.held(), 2);
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["b 2#2,1#2 \"x\" more"]);
}

#[test]
fn a_packet_of_another_frontend_does_not_reach_the_session() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.cancel("b", "1");
    assert_eq!(desk.engine.held(), 1);
}

#[test]
fn at_the_end_the_frontends_are_told_many_sessions_a_packet() {
    let mut desk = Desk::new(LIMITS);
    for id in ["1", "2"] {
        desk.stream("a", id, "c");
    }
    desk.poll("a", "3", "c");
    desk.shut_down();
    assert_eq!(desk.written(), ["a 1#2,2#2,3#2 cancel"]);
    assert_eq!(desk.engine.held(), 0);
}
