// SPDX-License-Identifier: AGPL-3.0-or-later
use std::borrow::Cow;

use rpc::stats::{Conn, ConnMax};

use super::*;
use crate::subscribe::channels::Kin;

const SETTINGS: settings::Statistics = settings::Statistics {
    connections: true,
    connection_ttl: Duration::from_secs(120),
    subscription_ttl: Duration::from_secs(60),
    report_interval: Some(Duration::from_secs(10)),
    json: false,
};

struct Bed {
    statistics: Statistics,
    channels: Channels,
    counters: Counters,
    now: Instant,
    packets: Packets,
}

impl Bed {
    fn new() -> Self {
        let now = Instant::now();
        let statistics = Statistics::new(SETTINGS, now);
        Bed { statistics, channels: Channels::default(), counters: Counters::default(), now, packets: Vec::new() }
    }

    fn change(&mut self, mode: Mode) -> Vec<String> {
        let notes = Notes { changed: vec![(mode, "c".into())], ..Notes::default() };
        self.statistics.on_notes(notes, &self.channels, self.now, &mut self.packets);
        self.told()
    }

    fn proxy(&mut self, packet: Packet<'_>, is_held: bool) -> Vec<String> {
        self.statistics.on_proxy(packet, is_held, self.now, &mut self.packets);
        self.told()
    }

    fn pass(&mut self, ms: u64, held: bool) -> Vec<String> {
        self.now += Duration::from_millis(ms);
        self.statistics.on_timer(&self.channels, |_| held, self.counters, self.now, &mut self.packets);
        self.told()
    }

    /// What is told of connections meanwhile.
    fn connections(&mut self, ms: u64, held: bool) -> Vec<String> {
        self.pass(ms, held).into_iter().filter(|packet| packet.starts_with("conn ")).collect()
    }

    fn told(&mut self) -> Vec<String> {
        let text = |packet: Packet<'_>| String::from_utf8(packet.encode_json()).unwrap();
        std::mem::take(&mut self.packets).into_iter().map(text).collect()
    }
}

fn sub(mode: &str, subscribers: u32) -> String {
    format!(r#"sub J{{"channel":"c","from":"","mode":"{mode}","subscribers":{subscribers},"ttl":60}}"#)
}

#[test]
fn the_first_and_the_last_subscriber_are_told_at_once_and_others_in_a_second() {
    let mut bed = Bed::new();
    let (first, _) = bed.channels.add("c", Kin::default(), Mode::Socket, 1);
    assert_eq!(bed.change(Mode::Socket), [sub("ws", 1)]);
    bed.channels.add("c", Kin::default(), Mode::Socket, 2);
    assert_eq!(bed.change(Mode::Socket), [""; 0]);
    assert_eq!(bed.pass(1000, false), [sub("ws", 2)]);
    assert_eq!(bed.pass(1000, false), [""; 0]);
    bed.channels.remove(first, Mode::Socket);
    bed.channels.remove(first, Mode::Socket);
    assert_eq!(bed.change(Mode::Socket), [r#"sub J{"channel":"c","from":"","mode":"ws","unavailable":true}"#]);
}

#[test]
fn connections_that_were_held_before_are_told_one_after_the_other_to_who_begins_to_listen() {
    let mut bed = Bed::new();
    bed.statistics.meet(vec!["f:1".into(), "f:2".into(), "f:3".into()], bed.now);
    let there = |id: &str| format!(r#"conn J{{"from":"","id":"{id}","ttl":120,"type":"http"}}"#);
    assert_eq!(bed.connections(1_000, true), [there("f:1")]);
    assert_eq!(bed.connections(28_000, true), [""; 0]);
    assert_eq!(bed.connections(1_000, true), [there("f:2")]);
    bed.statistics.end("f:3", &mut bed.packets);
    assert_eq!(bed.told(), [r#"conn J{"from":"","id":"f:3","unavailable":true}"#]);
    assert_eq!(bed.connections(31_000, true), [""; 0]);
    assert_eq!(bed.connections(30_000, true), [there("f:1")], "it is repeated as others are");
}

#[test]
fn a_connection_is_told_that_was_handed_over_before_the_proxy_knew_that_somebody_listens() {
    let mut bed = Bed::new();
    bed.statistics.begin("f:1", bed.now);
    assert_eq!(bed.connections(89_000, true), [""; 0]);
    let there = r#"conn J{"from":"","id":"f:1","ttl":120,"type":"http"}"#;
    assert_eq!(bed.connections(1_000, true), [there]);
}

#[test]
fn a_subscription_is_repeated_before_its_time_is_over() {
    let mut bed = Bed::new();
    bed.channels.add("c", Kin::default(), Mode::Stream, 1);
    bed.change(Mode::Stream);
    assert_eq!(bed.pass(44_000, false), [""; 0]);
    assert_eq!(bed.pass(1_000, false), [sub("stream", 1)]);
}

#[test]
fn the_subscription_of_a_long_poll_that_is_expected_back_goes_on() {
    let mut bed = Bed::new();
    let (place, _) = bed.channels.add("c", Kin::default(), Mode::Response, 1);
    bed.change(Mode::Response);
    bed.channels.remove(place, Mode::Response);
    let channel = bed.channels.find("c").unwrap();
    bed.channels.channel_mut(channel).lingers_until = Some(bed.now);
    assert_eq!(bed.change(Mode::Response), [""; 0]);
    bed.channels.forget(channel);
    let end = r#"sub J{"channel":"c","from":"","mode":"response","unavailable":true}"#;
    assert_eq!(bed.change(Mode::Response), [end]);
}

#[test]
fn activity_of_a_moment_is_one_packet_a_route() {
    let mut bed = Bed::new();
    for (route, count) in [(None, 2), (Some("r"), 1), (None, 3)] {
        let route = route.map(Cow::Borrowed);
        bed.proxy(Packet::Activity(Activity { route, count, ..Activity::default() }), false);
        bed.proxy(Packet::Counts(Counts { requests_received: count, ..Counts::default() }), false);
    }
    assert_eq!(bed.pass(99, false), [""; 0]);
    let expected = [
        r#"activity J{"count":5,"from":""}"#,
        r#"activity J{"count":1,"from":"","route":"r"}"#,
        r#"counts J{"from":"","requests-received":6}"#,
    ];
    assert_eq!(bed.pass(1, false), expected);
}

#[test]
fn a_connection_is_told_of_as_long_as_it_is_there_whoever_has_it() {
    let mut bed = Bed::new();
    let conn = |unavailable| Packet::Conn(Conn { id: "a:1".into(), unavailable, ..Conn::default() });
    let there = r#"conn J{"from":"","id":"a:1"}"#;
    let gone = r#"conn J{"from":"","id":"a:1","unavailable":true}"#;
    assert_eq!(bed.proxy(conn(false), false), [there]);
    assert_eq!(bed.proxy(conn(true), true), [""; 0]);
    assert!(bed.pass(90_000, true).contains(&there.to_string()));
    bed.statistics.end("a:1", &mut bed.packets);
    assert_eq!(bed.told(), [gone]);
    // One that the proxy has forgotten.
    bed.proxy(conn(false), false);
    bed.pass(121_000, false);
    assert!(bed.statistics.connections.is_empty());
}

#[test]
fn a_report_has_what_was_counted_since_the_last_one() {
    let mut bed = Bed::new();
    bed.counters = Counters { received: 3, sent: 7, responses_sent: 2, holds: 4, ..Counters::default() };
    let told = bed.pass(10_000, false).concat();
    for part in
        [r#""received":3"#, r#""sent":7"#, r#""http-response-sent":2"#, r#""connections":4"#, r#""duration":10000"#]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    bed.counters.holds = 0;
    assert_eq!(bed.pass(10_000, false).len(), 1, "there were some in the interval");
    assert_eq!(bed.pass(10_000, false), [""; 0]);
}

#[test]
fn a_report_is_of_a_route_and_what_is_held_here_counts_for_none() {
    let mut bed = Bed::new();
    let reports = |bed: &mut Bed| {
        bed.pass(10_000, false).into_iter().filter(|told| told.starts_with("report")).collect::<Vec<_>>()
    };
    let conn = Conn { id: "f:1".into(), route: Some("r".into()), ..Conn::default() };
    bed.proxy(Packet::Conn(conn), false);
    let traffic = Report { route: Some("r".into()), server_messages_sent: 3, minutes: 9, ..Report::default() };
    bed.proxy(Packet::Report(Box::new(traffic)), false);
    let told = reports(&mut bed).concat();
    for part in [r#""connections":1"#, r#""minutes":1,"#, r#""route":"r""#, r#""server-messages-sent":3"#] {
        assert!(told.contains(part), "{part} in {told}");
    }
    bed.statistics.begin("f:1", bed.now);
    bed.counters = Counters { holds: 1, content_bytes_sent: 5, ..Counters::default() };
    let told = reports(&mut bed);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains(r#""client-content-bytes-sent":5"#) && !told[0].contains("route"), "{told:?}");
    bed.counters.holds = 0;
    bed.statistics.end("f:1", &mut bed.packets);
    assert_eq!(reports(&mut bed).len(), 1, "one of no route was there in the interval");
    assert_eq!(reports(&mut bed), [""; 0]);
    assert!(bed.statistics.tallies.is_empty());
}

#[test]
fn without_connections_one_by_one_their_number_is_the_sum_of_what_proxies_say_and_what_is_held() {
    let mut bed = Bed::new();
    let settings = settings::Statistics { connections: false, ..SETTINGS };
    bed.statistics = Statistics::new(settings, bed.now);
    let say = |bed: &mut Bed, from: &str, max| {
        let packet = ConnMax { from: from.into(), max, ttl: 15, ..ConnMax::default() };
        assert!(bed.statistics.on_conn_max(&packet, bed.now));
    };
    say(&mut bed, "q", 1);
    // Two of the proxy's are handed over: each time with the number before and after.
    for (max, holds) in [(3, 0), (2, 1), (2, 1), (1, 2)] {
        say(&mut bed, "p", max);
        bed.counters.holds = holds;
    }
    bed.statistics.begin("f:1", bed.now);
    let report = Report { minutes: 3, ..Report::default() };
    bed.proxy(Packet::Report(Box::new(report)), false);
    let told = bed.pass(10_000, true);
    assert!(told.len() == 1 && told[0].contains(r#""connections":4,"#), "{told:?}");
    assert!(told[0].contains(r#""minutes":3,"#), "{told:?}");
    // What nobody repeats is not there any more. What is held counts its minutes here.
    bed.counters.holds = 1;
    bed.pass(10_000, true);
    let told = bed.pass(40_000, true);
    assert!(told[0].contains(r#""connections":1,"#) && told[0].contains(r#""minutes":1,"#), "{told:?}");
    bed.statistics.end("f:1", &mut bed.packets);
    bed.counters.holds = 0;
    bed.pass(10_000, true);
    assert_eq!(bed.pass(10_000, true), [""; 0]);
}

#[test]
fn a_long_poll_that_goes_back_to_the_proxy_is_not_told_to_end() {
    let mut bed = Bed::new();
    bed.proxy(Packet::Conn(Conn { id: "f:1".into(), route: Some("r".into()), ..Conn::default() }), false);
    bed.statistics.begin("f:1", bed.now);
    bed.statistics.give_back("f:1", &mut bed.packets);
    assert_eq!(bed.told(), [r#"conn J{"from":"","id":"f:1"}"#]);
    let end = Conn { id: "f:1".into(), route: Some("r".into()), unavailable: true, ..Conn::default() };
    let told = r#"conn J{"from":"","id":"f:1","route":"r","unavailable":true}"#;
    assert_eq!(bed.proxy(Packet::Conn(end), false), [told]);
}

#[test]
fn deliveries_to_websockets_count_for_their_route_only_and_blocks_with_them() {
    let mut bed = Bed::new();
    let sent_apart = [("r".into(), (2, 6))].into();
    let message = Published { channel: "c".into(), item_id: None, mode: Mode::Socket, receivers: 2, blocks: Some(3) };
    let notes = Notes { sent_apart, messages: vec![message], ..Notes::default() };
    bed.statistics.on_notes(notes, &bed.channels, bed.now, &mut bed.packets);
    let told = r#"message J{"blocks":6,"channel":"c","count":2,"from":"","transport":"ws-message"}"#;
    assert_eq!(bed.told(), [told]);
    bed.counters = Counters { received: 1, sent: 3, blocks_received: 3, blocks_sent: 9, ..Counters::default() };
    let reports = bed.pass(10_000, false);
    for part in [r#""received":1"#, r#""sent":1,"#, r#""blocks-received":3"#, r#""blocks-sent":3,"#] {
        assert!(reports[0].contains(part), "{part} in {reports:?}");
    }
    for part in [r#""received":0"#, r#""sent":2,"#, r#""blocks-sent":6,"#, r#""route":"r""#] {
        assert!(reports[1].contains(part), "{part} in {reports:?}");
    }
}
