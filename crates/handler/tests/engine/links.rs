// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frontends whose links take no more: what waits, waits on their own holds.

use std::time::Duration;

use super::desk::{Desk, LIMITS};
use handler::context::Sent;
use handler::engine::Limits;

const TICK: Duration = Duration::from_millis(100);

/// Streams of two frontends on one channel.
fn two() -> Desk {
    let mut desk = Desk::new(Limits { queue_bytes: 10_000, ..LIMITS });
    desk.credits = 100_000;
    for (frontend, id) in [("a", "1"), ("a", "2"), ("b", "3")] {
        desk.stream(frontend, id, "c");
    }
    desk
}

#[test]
fn a_frontend_that_takes_no_more_does_not_hold_up_another_and_misses_nothing() {
    let mut desk = two();
    desk.link("a", Sent::Full);
    let mut sent = Vec::new();
    for i in 0..10 {
        desk.content("c", &i.to_string());
        sent.extend(desk.turn());
    }
    let to = |name: &str| sent.iter().filter(|line| line.starts_with(name)).count();
    // The packet that filled the link was taken.
    assert_eq!((to("a "), to("b ")), (1, 10));
    assert_eq!(desk.room("a"), ["a 1#3,2#3 \"123456789\" more"]);
    desk.content("c", "x");
    assert_eq!(desk.turn().len(), 2);
}

#[test]
fn a_frontend_that_has_room_for_little_goes_on_little_by_little() {
    let mut desk = two();
    desk.link("a", Sent::Full);
    desk.content("c", "1");
    desk.turn();
    desk.content("c", "2");
    desk.turn();
    desk.stream("a", "4", "d");
    desk.content("d", "x");
    desk.content("c", "3");
    let sent = desk.turn();
    assert!(sent.iter().all(|line| line.starts_with("b ")), "{sent:?}");
    desk.link("a", Sent::Full);
    let mut got = Vec::new();
    for _ in 0..5 {
        let peer_has_room = desk.room_once("a");
        got.extend(peer_has_room);
    }
    got.sort();
    assert_eq!(got, ["a 1#3,2#3 \"23\" more", "a 4#2 \"x\" more"]);
}

#[test]
fn clients_of_a_frontend_that_takes_nothing_are_closed_when_too_much_waits_for_them() {
    let mut desk = two();
    desk.link("a", Sent::Full);
    for _ in 0..10 {
        desk.content("c", &"x".repeat(5_000));
        desk.turn();
    }
    assert_eq!(desk.engine.held(), 3);
    desk.pass(LIMITS.queue_time + TICK);
    assert_eq!((desk.engine.held(), desk.engine.totals().slow_closed), (1, 2));
    // They are told as soon as they can be.
    let told = desk.room("a");
    assert!(["a 1#3,2#3 cancel", "a 2#3,1#3 cancel"].contains(&&*told[0]) && told.len() == 1, "{told:?}");
}

#[test]
fn a_response_that_ends_waits_for_room() {
    let mut desk = two();
    desk.link("a", Sent::Full);
    desk.content("c", "1");
    desk.turn();
    desk.publish("c", "\"http-stream\":{\"action\":\"close\"}");
    assert_eq!(desk.turn(), ["b 3#3"]);
    assert_eq!(desk.room("a"), ["a 1#3,2#3", "unfollow c"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn sessions_whose_packet_is_lost_end_are_counted_and_told() {
    let mut desk = two();
    desk.link("a", Sent::Lost);
    desk.content("c", "1");
    assert_eq!(desk.turn(), ["b 3#2 \"1\" more"]);
    assert_eq!((desk.engine.held(), desk.engine.totals().lost), (1, 2));
    assert_eq!(desk.room("a"), ["a 1#3,2#3 cancel"]);
}

#[test]
fn what_waits_for_a_frontend_that_goes_is_forgotten() {
    let mut desk = two();
    desk.link("a", Sent::Full);
    desk.content("c", "1");
    desk.turn();
    desk.content("c", "2");
    desk.turn();
    desk.frontend_goes("a");
    assert_eq!((desk.engine.held(), desk.engine.totals().frontend_gone), (1, 2));
    assert_eq!(desk.room("a"), [""; 0]);
}
