// SPDX-License-Identifier: AGPL-3.0-or-later
//! What frontends are told so that a successor of this handler goes on with their clients, and what a successor does with it.

use handler::context::Context;
use handler::engine::recovering::{Change, Recovering, Told};
use handler::take_over::record::PLACE;
use zhttp::recovery::{Held, Message, Packer};
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
        desk.now += std::time::Duration::from_secs(2);
        let cx = &mut Context::new(desk.now, &mut desk.out);
        assert!(recovering.end(&mut desk.engine, cx), "it does not wait for longer");
        if published {
            publish(&mut desk, "m1", "x");
        }
        let standing = Standing { in_seq: 1, out_seq: 2, credits: 100 };
        let id = Id::new(b"1").unwrap();
        let held = Held {
            id,
            standing,
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
        assert!(packer.push(held, &record).is_none());
        let packet = packer.finish().unwrap();
        let told = Told::read(&packet, &mut peers).unwrap();
        let cx = &mut Context::new(desk.now, &mut desk.out);
        recovering.on_told(frontend, true, told, &mut desk.engine, cx);
        let (held, answer) = if published { (0, "cancel") } else { (1, "keep-alive") };
        assert_eq!(desk.engine.held(), held, "{:?}", desk.out.warnings);
        assert_eq!(desk.turn().last().unwrap(), &format!("a by router 1#2 {answer}"));
    }
}
