// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is held, what is passed on, and what is refused.

use super::desk::{Desk, LIMITS};

const STREAM: &[(&str, &str)] = &[("Grip-Hold", "stream"), ("Grip-Channel", "c")];

fn with<'a>(headers: &[(&'a str, &'a str)], more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    headers.iter().copied().chain([more]).collect()
}

#[test]
fn a_link_that_leads_nowhere_is_refused_by_name() {
    for headers in
        [vec![("Grip-Link", "<ftp://x.test/next>; rel=next")], with(STREAM, ("Grip-Link", "<mailto:next>; rel=gone"))]
    {
        let mut desk = Desk::new(LIMITS);
        let [answer] = &desk.hold("a", &["1"], &headers, "x")[..] else { panic!("one answer") };
        assert_eq!(answer, "refuse Grip-Link contains invalid link");
        assert_eq!(desk.engine.held(), 0);
    }
}

#[test]
fn a_filter_that_nobody_knows_has_no_effect_and_is_said() {
    let mut desk = Desk::new(LIMITS);
    desk.stream("a", "1", "c; filter=from-the-future");
    desk.content("c", "x");
    assert_eq!(desk.turn(), ["a 1#2 \"x\" more"]);
    assert!(desk.out.warnings[0].contains("'from-the-future'"), "{:?}", desk.out.warnings);
}

#[test]
fn what_can_have_no_body_is_not_held() {
    for (method, code, mode, held) in [
        ("HEAD", 200, "stream", 0),
        ("HEAD", 200, "response", 1),
        ("GET", 204, "stream", 0),
        ("GET", 304, "stream", 0),
        // A long-poll may end so when nothing comes.
        ("GET", 204, "response", 1),
        ("GET", 304, "response", 1),
        ("POST", 201, "stream", 1),
    ] {
        let mut desk = Desk::new(LIMITS);
        (desk.method, desk.code) = (method, code);
        let sent = desk.hold("a", &["1"], &[("Grip-Hold", mode), ("Grip-Channel", "c")], "");
        assert_eq!(desk.engine.held(), held, "{method} {code} {mode}: {sent:?}");
        assert_eq!(sent[0].starts_with("pass "), held == 0, "{sent:?}");
    }
}

#[test]
fn a_stream_that_could_not_get_what_it_misses_ends_and_says_why_in_debug_mode() {
    let mut desk = Desk::new(LIMITS);
    let headers = [("Grip-Hold", "stream"), ("Grip-Channel", "c; prev-id=1")];
    assert_eq!(desk.hold("a", &["1"], &headers, "hi\n"), ["pass \"hi\\n\""]);
    desk.debug = true;
    let text = "pass \"hi\\n\\n\\nchannel 'c' specifies prev-id, but no next link found\\n\"";
    assert_eq!(desk.hold("a", &["1"], &headers, "hi\n"), [text]);
}

#[test]
fn filters_apply_to_the_response_as_well() {
    let mut desk = Desk::new(LIMITS);
    let meta = ("Grip-Set-Meta", "id_format=x");
    let held = desk.hold(
        "a",
        &["1"],
        &with(&[("Grip-Hold", "stream"), ("Grip-Channel", "c; filter=build-id")], meta),
        "%(7)I",
    );
    assert_eq!(held[0], "a 1#1 200 OK \"7\" more");
    assert_eq!(desk.hold("a", &["2"], &with(&[("Grip-Channel", "c; filter=build-id")], meta), "%(7)I"), ["pass \"7\""]);
    let refused = desk.hold("a", &["3"], &[("Grip-Channel", "c; filter=build-id")], "%(7)I");
    assert_eq!(refused, ["refuse filter error: build-id: no sub meta 'id_format'"]);
}

#[test]
fn many_channels_are_told_apart_as_few_are() {
    let mut desk = Desk::new(handler::engine::Limits { subscriptions: 1000, ..LIMITS });
    let names: Vec<String> = (0..500).map(|i| format!("c{}", i % 250)).collect();
    let sent = desk.hold("a", &["1"], &[("Grip-Hold", "stream"), ("Grip-Channel", &names.join(", "))], "");
    assert_eq!(sent.len(), 251);
}
