// SPDX-License-Identifier: AGPL-3.0-or-later
//! Content on its way to streams: grouping, order, credits.

use super::desk::{Desk, LIMITS};
use handler::engine::Limits;
use zhttp::{Ids, Kind, Packet};

const TICK: std::time::Duration = std::time::Duration::from_millis(100);
const CLOSE: &str = "\"http-stream\":{\"action\":\"close\"}";

#[test]
fn one_publish_is_one_packet_for_up_to_128_streams() {
    let mut desk = Desk::new(LIMITS);
    for id in 0..300 {
        desk.stream("a", &id.to_string(), "c");
    }
    // One session is a number ahead of the others.
    desk.stream("a", "ahead", "c, other");
    desk.content("other", "x");
    desk.turn();
    desk.content("c", "y");
    let sent = desk.turn();
    let sizes: Vec<_> = sent.iter().map(|line| line.matches('#').count()).collect();
    assert_eq!(sizes, [128, 128, 45]);
    assert!(sent[0].starts_with("a 0#2,1#2,2#2,"));
    assert!(sent[2].ends_with(",299#2,ahead#3 \"y\" more"));
}

#[test]
fn each_frontend_gets_its_own_packet() {
    let mut desk = Desk::new(LIMITS);
    for (frontend, id) in [("a", "1"), ("b", "2"), ("a", "3")] {
        desk.stream(frontend, id, "c");
    }
    desk.content("c", "x");
    let mut sent = desk.turn();
    sent.sort();
    assert_eq!(sent, ["a 1#2,3#2 \"x\" more", "b 2#2 \"x\" more"]);
}

#[test]
fn what_is_published_in_one_turn_leaves_together() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    for content in ["one ", "two ", "three"] {
        desk.content("c", content);
    }
    assert_eq!(desk.written(), [""; 0]);
    assert_eq!(desk.turn(), ["a 1#2 \"one two three\" more"]);
}

#[test]
fn another_channel_between_does_not_change_the_order() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c, d");
    for (channel, content) in [("c", "1"), ("c", "2"), ("d", "3"), ("c", "4")] {
        desk.content(channel, content);
    }
    assert_eq!(desk.turn(), ["a 1#2 \"1234\" more"]);
}

#[test]
fn a_client_without_credits_gets_its_content_in_order_when_they_come() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 3;
    desk.stream("a", "1", "c");
    desk.content("c", "abcde");
    assert_eq!(desk.turn(), ["a 1#2 \"abc\" more"]);
    desk.content("c", "fg");
    assert_eq!(desk.turn(), [""; 0]);
    desk.grant("a", "1", 1, 3);
    assert_eq!(desk.written(), ["a 1#3 \"de\" more", "a 1#4 \"f\" more"]);
    desk.grant("a", "1", 2, 100);
    assert_eq!(desk.written(), ["a 1#5 \"g\" more"]);
    desk.content("c", "h");
    assert_eq!(desk.turn(), ["a 1#6 \"h\" more"]);
}

#[test]
fn a_client_that_reads_too_slowly_is_closed_and_the_others_go_on() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 10;
    desk.stream("a", "slow", "c");
    desk.credits = 10_000;
    desk.stream("a", "fast", "c");
    let content = "x".repeat(100);
    desk.content("c", &content);
    assert_eq!(desk.turn().len(), 2);
    desk.content("c", &content);
    assert_eq!(desk.turn(), [format!("a fast#3 \"{content}\" more")]);
    assert_eq!(desk.pass(LIMITS.queue_time - TICK), [""; 0]);
    assert_eq!(desk.pass(TICK * 2), ["a slow#3 cancel"]);
    assert_eq!(desk.engine.totals().slow_closed, 1);
    desk.content("c", "y");
    assert_eq!(desk.turn(), ["a fast#4 \"y\" more"]);
}

#[test]
fn pieces_that_wait_count_with_what_keeping_them_costs() {
    let mut desk = Desk::new(Limits { queue_bytes: 10_000, ..LIMITS });
    desk.credits = 0;
    desk.stream("a", "1", "c");
    for _ in 0..1_000 {
        desk.content("c", "x");
        assert_eq!(desk.turn(), [""; 0]);
    }
    assert_eq!(desk.pass(LIMITS.queue_time + TICK), ["a 1#2 cancel", "unfollow c"]);
}

#[test]
fn a_client_that_is_behind_by_many_times_the_limit_is_closed_at_once() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 0;
    desk.stream("a", "1", "c");
    for _ in 0..16 {
        desk.content("c", &"x".repeat(150));
        assert_eq!(desk.turn(), [""; 0]);
    }
    desk.content("c", &"x".repeat(1000));
    assert_eq!(desk.turn(), ["a 1#2 cancel", "unfollow c"]);
}

#[test]
fn a_client_that_reads_an_item_larger_than_the_limit_is_not_slow() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 100;
    desk.stream("a", "1", "c");
    desk.content("c", &"x".repeat(1000));
    desk.content("c", "next");
    let mut got = desk.turn();
    for seq in 1..12 {
        got.extend(desk.pass(TICK * 4));
        desk.grant("a", "1", seq, 100);
        got.extend(desk.written());
    }
    assert_eq!(got.iter().map(|line| line.matches('x').count()).sum::<usize>(), 1000 + 1, "{got:?}");
    assert!(got.last().unwrap().ends_with("next\" more"), "{got:?}");
    assert_eq!((desk.engine.held(), desk.engine.totals().slow_closed), (1, 0));
}

#[test]
fn content_larger_than_the_credits_of_many_is_shared_and_so_is_what_follows() {
    let mut desk = Desk::new(Limits { queue_bytes: 1_000_000, ..LIMITS });
    for id in 0..100 {
        // What they have used of their windows differs.
        desk.credits = 10_000 + id;
        desk.stream("a", &id.to_string(), "c");
    }
    desk.content("c", &"x".repeat(30_000));
    let sizes =
        |lines: &[String]| lines.iter().map(|l| (l.matches('#').count(), l.matches('x').count())).collect::<Vec<_>>();
    let sent = desk.turn();
    // Parts end at multiples of 4,096 in memory, and one of these may lie where some windows end before it and others behind.
    // What a window has left then is too little to be shared.
    let shared: Vec<_> = sizes(&sent).into_iter().filter(|&(ids, _)| ids > 1).collect();
    let ids: usize = shared.iter().map(|(ids, _)| ids).sum();
    assert!(ids == 100 && shared.len() <= 2 && shared.iter().all(|&(_, bytes)| bytes > 4_096), "{shared:?}");
    let ids: Vec<_> = (0..100).map(|id: u32| id.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(|id| (id.as_bytes(), 1)).collect();
    desk.packet("a", Packet { ids: Ids::Many(&ids), kind: Kind::Credit, credits: Some(40_000), ..Packet::default() });
    assert_eq!(
        sizes(&desk.written()).iter().map(|(ids, bytes)| ids * bytes).sum::<usize>()
            + sizes(&sent).iter().map(|(ids, bytes)| ids * bytes).sum::<usize>(),
        3_000_000
    );
}

#[test]
fn runs_of_channels_stand_side_by_side_and_each_stream_gets_its_own_in_order() {
    let mut desk = Desk::new(LIMITS);
    for (id, channels) in [("1", "c"), ("2", "d"), ("3", "c, d"), ("4", "d, c"), ("5", "c")] {
        desk.stream("a", id, channels);
    }
    for i in 0..6 {
        desk.content(["c", "d"][i % 2], &i.to_string());
    }
    let sent = desk.turn();
    assert_eq!(sent, ["a 1#2,5#2 \"024\" more", "a 2#2 \"135\" more", "a 3#2,4#2 \"012345\" more"]);
}

#[test]
fn a_client_that_gets_the_last_of_its_stream_is_not_slow() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 0;
    desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", "c")], &"x".repeat(500));
    desk.publish("c", CLOSE);
    desk.content("c", "too late");
    assert_eq!(desk.turn(), [""; 0]);
    desk.grant("a", "1", 1, 500);
    assert_eq!(desk.written(), [format!("a 1#2 \"{}\"", "x".repeat(500)), "unfollow c".into()]);
}

#[test]
fn closing_the_only_client_of_a_channel_in_the_midst_of_its_items_is_no_trouble() {
    for rate in [None, Some(400)] {
        let mut desk = Desk::new(Limits { message_rate: rate, ..LIMITS });
        desk.credits = 0;
        desk.stream("a", "1", "c");
        for _ in 0..200 {
            desk.content("c", &"x".repeat(1000));
        }
        desk.publish("c", CLOSE);
        desk.content("c", "x");
        desk.turn();
        desk.pass(std::time::Duration::from_secs(1));
        assert_eq!(desk.engine.held(), 0, "{rate:?}");
        desk.stream("a", "2", "d");
        desk.content("d", "x");
        assert_eq!(desk.turn(), [""; 0]);
    }
}

#[test]
fn close_ends_the_response_after_what_was_published_before() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.content("c", "last");
    desk.publish("c", CLOSE);
    desk.content("c", "too late");
    assert_eq!(desk.turn(), ["a 1#2 \"last\" more", "a 1#3", "unfollow c"]);
    assert_eq!(desk.engine.held(), 0);
}

#[test]
fn close_ends_the_response_after_what_waits_for_credits() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 2;
    desk.stream("a", "1", "c");
    desk.content("c", "abc");
    desk.publish("c", CLOSE);
    desk.content("c", "too late");
    assert_eq!(desk.turn(), ["a 1#2 \"ab\" more"]);
    desk.grant("a", "1", 1, 10);
    assert_eq!(desk.written(), ["a 1#3 \"c\"", "unfollow c"]);
}

#[test]
fn streams_and_long_polls_of_a_channel_get_their_own_formats() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    desk.poll("a", "2", "c");
    desk.publish("c", "\"http-stream\":{\"content\":\"s\"},\"http-response\":{\"body\":\"r\"}");
    assert_eq!(desk.turn(), ["a 2#2 200 OK \"r\"", "a 1#2 \"s\" more"]);
    assert_eq!((desk.engine.totals().deliveries.received, desk.engine.totals().deliveries.sent), (1, 2));
}

#[test]
fn content_that_fills_a_packet_leaves_before_the_end_of_the_turn() {
    let mut desk = Desk::new(LIMITS);
    desk.credits = 1_000_000;
    desk.stream("a", "1", "c");
    for _ in 0..20 {
        desk.content("c", &"x".repeat(1000));
    }
    let before = desk.written();
    let sizes: Vec<_> = before.iter().chain(&desk.turn()).map(|line| line.matches('x').count()).collect();
    assert_eq!(sizes, [9000, 9000, 2000]);
}
