// SPDX-License-Identifier: AGPL-3.0-or-later
//! What happens when time passes.

use std::time::Duration;

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;
use zhttp::{Ids, Kind, Packet};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const SECOND: Duration = seconds(1);

#[test]
fn a_long_poll_that_has_waited_long_enough_gets_the_instructs_response() {
    let mut desk = Desk::new(Limits { linger: Duration::ZERO, ..LIMITS });
    let headers = [("Grip-Hold", "response"), ("Grip-Channel", "c"), ("Grip-Timeout", "10"), ("X-A", "own")];
    desk.hold("a", &["1"], &headers, "none");
    assert_eq!(desk.pass(seconds(10) - Duration::from_millis(1)), [""; 0]);
    assert_eq!(desk.pass(Duration::from_millis(101)), ["a 1#2 200 OK [X-A: own] \"none\"", "unfollow c"]);
}

#[test]
fn a_timed_out_long_poll_without_credits_is_still_looked_after() {
    let mut desk = Desk::new(Limits { linger: Duration::ZERO, ..LIMITS });
    desk.credits = 1;
    desk.hold("a", &["1"], &[("Grip-Hold", "response"), ("Grip-Channel", "c"), ("Grip-Timeout", "10")], "none");
    assert_eq!(desk.pass(seconds(11)), ["a 1#2 200 OK \"n\" more"]);
    assert_eq!(desk.pass(seconds(34)), ["a 1#3 keep-alive"]);
    assert_eq!(desk.pass(seconds(20)), ["unfollow c"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn an_idle_stream_sends_its_keep_alive() {
    let mut desk = Desk::new(LIMITS);
    let keep_alive = ("Grip-Keep-Alive", "ping; timeout=10; mode=idle");
    desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c"), keep_alive], "");
    desk.pass(seconds(8));
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 1#2 \"x\" more"]);
    assert_eq!(desk.pass(seconds(9)), [""; 0]);
    assert_eq!(desk.pass(seconds(2)), ["a 1#3 \"ping\" more"]);
    assert_eq!(desk.pass(seconds(11)), ["a 1#4 \"ping\" more"]);
}

#[test]
fn a_stream_can_send_its_keep_alive_at_all_events() {
    let mut desk = Desk::new(LIMITS);
    let keep_alive = ("Grip-Keep-Alive", "ping; timeout=10; mode=interval");
    desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c"), keep_alive], "");
    desk.pass(seconds(8));
    desk.content("c", "x");
    desk.turn();
    assert_eq!(desk.pass(seconds(3)), ["a 1#3 \"ping\" more"]);
}

#[test]
fn a_short_keep_alive_keeps_its_time() {
    let mut desk = Desk::new(LIMITS);
    let keep_alive = ("Grip-Keep-Alive", "ping; timeout=1");
    desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c"), keep_alive], "");
    let sent = desk.pass(seconds(30)).len();
    assert!((29..=35).contains(&sent), "{sent}");
}

#[test]
fn frontends_hear_of_each_session_within_45_seconds_many_at_once() {
    let mut desk = Desk::new(LIMITS);
    let mut began = Vec::new();
    for id in 0..20 {
        desk.stream("a", &id.to_string(), "c");
        began.push(desk.now);
        desk.pass(Duration::from_millis(300));
    }
    let (mut packets, mut told) = (0, 0);
    while desk.now - began[0] < seconds(52) {
        for line in desk.pass(Duration::from_millis(100)) {
            assert!(line.ends_with(" keep-alive"), "{line}");
            packets += 1;
            for session in line[2..].trim_end_matches(" keep-alive").split(',') {
                let id: usize = session.strip_suffix("#2").unwrap().parse().unwrap();
                told += 1;
                assert!(desk.now - began[id] <= seconds(45), "session {id} after {:?}", desk.now - began[id]);
            }
        }
    }
    assert_eq!(told, 20);
    assert!(packets <= 3, "{packets}");
}

#[test]
fn a_session_of_which_nothing_is_heard_for_60_seconds_is_forgotten() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.stream("a", "2", "c");
    desk.pass(seconds(30));
    desk.packet("a", Packet { ids: Ids::Many(&[(b"2", 1)]), kind: Kind::KeepAlive, ..Packet::default() });
    desk.pass(seconds(29));
    assert_eq!(desk.engine.held(), 2);
    desk.pass(seconds(2));
    assert_eq!(desk.engine.held(), 1);
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 2#3 \"x\" more"]);
}

#[test]
fn a_channel_outlives_its_last_long_poll_for_a_while() {
    let mut desk = Desk::new(Limits { linger: seconds(10), ..LIMITS });
    desk.poll("a", "1", "c");
    desk.cancel("a", "1");
    assert_eq!(desk.pass(seconds(9)), [""; 0]);
    assert_eq!(desk.pass(SECOND * 2), ["unfollow c"]);
}

#[test]
fn a_long_poll_that_comes_back_keeps_the_channel() {
    let mut desk = Desk::new(Limits { linger: seconds(10), ..LIMITS });
    desk.poll("a", "1", "c");
    desk.cancel("a", "1");
    desk.pass(seconds(8));
    assert_eq!(desk.hold("a", &["2"], &[("Grip-Hold", "response"), ("Grip-Channel", "c")], ""), ["a 2#1 keep-alive"]);
    desk.cancel("a", "2");
    // The time counts from the last one.
    assert_eq!(desk.pass(seconds(9)), [""; 0]);
    assert_eq!(desk.pass(SECOND * 2), ["unfollow c"]);
}

#[test]
fn a_missing_item_is_not_waited_for_for_ever() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    for (id, prev) in [("1", "0"), ("3", "2")] {
        let text = format!(
            "\"channel\":\"c\",\"id\":\"{id}\",\"prev-id\":\"{prev}\",\"formats\":{{\"http-stream\":{{\"content\":\"{id}\"}}}}"
        );
        desk.publish_item(&text);
    }
    assert_eq!(desk.turn(), ["a 1#2 \"1\" more"]);
    desk.pass(seconds(5));
    desk.expire_sequences();
    assert_eq!(desk.turn(), ["a 1#3 \"3\" more"]);
}
