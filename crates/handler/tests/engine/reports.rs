// SPDX-License-Identifier: AGPL-3.0-or-later
//! What publishers are told of their items.

use handler::deliver::fate::Fate;
use handler::subscribe::counts::Counts;

use super::desk::{Desk, LIMITS};

const NOBODY: Counts = Counts { http_response: 0, http_stream: 0, ws_message: 0 };
const ALL: &str = "\"http-stream\":{\"content\":\"s\"},\"http-response\":{\"body\":\"r\"}";

#[test]
fn receivers_are_counted_by_format_and_those_who_have_left_are_not() {
    let mut desk = Desk::new(LIMITS);
    for id in ["1", "2"] {
        desk.stream("a", id, "c");
    }
    desk.poll("a", "3", "c");
    assert_eq!(desk.publish("other", ALL), Fate::Published(NOBODY));
    assert_eq!(desk.publish("c", "\"ws-message\":{\"content\":\"x\"}"), Fate::Published(NOBODY));
    let both = Counts { http_response: 1, http_stream: 2, ..NOBODY };
    assert_eq!(desk.publish("c", ALL), Fate::Published(both));
    desk.turn();
    desk.cancel("a", "1");
    // The long-poll has got its response.
    assert_eq!(desk.publish("c", ALL), Fate::Published(Counts { http_stream: 1, ..NOBODY }));
    assert_eq!(
        desk.publish("c", "\"http-stream\":{\"action\":\"close\"}"),
        Fate::Published(Counts { http_stream: 1, ..NOBODY })
    );
}

#[test]
fn those_from_whom_filters_keep_an_item_do_not_count() {
    let mut desk = Desk::new(LIMITS);
    for (id, mode, user) in [("1", "stream", "user=bob"), ("2", "stream", "user=eve"), ("3", "response", "user=bob")] {
        let headers = [("Grip-Hold", mode), ("Grip-Channel", "c; filter=skip-self"), ("Grip-Set-Meta", user)];
        desk.hold("a", &[id], &headers, "none");
    }
    let fate = desk.publish_item(&format!("\"channel\":\"c\",\"meta\":{{\"sender\":\"bob\"}},{ALL}"));
    assert_eq!(fate, Fate::Published(Counts { http_stream: 1, ..NOBODY }));
    assert_eq!(desk.turn().len(), 1);
}

#[test]
fn an_item_out_of_order_tells_what_it_waits_for_and_each_tells_of_itself_only() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c");
    let mut item = |id: &str, prev: &str| {
        desk.publish_item(&format!("\"channel\":\"c\",\"id\":\"{id}\",\"prev-id\":\"{prev}\",{ALL}"))
    };
    let one = Fate::Published(Counts { http_stream: 1, ..NOBODY });
    assert_eq!(item("1", "0"), one);
    assert_eq!(item("1", "0"), Fate::Repeated);
    assert_eq!(item("3", "2"), Fate::Waiting);
    assert_eq!(item("3b", "2"), Fate::Dropped);
    // The other one that leaves with it is not counted with it.
    assert_eq!(item("2", "1"), one);
    let content = desk.turn().concat();
    assert!(content.contains("sss"), "{content}");
}
