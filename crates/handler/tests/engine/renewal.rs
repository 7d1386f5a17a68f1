// SPDX-License-Identifier: AGPL-3.0-or-later
//! Long-polls that go back to the proxy, to be proxied anew.

use std::time::Duration;

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;
use settings::FirstSubscription;

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(200);

fn item(id: u32, prev: u32) -> String {
    format!(
        "\"channel\":\"c\",\"id\":\"{id}\",\"prev-id\":\"{prev}\",\"formats\":{{\"http-response\":{{\"body\":\"{id}\"}}}}"
    )
}

#[test]
fn a_hint_gives_a_poll_back() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c");
    desk.publish("c", "\"http-response\":{\"action\":\"hint\"}");
    assert_eq!(desk.turn(), ["f 1#2 handoff-start"]);
    // It is on its way: nothing more is sent.
    desk.publish("c", "\"http-response\":{\"body\":\"x\"}");
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_poll_that_has_missed_a_message_goes_back_with_the_last_one_it_has() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.publish_item(&item(3, 2));
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(desk.pass(TICK), ["f 1#2 handoff-start"]);
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3 c=1"]);
}

#[test]
fn a_message_that_comes_while_a_poll_is_on_its_way_back_is_not_taken_for_one_that_it_has() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.publish("c", "\"http-response\":{\"action\":\"hint\"}");
    desk.turn();
    desk.publish_item(&item(2, 1));
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3 c=1"]);
}

#[test]
fn a_poll_that_comes_while_others_like_it_are_on_their_way_back_is_held_by_itself() {
    for (id, prev, expected) in [(2, 1, "f 2#2 200 OK \"2\""), (5, 4, "f 2#2 handoff-start")] {
        let mut desk = Desk::new(LIMITS);
        desk.poll("f", "1", "c; prev-id=1");
        desk.publish_item(&item(3, 2));
        desk.turn();
        assert_eq!(desk.pass(TICK), ["f 1#2 handoff-start"]);
        // Its backend has been asked since, and knows of no message either.
        desk.known = &[("c", "3")];
        desk.hold("f", &["2"], &[("Grip-Hold", "response"), ("Grip-Channel", "c; prev-id=1")], "none");
        desk.publish_item(&item(id, prev));
        let (told, later) = (desk.turn(), desk.pass(TICK));
        assert_eq!([told, later].concat(), [expected]);
        assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3 c=1"]);
    }
}

#[test]
fn a_message_that_says_nothing_of_the_one_before_is_the_first() {
    for prev in ["", ",\"prev-id\":\"\""] {
        let mut desk = Desk::new(LIMITS);
        desk.poll("f", "1", "c; prev-id=");
        let body = "\"formats\":{\"http-response\":{\"body\":\"first\"}}";
        desk.publish_item(&format!("\"channel\":\"c\",\"id\":\"1\"{prev},{body}"));
        assert_eq!(desk.turn(), ["f 1#2 200 OK \"first\""]);
    }
}

#[test]
fn a_message_that_is_the_next_one_answers_a_poll() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.publish_item(&item(2, 1));
    assert_eq!(desk.turn(), ["f 1#2 200 OK \"2\""]);
}

#[test]
fn a_poll_that_was_handed_over_too_late_goes_back_at_once() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.publish_item(&item(2, 1));
    desk.turn();
    // Its backend has answered before the message was published.
    let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c; prev-id=1")];
    assert_eq!(desk.hold("f", &["2"], &headers, "none"), ["give back 2#1/1 c=1"]);
    // Now the backend was asked after the message, and says the same again: it must know.
    desk.known = &[("c", "2")];
    assert_eq!(desk.hold("f", &["2"], &headers, "none").len(), 1);
    assert_eq!(desk.engine.held(), 1);
}

#[test]
fn a_poll_that_is_late_again_goes_back_again() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.publish_item(&item(2, 1));
    desk.publish_item(&item(3, 2));
    desk.turn();
    // It was asked when 2 was the last one.
    desk.known = &[("c", "2")];
    let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c; prev-id=2")];
    assert_eq!(desk.hold("f", &["2"], &headers, "none"), ["give back 2#1/1 c=2"]);
}

#[test]
fn the_first_subscriber_asks_again_if_it_could_have_missed_something() {
    let mut desk = Desk::new(Limits { update_on_first_subscription: FirstSubscription::Reliable, ..LIMITS });
    desk.poll("f", "1", "c; prev-id=1");
    desk.poll("f", "2", "d");
    assert_eq!(desk.pass(SECOND + TICK), ["f 1#2 handoff-start"]);
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3 c=1"]);
    // The subscription lingers, so the next one has missed nothing.
    desk.poll("f", "3", "c; prev-id=1");
    desk.written();
    assert_eq!(desk.pass(SECOND * 3), [""; 0]);
}

#[test]
fn everybody_asks_again_if_that_is_wished() {
    let mut desk = Desk::new(Limits { update_on_first_subscription: FirstSubscription::Always, ..LIMITS });
    desk.poll("f", "1", "c");
    desk.stream("f", "2", "d");
    desk.written();
    assert_eq!(desk.pass(SECOND + TICK), ["f 1#2 handoff-start"]);
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c; prev-id=1");
    desk.written();
    assert_eq!(desk.pass(SECOND + TICK), [""; 0]);
}

#[test]
fn recover_has_all_polls_ask_again_a_hundred_at_a_time() {
    let mut desk = Desk::new(LIMITS);
    for i in 0..150 {
        desk.poll("f", &i.to_string(), "c");
    }
    desk.written();
    desk.recover();
    assert_eq!(desk.pass(Duration::from_millis(100)).len(), 100);
    assert_eq!(desk.pass(Duration::from_millis(100)).len(), 50);
}

#[test]
fn a_poll_that_nobody_takes_back_is_closed() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c");
    desk.out.no_proxy = true;
    desk.publish("c", "\"http-response\":{\"action\":\"hint\"}");
    desk.turn();
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3", "f 1#3 cancel"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn a_poll_that_goes_back_tells_the_gone_link() {
    let mut desk = Desk::new(LIMITS);
    let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c"), ("Grip-Link", "</gone>; rel=gone")];
    desk.hold("f", &["1"], &headers, "none");
    desk.publish("c", "\"http-response\":{\"action\":\"hint\"}");
    desk.turn();
    assert_eq!(desk.proceed("f", "1"), ["give back 1#2/3", "ask POST http://x.test/gone"]);
}

#[test]
fn a_client_that_leaves_while_it_is_paused_is_forgotten() {
    let mut desk = Desk::new(LIMITS);
    desk.poll("f", "1", "c");
    desk.publish("c", "\"http-response\":{\"action\":\"hint\"}");
    desk.turn();
    desk.cancel("f", "1");
    assert_eq!(desk.turn(), [""; 0]);
    assert_eq!(desk.engine.held(), 0);
}
