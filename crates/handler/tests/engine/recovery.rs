// SPDX-License-Identifier: AGPL-3.0-or-later
//! What frontends are told so that a successor of this handler goes on with their clients, and what a successor does with it.

use handler::context::{Context, Sent};
use handler::engine::recovering::{Change, Recovering, Told};
use handler::take_over::record::PLACE;
use zhttp::recovery::{Held, Message, Packer, Seen, pack_seen};
use zhttp::session::client::Standing;
use zhttp::{Id, Peers};

use super::desk::{Desk, LIMITS};

/// A desk whose frontends keep records.
fn desk(credits: u32) -> Desk {
    let mut desk = Desk::new(LIMITS);
    (desk.by_router, desk.credits) = (true, credits);
    desk
}

fn publish(desk: &mut Desk, id: &str, content: &str) -> Vec<String> {
    desk.publish_item(&format!(
        "\"channel\":\"c\",\"id\":\"{id}\",\"formats\":{{\"http-stream\":{{\"content\":\"{content}\"}}}}"
    ));
    desk.turn()
}

/// A frontend offers session 1, of which it has got packets 0 and 1, with this record.
fn offer(record: &[u8]) -> Vec<u8> {
    let held = Held {
        id: Id::new(b"1").unwrap(),
        standing: Standing { in_seq: 1, out_seq: 2, credits: 100 },
        age: 0,
        since: 0,
        run: 0,
        lags: false,
        gone: false,
        unread: None,
        counted: None,
        record: 0,
    };
    let mut packer = Packer::default();
    assert!(packer.push(held, record).is_none());
    packer.finish().unwrap()
}

#[test]
fn a_frontend_hears_of_a_message_that_none_of_its_clients_takes_at_once() {
    let mut desk = desk(5);
    desk.stream("a", "1", "c");
    assert_eq!(
        publish(&mut desk, "m1", "12345678"),
        ["a by router 1#2 keep-alive lag run 1 [c m1]", "a by router 1#3 \"12345\" more"]
    );
    // It is told of the next one too, though it knows that something waits.
    assert_eq!(publish(&mut desk, "m2", "9"), ["a by router 1#4 keep-alive lag run 2 [c m2]"]);
    desk.grant("a", "1", 1, 100);
    assert_eq!(desk.turn(), ["a by router 1#5 \"6789\" more run 2"]);
    assert_eq!(publish(&mut desk, "m3", "0"), ["a by router 1#6 \"0\" more run 3 [c m3]"]);
}

#[test]
fn a_part_of_a_message_never_comes_without_the_word_that_the_rest_waits() {
    let mut desk = desk(5);
    desk.stream("a", "1", "c");
    desk.stream("a", "2", "c");
    let sent = publish(&mut desk, "m1", "12345678");
    assert_eq!(
        sent,
        [
            "a by router 1#2 keep-alive lag run 1 [c m1]",
            "a by router 1#3 \"12345\" more",
            "a by router 2#2 \"12345\" more lag"
        ]
    );
}

#[test]
fn a_long_poll_that_has_got_the_beginning_of_its_answer_is_not_for_a_successor() {
    let mut desk = desk(5);
    desk.poll("a", "1", "c");
    desk.publish_item(r#""channel":"c","id":"m1","formats":{"http-response":{"body":"12345678"}}"#);
    assert_eq!(desk.turn(), ["a by router 1#2 200 OK \"12345\" more lag run 1 [c m1]"]);
    desk.grant("a", "1", 1, 100);
    assert_eq!(desk.turn(), ["a by router 1#3 \"678\""]);
}

/// Otherwise a message that is published again, because its answer is lost with this handler, would be sent twice by a successor.
#[test]
fn a_frontend_whose_link_was_full_hears_of_the_messages_that_came_meanwhile() {
    let mut desk = desk(100);
    desk.stream("a", "1", "c");
    desk.stream("a", "2", "c");
    desk.link("a", Sent::Full);
    assert_eq!(publish(&mut desk, "m1", "x").len(), 1, "the link takes one packet more");
    assert_eq!(publish(&mut desk, "m2", "y"), [""; 0]);
    assert_eq!(publish(&mut desk, "m3", "z"), [""; 0]);
    desk.cancel("a", "1");
    assert_eq!(
        desk.room("a"),
        [
            "a by router 2#3 keep-alive lag",
            "a by router 2#4 keep-alive lag run 2 [c m2]",
            "a by router 2#5 keep-alive lag run 3 [c m3]",
            "a by router 2#6 \"yz\" more run 3",
        ]
    );
}

#[test]
fn who_is_named_after_messages_were_published_has_missed_them() {
    for published in [false, true] {
        let mut desk = desk(100);
        let (mut peers, mut recovering) = (Peers::default(), Recovering::new(1, desk.now));
        let mut predecessor = self::desk(100);
        predecessor.stream("a", "1", "c");
        let record = predecessor.out.records.pop().expect("a record was left");
        let frontend = desk.peer("a");
        assert!(!recovering.on_change(frontend, Change::Linked) && recovering.on_change(frontend, Change::Able));
        assert_eq!(Message::decode(&Recovering::question()), Ok(Message::Recover(PLACE)));
        desk.now += std::time::Duration::from_secs(8);
        let cx = &mut Context::new(desk.now, &mut desk.out);
        assert!(recovering.end(true, &mut desk.engine, cx), "it does not wait for longer");
        if published {
            publish(&mut desk, "m1", "x");
        }
        let packet = offer(&record);
        let told = Told::read(&packet, &mut peers).unwrap();
        let cx = &mut Context::new(desk.now, &mut desk.out);
        recovering.on_told(frontend, true, told, &mut desk.engine, cx);
        let (held, answer) = if published { (0, "cancel") } else { (1, "keep-alive") };
        assert_eq!(desk.engine.held(), held, "{:?}", desk.out.warnings);
        assert_eq!(desk.turn().last().unwrap(), &format!("a by router 1#2 {answer}"));
    }
}

/// A predecessor has taken a long-poll and ended before the proxy knew. The proxy offers it once more, with numbers of before.
#[test]
fn a_request_that_was_taken_up_is_not_given_back_when_it_is_offered_again() {
    let poll = [("Grip-Hold", "response"), ("Grip-Channel", "c; prev-id=m0")];
    for is_gone in [false, true] {
        let mut predecessor = self::desk(100);
        predecessor.hold("a", &["1"], &poll, "");
        let record = predecessor.out.records.pop().expect("a record was left");
        let mut desk = desk(100);
        let (mut peers, mut recovering) = (Peers::default(), Recovering::new(1, desk.now));
        let frontend = desk.peer("a");
        recovering.on_change(frontend, Change::Linked);
        recovering.on_change(frontend, Change::Able);
        let mut told = Vec::new();
        let seen = |last| Seen { run: 1, last, channel: b"c", id: b"m1" };
        pack_seen([seen(false), seen(true)].into_iter(), |packet| told.push(packet));
        told.extend([offer(&record), Message::Done { run: 1 }.encode()]);
        for packet in &told {
            let told = Told::read(packet, &mut peers).unwrap();
            recovering.on_told(frontend, true, told, &mut desk.engine, &mut Context::new(desk.now, &mut desk.out));
        }
        assert_eq!(desk.turn(), ["follow c", "a by router 1#2 keep-alive"]);
        recovering.on_all_named(&mut desk.engine, &mut Context::new(desk.now, &mut desk.out));
        assert!(recovering.end(true, &mut desk.engine, &mut Context::new(desk.now, &mut desk.out)));
        if is_gone {
            let paused = desk.pass(std::time::Duration::from_secs(2));
            assert_eq!(paused, ["a by router 1#3 handoff-start"], "it has missed a message");
            assert_eq!(desk.proceed("a", "1").len(), 1);
        }
        assert_eq!(desk.hold("a", &["1"], &poll, ""), Vec::<String>::new());
        assert_eq!(desk.engine.held(), usize::from(!is_gone));
        assert_eq!(desk.engine.totals().given_back, u64::from(is_gone));
    }
}

#[test]
fn a_proxy_that_has_ended_as_well_is_waited_for_and_one_that_says_nothing_only_for_a_moment() {
    let ends_after = |proxy: &dyn Fn(u64) -> bool, frontend_tells: bool| {
        let mut desk = desk(100);
        let (mut peers, mut recovering) = (Peers::default(), Recovering::new(1, desk.now));
        let frontend = desk.peer("a");
        if frontend_tells {
            let done = Message::Done { run: 1 }.encode();
            let done = Told::read(&done, &mut peers).unwrap();
            recovering.on_told(frontend, true, done, &mut desk.engine, &mut Context::new(desk.now, &mut desk.out));
        }
        let ms = (0..10_000).step_by(100).find(|ms| {
            let now = desk.now + std::time::Duration::from_millis(*ms);
            recovering.end(proxy(*ms), &mut desk.engine, &mut Context::new(now, &mut desk.out))
        });
        ms.expect("it ends")
    };
    for told in [true, false] {
        assert_eq!(ends_after(&|_| true, told), 1000);
        assert_eq!(ends_after(&|_| false, told), 6000);
        assert_eq!(ends_after(&|ms| ms >= 5500, told), 6500);
        assert_eq!(ends_after(&|ms| ms % 1000 < 500, told), 6500, "it comes and goes");
    }
}
