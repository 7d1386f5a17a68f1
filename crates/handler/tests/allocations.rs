// SPDX-License-Identifier: AGPL-3.0-or-later
//! How often the allocator is asked, a hold and a delivery: a check of the data path's cost that does not depend on the
//! machine. Whoever makes a number smaller lowers the limit; whoever must raise one says why.

mod crowd;

use crowd::{Crowd, answer, content};

/// A hold on one channel that is known, from the decision to the first packet; those of reading the
/// backend's instruct are in it, and 4 for the record that its frontend keeps. Measured: 19.
const HOLD: u64 = 19;
/// The end of a hold. Measured: 0.
const RELEASE: u64 = 0;
/// One publish to 1000 streams of one frontend. Measured: 13.
const PUBLISH_TO_1000: u64 = 13;
/// One more item for the same streams in the same turn. Measured: 4.
const JOINED_ITEM: u64 = 4;
/// One publish to a channel that nobody listens to. Measured: 3.
const PUBLISH_TO_NOBODY: u64 = 3;
/// One publish to 1000 long-polls with the same instruct, which it ends. Measured: 33.
const ANSWER_1000: u64 = 33;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// How often `work` asks the allocator, on average over `times`.
fn average(times: u64, mut work: impl FnMut()) -> u64 {
    counting::allocations(|| (0..times).for_each(|_| work())).div_ceil(times)
}

/// A crowd in which tables have grown and buffers exist.
fn warm(mode: &str) -> Crowd {
    let mut crowd = Crowd::new();
    for _ in 0..1000 {
        crowd.hold(mode, "news");
    }
    for _ in 0..3 {
        crowd.publish(content("news"));
    }
    crowd
}

fn within(limit: u64, measured: u64) {
    assert!(measured <= limit, "{measured} allocations, {limit} are allowed");
}

#[test]
fn a_hold_taken_over() {
    let mut crowd = warm("stream");
    within(
        HOLD,
        average(1000, || {
            crowd.hold("stream", "news");
        }),
    );
}

#[test]
fn a_hold_released() {
    let mut crowd = warm("stream");
    let mut ids: Vec<_> = (0..500).map(|_| crowd.hold("stream", "news")).collect();
    within(RELEASE, average(500, || crowd.leave(ids.pop().unwrap())));
}

#[test]
fn a_publish_to_1000_streams() {
    let mut crowd = warm("stream");
    let item = content("news");
    within(PUBLISH_TO_1000, average(10, || crowd.publish(item.clone())));
}

#[test]
fn an_item_joined_to_another() {
    let mut crowd = warm("stream");
    let item = content("news");
    let measured = average(1000, || crowd.add(item.clone()));
    within(JOINED_ITEM, measured);
}

#[test]
fn a_publish_to_nobody() {
    let mut crowd = warm("stream");
    let item = content("other");
    within(PUBLISH_TO_NOBODY, average(10, || crowd.publish(item.clone())));
}

#[test]
fn an_answer_to_1000_long_polls() {
    let mut crowd = warm("response");
    let item = answer("news");
    within(ANSWER_1000, average(1, || crowd.publish(item.clone())));
    assert_eq!(crowd.engine.held(), 0);
}
