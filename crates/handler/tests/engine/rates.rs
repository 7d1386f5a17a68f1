// SPDX-License-Identifier: AGPL-3.0-or-later
//! `message_rate` and `message_hwm`: deliveries a second, and how many may wait.

use std::time::Duration;

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;

fn ids(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line[2..].split('#').next().unwrap()).collect()
}

#[test]
fn deliveries_leave_at_the_rate() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), ..LIMITS });
    for id in 0..5 {
        desk.stream("a", &id.to_string(), "c");
    }
    desk.content("c", "x");
    assert_eq!(desk.turn(), [""; 0]);
    desk.on_timer();
    assert_eq!(ids(&desk.written()), ["0"]);
    assert_eq!(desk.pass(Duration::from_millis(99)), [""; 0]);
    assert_eq!(ids(&desk.pass(Duration::from_millis(1))), ["1"]);
    assert_eq!(ids(&desk.pass(Duration::from_millis(300))), ["2", "3", "4"]);
    assert_eq!(desk.engine.totals().deliveries.sent, 5);
}

#[test]
fn deliveries_beyond_the_mark_are_dropped_but_counted_as_receivers() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), message_hwm: Some(5), ..LIMITS });
    for id in 0..10 {
        desk.stream("a", &id.to_string(), "c");
    }
    desk.content("c", "x");
    assert_eq!(desk.pass(Duration::from_secs(2)).len(), 5);
    assert_eq!(desk.engine.totals().deliveries.sent, 10);
}

#[test]
fn a_route_counted_apart_has_its_own_mark() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), message_hwm: Some(1), ..LIMITS });
    for (route, id) in [(None, "1"), (None, "2"), (Some("r"), "3"), (Some("r"), "4")] {
        desk.route = route;
        desk.stream("a", id, "c");
    }
    desk.content("c", "x");
    assert_eq!(ids(&desk.pass(Duration::from_secs(2))), ["1", "3"]);
}

#[test]
fn what_waits_for_its_turn_keeps_its_order() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), ..LIMITS });
    desk.stream("a", "1", "c");
    for content in ["1", "2", "3"] {
        desk.content("c", content);
    }
    desk.publish("c", "\"http-stream\":{\"action\":\"close\"}");
    let mut sent = desk.turn();
    sent.extend(desk.pass(Duration::from_secs(2)));
    assert_eq!(sent, ["a 1#2 \"1\" more", "a 1#3 \"2\" more", "a 1#4 \"3\" more", "a 1#5", "unfollow c"]);
}

#[test]
fn a_delivery_whose_client_has_left_reaches_nobody_else() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), ..LIMITS });
    desk.stream("a", "1", "c");
    desk.stream("a", "2", "c");
    desk.content("c", "x");
    desk.cancel("a", "2");
    desk.stream("a", "3", "c");
    assert_eq!(ids(&desk.pass(Duration::from_secs(1))), ["1"]);
}

#[test]
fn a_long_polls_answer_waits_for_its_turn_too() {
    let mut desk = Desk::new(Limits { message_rate: Some(10), ..LIMITS });
    for id in ["1", "2"] {
        desk.poll("a", id, "c");
    }
    desk.publish("c", "\"http-response\":{\"body\":\"x\"}");
    assert_eq!(desk.pass(Duration::from_secs(1)), ["a 1#2 200 OK \"x\"", "a 2#2 200 OK \"x\""]);
    assert_eq!(desk.engine.held(), 0);
}
