// SPDX-License-Identifier: AGPL-3.0-or-later
//! Both ends of a session against each other.

use std::time::Duration;

use proptest::prelude::*;

use super::{HandedOver, Violation, client, server};
use crate::testing::{End, Pair, Way};
use crate::{EXPIRY, Ids, Kind, Packet, Peers};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_response_within_the_window_needs_no_other_packet() {
    let mut pair = Pair::get(8192);
    pair.respond(5, true);
    pair.drive();
    assert_eq!((pair.client_end, pair.server_end), (Some(End::Complete), Some(End::Complete)));
    assert_eq!(pair.sent, [(Way::ToClient, Kind::Data)]);
    assert_eq!(pair.client_app.received, 5);
}

#[test]
fn a_request_that_is_not_answered_at_once_is_acknowledged() {
    let mut pair = Pair::get(8192);
    pair.advance(Duration::from_millis(9));
    assert_eq!(pair.sent, []);
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.sent, [(Way::ToClient, Kind::KeepAlive)]);
}

#[test]
fn a_large_response_comes_as_the_client_takes_it() {
    let mut pair = Pair::get(1000);
    pair.client_app.stalled = true;
    pair.respond(1600, true);
    pair.drive();
    assert_eq!(pair.client_app.received, 1000);
    pair.drain_client();
    pair.drive();
    assert_eq!((pair.client_app.received, pair.client_end), (1600, Some(End::Complete)));
    assert_eq!(pair.count(Way::ToServer, Kind::Credit), 1);
}

#[test]
fn small_messages_are_not_answered_one_by_one_but_after_a_while() {
    let mut pair = Pair::get(1000);
    for _ in 0..9 {
        pair.respond(50, false);
        pair.drive();
    }
    assert_eq!((pair.count(Way::ToServer, Kind::Credit), pair.server.credits()), (0, 550));
    pair.advance(client::GRANT_DELAY - Duration::from_millis(1));
    assert_eq!(pair.server.credits(), 550);
    pair.advance(Duration::from_millis(40));
    assert_eq!((pair.count(Way::ToServer, Kind::Credit), pair.server.credits()), (1, 1000));
}

#[test]
fn credits_go_back_at_half_a_window() {
    let mut pair = Pair::get(1000);
    pair.respond(500, false);
    pair.drive();
    assert_eq!((pair.count(Way::ToServer, Kind::Credit), pair.server.credits()), (1, 1000));
}

#[test]
fn a_request_body_comes_as_the_server_takes_it() {
    let mut pair = Pair::post(1000);
    pair.upload(3500, true);
    pair.drive();
    assert_eq!((pair.server_app.received, pair.client_app.last_sent), (3500, true));
    // One to begin with, and one for each window but the last half.
    assert_eq!(pair.count(Way::ToClient, Kind::Credit), 4);
    pair.respond(1, true);
    pair.drive();
    assert!(pair.is_over());
}

#[test]
fn a_silent_session_lives_by_its_keep_alives() {
    let mut pair = Pair::get(1000);
    pair.respond(1, false);
    pair.advance(600 * SECOND);
    assert!(!pair.is_over());
    for way in [Way::ToServer, Way::ToClient] {
        // One in 40 to 45 s.
        assert!((13..=15).contains(&pair.count(way, Kind::KeepAlive)), "{}", pair.count(way, Kind::KeepAlive));
    }
}

#[test]
fn messages_do_not_put_off_keep_alives() {
    let mut pair = Pair::get(1000);
    for _ in 0..100 {
        pair.respond(1, false);
        pair.advance(SECOND);
    }
    assert_eq!(pair.count(Way::ToClient, Kind::KeepAlive), 2);
}

#[test]
fn silence_ends_both_ends_and_nobody_is_told() {
    let mut pair = Pair::get(1000);
    pair.respond(1, false);
    pair.drive();
    pair.advance_cut_off(EXPIRY - SECOND);
    assert!(!pair.is_over());
    pair.advance_cut_off(SECOND);
    assert_eq!((pair.client_end, pair.server_end), (Some(End::Expired), Some(End::Expired)));
    assert_eq!(pair.count(Way::ToServer, Kind::Cancel) + pair.count(Way::ToClient, Kind::Cancel), 0);
}

#[test]
fn a_client_that_is_never_answered_sends_nothing_and_expires() {
    let mut pair = Pair::get(1000);
    pair.advance_cut_off(EXPIRY);
    assert_eq!(pair.client_end, Some(End::Expired));
    assert_eq!(pair.count(Way::ToServer, Kind::KeepAlive), 0);
}

#[test]
fn a_lost_packet_ends_the_session_as_soon_as_the_next_one_comes() {
    let mut pair = Pair::get(1000);
    pair.respond(10, false);
    pair.drive();
    pair.respond(10, false);
    assert!(pair.lose(Way::ToClient, Kind::Data));
    pair.respond(10, false);
    pair.drive();
    assert_eq!(pair.client_end, Some(End::Broken(Violation::Sequence { expected: 1, got: 2 })));
    assert_eq!((pair.server_end, pair.client_app.received), (Some(End::Told), 10));
}

#[test]
fn a_lost_credit_ends_the_session_and_leaks_nothing() {
    let mut pair = Pair::get(1000);
    pair.respond(2000, true);
    while pair.count(Way::ToServer, Kind::Credit) == 0 {
        assert!(pair.deliver(Way::ToClient));
    }
    assert!(pair.lose(Way::ToServer, Kind::Credit));
    pair.advance(EXPIRY * 2);
    assert!(pair.is_over());
}

#[test]
fn a_repeated_packet_is_not_taken_twice() {
    let mut pair = Pair::get(1000);
    pair.respond(10, false);
    let packet = pair.under_way(Way::ToClient)[0].clone();
    pair.under_way(Way::ToClient).push_back(packet);
    pair.drive();
    assert_eq!(pair.client_end, Some(End::Broken(Violation::Sequence { expected: 1, got: 0 })));
    assert_eq!(pair.client_app.received, 10);
}

#[test]
fn a_cancel_is_taken_whatever_was_lost_before() {
    let mut pair = Pair::get(1000);
    pair.respond(10, false);
    pair.drive();
    pair.respond(10, false);
    pair.lose(Way::ToClient, Kind::Data);
    pair.cancel(Way::ToClient);
    pair.drive();
    assert_eq!(pair.client_end, Some(End::Told));
}

#[test]
fn a_session_changes_hands_with_its_numbers_and_credits() {
    let mut pair = Pair::get(1000);
    pair.respond(400, false);
    pair.drive();
    pair.offer();
    assert_eq!((pair.server.on_timer(pair.now), pair.server.is_ours()), (server::Due::Nothing, false));
    pair.drive();
    let state = pair.server.hand_over();
    let (client, id) = (pair.client_peer().unwrap(), pair.server.id());
    assert_eq!(state, HandedOver { client, id, in_seq: 2, out_seq: 2, credits: 600, by_router: false });
    assert!(pair.client.send().is_none() && pair.client.credits() == 0);
    pair.take_over(&state);
    pair.drive();
    pair.respond(600, true);
    pair.drive();
    assert_eq!((pair.client_end, pair.client_app.received), (Some(End::Complete), 1000));
}

#[test]
fn credits_owed_during_a_hand_off_are_granted_to_the_next_server() {
    let mut pair = Pair::get(1000);
    pair.client_app.stalled = true;
    pair.respond(900, false);
    pair.drive();
    pair.offer();
    pair.drive();
    pair.drain_client();
    pair.advance(SECOND);
    assert_eq!(pair.count(Way::ToServer, Kind::Credit), 0);
    let state = pair.server.hand_over();
    pair.take_over(&state);
    pair.advance(SECOND);
    assert_eq!(pair.server.credits(), 1000);
}

#[test]
fn nobody_sends_keep_alives_while_a_session_changes_hands() {
    let mut pair = Pair::get(1000);
    pair.respond(1, false);
    pair.offer();
    pair.drive();
    pair.server.hand_over();
    pair.advance(55 * SECOND);
    assert_eq!(pair.count(Way::ToServer, Kind::KeepAlive) + pair.count(Way::ToClient, Kind::KeepAlive), 0);
    // The owner that was never found is not waited for.
    pair.advance(5 * SECOND);
    assert_eq!(pair.client_end, Some(End::Expired));
}

#[test]
fn what_comes_for_a_session_that_was_given_away_is_ignored() {
    let mut pair = Pair::get(1000);
    pair.offer();
    pair.drive();
    pair.server.hand_over();
    let packet = Packet { kind: Kind::KeepAlive, ..Packet::default() };
    assert_eq!(pair.server.on_packet(&packet, Some(77), pair.now), Ok(server::Outcome::Ignored));
}

#[test]
fn a_session_that_nobody_takes_goes_on_with_its_former_server() {
    let mut pair = Pair::get(1000);
    pair.offer();
    pair.drive();
    pair.server.hand_over();
    let to = pair.server.resume(pair.now);
    assert_eq!(to.seq, 1);
    let from = pair.peers().find(b"server0");
    let keep_alive = Packet { kind: Kind::KeepAlive, ..Packet::default() };
    assert_eq!(pair.client.on_packet(&keep_alive, from, Some(to.seq), pair.now), Ok(client::Outcome::Alive));
    pair.respond(5, true);
    pair.drive();
    assert_eq!(pair.client_end, Some(End::Complete));
}

#[test]
fn after_a_hand_off_the_first_packet_may_be_one_ahead_and_no_later_one() {
    for (seqs, works) in [(&[5, 6][..], true), (&[6, 7], true), (&[6, 8], false), (&[7], false), (&[5, 7], false)] {
        let client = Peers::default().intern(b"f").unwrap();
        let state =
            HandedOver { client, id: crate::Id::indexed(1, 1), in_seq: 5, out_seq: 0, credits: 0, by_router: true };
        let now = std::time::Instant::now();
        let mut session = server::Session::take_over(&state, now);
        let packet = Packet { kind: Kind::KeepAlive, ..Packet::default() };
        let result = seqs.iter().try_for_each(|&seq| session.on_packet(&packet, Some(seq), now).map(drop));
        assert_eq!(result.is_ok(), works, "{seqs:?}");
    }
}

/// What each end says of a packet that is not allowed.
#[test]
fn every_misuse_is_a_violation_that_says_what_was_expected() {
    let mut pair = Pair::get(100);
    pair.respond(1, false);
    pair.drive();
    let from = pair.peers().find(b"server0");
    let now = pair.now;
    let at_client = |packet: Packet<'_>, seq| {
        pair.client.clone().on_packet(&packet, from, seq, now).map(drop).map_err(|violation| violation.to_string())
    };
    let data = Packet { more: true, ..Packet::default() };
    let text = |text: &str| Err(text.to_string());
    assert_eq!(at_client(data, Some(9)), text("packet 9 came where 1 was due"));
    assert_eq!(at_client(Packet { body: &[0; 101], ..data }, Some(1)), text("2 body bytes more than were granted"));
    for (kind, name) in [(Kind::HandoffProceed, "handoff-proceed"), (Kind::Ping, "ping"), (Kind::Close, "close")] {
        let packet = Packet { kind, ..Packet::default() };
        assert_eq!(
            at_client(packet, Some(1)),
            Err(format!("a {name} packet came; expected was a packet of a response"))
        );
    }
    let other_lane = Packet { ext: crate::Ext { lane: 1, ..crate::Ext::default() }, ..data };
    assert_eq!(at_client(other_lane, Some(1)), text("a packet for lane 1 came; the session has none"));

    let at_server = |packet: Packet<'_>| {
        pair.server.clone().on_packet(&packet, Some(1), now).map(drop).map_err(|violation| violation.to_string())
    };
    assert_eq!(at_server(data), text("a data packet came after the one that had no more to follow"));
    let proceed = Packet { kind: Kind::HandoffProceed, ..Packet::default() };
    assert_eq!(at_server(proceed), text("a handoff-proceed packet came; expected was a packet of a request"));
}

#[test]
fn the_first_packet_of_a_longer_response_says_who_sent_it() {
    let pair = Pair::get(100);
    for (packet, allowed) in [
        (Packet { code: Some(200), ..Packet::default() }, true),
        (Packet { code: Some(200), more: true, ..Packet::default() }, false),
        (Packet { kind: Kind::KeepAlive, ..Packet::default() }, false),
        (Packet { kind: Kind::Error, ..Packet::default() }, true),
    ] {
        let result = pair.client.clone().on_packet(&packet, None, None, pair.now);
        assert_eq!(result.is_ok(), allowed, "{packet:?}: {result:?}");
    }
}

#[test]
fn what_does_not_open_a_session_is_refused() {
    let now = std::time::Instant::now();
    let peer = Peers::default().intern(b"f").unwrap();
    let good = Packet { ids: Ids::One(b"1", Some(0)), uri: Some(b"http://h/"), ..Packet::default() };
    let open = |packet: Packet<'_>| server::Session::open(&packet, peer, 100, now).map(drop);
    assert_eq!(open(good), Ok(()));
    assert_eq!(open(Packet { ids: Ids::One(b"1", None), ..good }), Ok(()));
    assert_eq!(open(Packet { ids: Ids::Many(&[(b"1", 0)]), ..good }), Ok(()));
    assert_eq!(
        open(Packet { ids: Ids::One(b"1", None), more: true, ..good }),
        Err(Violation::Unnumbered { expected: 0 })
    );
    let websocket = Packet { ids: Ids::One(b"1", None), uri: Some(b"WSS://h/"), ..good };
    assert_eq!(open(websocket), Err(Violation::Unnumbered { expected: 0 }));
    assert_eq!(open(Packet { ids: Ids::One(b"1", Some(1)), ..good }), Err(Violation::Sequence { expected: 0, got: 1 }));
    assert_eq!(open(Packet { ids: Ids::None, ..good }), Err(Violation::Id));
    assert_eq!(open(Packet { ids: Ids::Many(&[(b"1", 0), (b"2", 0)]), ..good }), Err(Violation::Id));
    assert_eq!(open(Packet { ids: Ids::One(&[b'x'; 65], Some(0)), ..good }), Err(Violation::Id));
    assert!(matches!(open(Packet { kind: Kind::KeepAlive, ..good }), Err(Violation::Kind { .. })));
}

#[test]
fn a_websocket_may_send_control_packets_and_data_without_end() {
    let now = std::time::Instant::now();
    let mut peers = Peers::default();
    let peer = peers.intern(b"p").unwrap();
    let mut session = client::Session::start(super::Protocol::WebSocket, 100, now);
    let accept = Packet { code: Some(101), credits: Some(10), ..Packet::default() };
    assert_eq!(session.on_packet(&accept, Some(peer), Some(0), now), Ok(client::Outcome::Data));
    let message = Packet { body: b"hello", ..Packet::default() };
    assert_eq!(session.on_packet(&message, Some(peer), Some(1), now), Ok(client::Outcome::Data));
    let ping = Packet { kind: Kind::Ping, body: &[0; 95], ..Packet::default() };
    assert_eq!(session.on_packet(&ping, Some(peer), Some(2), now), Ok(client::Outcome::Control));
    assert_eq!(session.clone().on_packet(&ping, Some(peer), Some(3), now), Err(Violation::Overrun { excess: 95 }));
    let close = Packet { kind: Kind::Close, body: b"bye", ..Packet::default() };
    assert_eq!(session.clone().on_packet(&close, Some(peer), Some(3), now), Ok(client::Outcome::Control));
    assert_eq!(session.on_packet(&close, Some(peer), None, now), Err(Violation::Unnumbered { expected: 3 }));
}

#[test]
fn a_session_with_two_servers_counts_for_each() {
    let now = std::time::Instant::now();
    let mut peers = Peers::default();
    let (first, second) = (peers.intern(b"p").unwrap(), peers.intern(b"h").unwrap());
    let mut session = client::Session::start(super::Protocol::Http, 100, now);
    session.open_second(50, now);
    let data = Packet { body: &[0; 60], more: true, ..Packet::default() };
    let on_second = Packet { ext: crate::Ext { lane: 1, ..crate::Ext::default() }, ..data };
    assert_eq!(session.on_packet(&data, Some(first), Some(0), now), Ok(client::Outcome::Data));
    assert_eq!(
        session.clone().on_packet(&on_second, Some(second), Some(0), now),
        Err(Violation::Overrun { excess: 10 })
    );
    let small = Packet { body: &[0; 10], credits: Some(7), ..on_second };
    assert_eq!(session.on_packet(&small, Some(second), Some(0), now), Ok(client::Outcome::Data));
    assert_eq!((session.server(), session.credits()), (Some(first), 0));
    let lane = session.second().unwrap();
    assert_eq!((lane.server(), lane.credits()), (Some(second), 7));
}

#[test]
fn a_session_is_cancelled_before_its_numbers_are_used_up() {
    let mut pair = Pair::get(1000);
    pair.respond(1, false);
    pair.drive();
    pair.server.sequence.next_out = super::sequence::LAST - 10;
    pair.client.sequence.next_in = super::sequence::LAST - 10;
    pair.advance(60 * SECOND);
    assert!(pair.is_over());
    assert!(pair.client_end == Some(End::Spent) || pair.server_end == Some(End::Spent));
}

#[test]
fn sessions_are_small() {
    // There is one at each end of every held connection.
    assert!(size_of::<client::Session>() <= 72, "{}", size_of::<client::Session>());
    assert!(size_of::<server::Session>() <= 128, "{}", size_of::<server::Session>());
}

/// What may happen to a pair.
#[derive(Clone, Debug)]
enum Step {
    Respond(usize, bool),
    Upload(usize, bool),
    Deliver(Way),
    Lose(Way),
    Repeat(Way),
    Swap(Way),
    Stall(bool),
    Wait(u64),
    HandOff,
    Cancel(Way),
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![Just(Way::ToServer), Just(Way::ToClient)]
}

/// With `faults`, the wire loses, repeats and reorders.
fn step(faults: bool) -> impl Strategy<Value = Step> {
    let fault = u32::from(faults);
    prop_oneof![
        6 => (0usize..700, prop::bool::weighted(0.05)).prop_map(|(bytes, last)| Step::Respond(bytes, last)),
        3 => (0usize..700, prop::bool::weighted(0.1)).prop_map(|(bytes, last)| Step::Upload(bytes, last)),
        12 => way().prop_map(Step::Deliver),
        2 => any::<bool>().prop_map(Step::Stall),
        3 => (0u64..50_000).prop_map(Step::Wait),
        1 => Just(Step::HandOff),
        fault => way().prop_map(Step::Lose),
        fault => way().prop_map(Step::Repeat),
        fault => way().prop_map(Step::Swap),
        fault => way().prop_map(Step::Cancel),
    ]
}

impl Pair {
    fn make(&mut self, step: &Step) {
        match *step {
            Step::Respond(bytes, last) if !self.server_app.last => self.respond(bytes, last),
            Step::Upload(bytes, last) if !self.client_app.last => self.upload(bytes, last),
            Step::Deliver(way) => drop(self.deliver(way)),
            Step::Stall(true) => self.client_app.stalled = true,
            Step::Stall(false) => self.drain_client(),
            Step::Wait(ms) => self.advance(Duration::from_millis(ms)),
            Step::HandOff if self.server_end.is_none() && self.server.is_ours() => {
                self.offer();
                self.drive();
                // A client that has not agreed by now never will.
                if self.server_end.is_none() && self.server.ownership == super::handoff::Ownership::Given {
                    let state = self.server.hand_over();
                    self.take_over(&state);
                }
            }
            Step::Lose(way) => drop(self.under_way(way).pop_front()),
            Step::Repeat(way) => {
                if let Some(packet) = self.under_way(way).front().cloned() {
                    self.under_way(way).push_back(packet);
                }
            }
            Step::Swap(way) if self.under_way(way).len() > 1 => self.under_way(way).swap(0, 1),
            Step::Cancel(way) => self.cancel(way),
            _ => {}
        }
    }
}

proptest! {
    /// On a wire that keeps the order and loses nothing, nobody breaks a rule, and all bytes arrive.
    #[test]
    fn a_sound_wire_carries_everything(post in any::<bool>(), steps in prop::collection::vec(step(false), 0..150)) {
        let mut pair = if post { Pair::post(1000) } else { Pair::get(1000) };
        for step in &steps {
            // After a hand-off the request counts as complete, so it is completed before.
            if matches!(step, Step::HandOff) && (!pair.client_app.last_sent || !pair.server.is_complete()) {
                continue;
            }
            pair.make(step);
            for end in [pair.client_end, pair.server_end] {
                prop_assert!(matches!(end, None | Some(End::Complete)), "{end:?}");
            }
        }
        pair.drain_client();
        if pair.server_end.is_none() {
            pair.respond(1, true);
            pair.advance(5 * SECOND);
        }
        pair.drive();
        prop_assert_eq!((pair.client_end, pair.server_end), (Some(End::Complete), Some(End::Complete)));
        prop_assert_eq!(pair.client_app.received, pair.server_app.sent);
    }

    /// Whatever the wire does: no byte comes twice, too early or after a gap (the applications check that), and a session
    /// that is cut off is over at both ends a minute later.
    #[test]
    fn a_bad_wire_costs_no_more_than_the_session(post in any::<bool>(), steps in prop::collection::vec(step(true), 0..150)) {
        let mut pair = if post { Pair::post(1000) } else { Pair::get(1000) };
        for step in &steps {
            pair.make(step);
            prop_assert!(pair.client_app.received <= pair.server_app.sent);
            prop_assert!(pair.server_app.received <= pair.client_app.sent);
        }
        pair.advance_cut_off(EXPIRY);
        prop_assert!(pair.is_over(), "{:?} {:?}", pair.client_end, pair.server_end);
    }

    #[test]
    fn what_is_written_down_is_restored(post in any::<bool>(), second in any::<bool>(), steps in prop::collection::vec(step(true), 0..60)) {
        let mut pair = if post { Pair::post(1000) } else { Pair::get(1000) };
        steps.iter().for_each(|step| pair.make(step));
        if second {
            let now = pair.now;
            pair.client.open_second(77, now);
        }
        let (client, server, now) = (pair.client.clone(), pair.server.clone(), pair.now);
        let (mut client_bytes, mut server_bytes) = (Vec::new(), Vec::new());
        client.snapshot(pair.peers(), now, &mut client_bytes);
        server.snapshot(pair.peers(), now, &mut server_bytes);
        prop_assert_eq!(client::Session::restore(&client_bytes, pair.peers(), now), Ok(client));
        prop_assert_eq!(server::Session::restore(&server_bytes, pair.peers(), now), Ok(server));
        // Part of it, or more, or of another version, is no session.
        for bytes in [&client_bytes, &server_bytes] {
            for cut in 0..bytes.len() {
                prop_assert!(client::Session::restore(&bytes[..cut], pair.peers(), now).is_err());
                prop_assert!(server::Session::restore(&bytes[..cut], pair.peers(), now).is_err());
            }
            let (longer, newer) = ([&bytes[..], b"x"].concat(), [&[2], &bytes[1..]].concat());
            prop_assert!(client::Session::restore(&longer, pair.peers(), now).is_err());
            prop_assert!(server::Session::restore(&longer, pair.peers(), now).is_err());
            prop_assert_eq!(client::Session::restore(&newer, pair.peers(), now), Err(super::RestoreError::Version(2)));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_session_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut peers = Peers::default();
        let now = std::time::Instant::now();
        let end = if bytes.len() % 2 == 0 { b'c' } else { b's' };
        let bytes = [&[1, end], &bytes[..]].concat();
        for session in client::Session::restore(&bytes, &mut peers, now).into_iter() {
            session.clone().on_timer(now);
            session.next_due();
        }
        for session in server::Session::restore(&bytes, &mut peers, now).into_iter() {
            session.next_due();
        }
    }
}
