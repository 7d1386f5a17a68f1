// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that share one request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use tnetstring::Value;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::bench::*;

/// Several clients on a bench, whose handler gives all of them one key.
struct Crowd {
    bench: Bench,
    /// Numbers of their next packets.
    seqs: BTreeMap<u8, u32>,
    /// What each has got.
    got: BTreeMap<u8, Got>,
    /// Requests and cancels that the outbound process has got.
    opened: usize,
    origin: Vec<String>,
    /// Bytes of the response that the outbound process was granted beside the first window.
    granted: usize,
    accepts: Vec<Value>,
}

#[derive(Default, Debug)]
struct Got {
    seq: u32,
    code: Option<u16>,
    body: Vec<u8>,
    credits: u64,
    complete: bool,
    cancelled: bool,
    paused: bool,
}

impl Crowd {
    fn new(routes: &str) -> Self {
        let mut bench = Bench::asking(routes);
        bench.by_router();
        Crowd {
            bench,
            seqs: BTreeMap::new(),
            got: BTreeMap::new(),
            opened: 0,
            origin: Vec::new(),
            granted: 0,
            accepts: Vec::new(),
        }
    }

    /// A client asks, and the handler says that it may share.
    fn ask(&mut self, client: u8, credits: u32, packet: Packet<'_>) {
        self.seqs.insert(client, 1);
        self.got.insert(client, Got { credits: credits.into(), ..Got::default() });
        let packet = Packet {
            from: b"front",
            ids: Ids::One(&[client], Some(0)),
            ext: Ext { multi: true, ..packet.ext },
            stream: true,
            router_resp: true,
            credits: Some(credits),
            method: packet.method.or(Some(b"GET")),
            uri: packet.uri.or(Some(b"http://h/path")),
            headers: if packet.headers == Headers::Absent {
                Headers::Pairs(&[(b"Host", b"h")])
            } else {
                packet.headers
            },
            ..packet
        };
        self.bench.engine.request(&bytes(&packet), self.bench.now, &mut self.bench.recorded);
        self.look();
        let answer = [("no-proxy", Value::Bool(false)), ("sharing-key", Value::Bytes(b"key".to_vec()))];
        let id = self.bench.call_id.clone();
        self.bench.reply("inspect", &id, "success", &value(&answer));
        self.look();
    }

    fn client(&mut self, client: u8, packet: Packet<'_>) {
        let Some(seq) = self.seqs.get_mut(&client) else { return };
        let packet = Packet { from: b"front", ids: Ids::One(&[client], Some(*seq)), ..packet };
        *seq += 1;
        if let Some(credits) = packet.credits {
            self.got.get_mut(&client).unwrap().credits += u64::from(credits);
        }
        self.bench.engine.client_packet(&bytes(&packet), self.bench.now, &mut self.bench.recorded);
        self.look();
    }

    fn origin(&mut self, packet: Packet<'_>) {
        self.bench.origin(packet);
        self.look();
    }

    fn wait(&mut self, time: Duration) {
        self.bench.wait(time);
        self.look();
    }

    /// Takes in what was sent, and checks that clients get what they may get.
    fn look(&mut self) {
        for sent in self.bench.take() {
            match sent {
                Sent::Client(message) => {
                    let packet = Packet::decode(&message).unwrap();
                    for entry in packet.ids.iter() {
                        let (id, seq) = entry.unwrap();
                        let got = self.got.get_mut(&id[0]).unwrap();
                        assert!(!got.complete && !got.cancelled, "{packet:?} after the end");
                        assert_eq!(seq, Some(got.seq), "{packet:?}");
                        got.seq += 1;
                        got.credits = got.credits.checked_sub(packet.body.len() as u64).expect("credits");
                        assert!(packet.code.is_none() || got.code.is_none(), "two responses: {packet:?}");
                        got.code = got.code.or(packet.code);
                        got.body.extend_from_slice(packet.body);
                        got.complete |= packet.kind == Kind::Data && !packet.more;
                        got.cancelled |= packet.kind == Kind::Cancel;
                        got.paused |= packet.kind == Kind::HandoffStart;
                    }
                }
                Sent::Open(_) => self.opened += 1,
                Sent::Origin(message) => {
                    let packet = Packet::decode(&message).unwrap();
                    self.granted += packet.credits.unwrap_or(0) as usize;
                    self.origin.push(packet.kind.name().into());
                }
                Sent::Accept(call) => self.accepts.push(call),
                Sent::Inspect(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn has(&self, client: u8, code: u16, body: &[u8]) -> bool {
        let got = &self.got[&client];
        got.complete && (got.code, &got.body[..]) == (Some(code), body)
    }
}

#[test]
fn clients_that_ask_the_same_share_one_request_and_each_gets_the_whole_response() {
    let mut crowd = Crowd::new("* origin:80");
    crowd.ask(1, 1000, Packet::default());
    crowd.ask(2, 1000, Packet::default());
    crowd.origin(ok(b"hel", true));
    crowd.ask(3, 1000, Packet::default());
    crowd.origin(data(b"lo", false));
    assert_eq!(crowd.opened, 1);
    assert!((1..=3).all(|client| crowd.has(client, 200, b"hello")), "{:?}", crowd.got);
    assert!(crowd.bench.engine.is_empty());
    let groups = crowd.bench.recorded.log.iter().map(|line| line.split(" shared=0x").nth(1).unwrap());
    let groups: BTreeSet<&str> = groups.map(|rest| rest.split(' ').next().unwrap()).collect();
    assert_eq!((crowd.bench.recorded.log.len(), groups.len()), (3, 1));
    crowd.ask(4, 1000, Packet::default());
    assert_eq!(crowd.opened, 2);
}

#[test]
fn what_is_not_the_same_or_may_do_something_is_not_shared() {
    let mut crowd = Crowd::new("* origin:80");
    crowd.ask(1, 1000, Packet::default());
    crowd.ask(2, 1000, Packet { uri: Some(b"http://h/other"), ..Packet::default() });
    crowd.ask(3, 1000, Packet { method: Some(b"HEAD"), ..Packet::default() });
    crowd.ask(4, 1000, Packet { headers: Headers::Pairs(&[(b"Host", b"h"), (b"Cookie", b"a")]), ..Packet::default() });
    crowd.ask(5, 1000, Packet { body: b"x", ..Packet::default() });
    crowd.ask(6, 1000, Packet { method: Some(b"POST"), ..Packet::default() });
    crowd.ask(7, 1000, Packet { method: Some(b"POST"), ..Packet::default() });
    assert_eq!(crowd.opened, 7);
    crowd.ask(
        8,
        1000,
        Packet { headers: Headers::Pairs(&[(b"Host", b"h"), (b"User-Agent", b"a")]), ..Packet::default() },
    );
    assert_eq!(crowd.opened, 7);
}

#[test]
fn a_response_for_the_first_client_alone_is_asked_for_again_for_each_of_the_others() {
    let mut crowd = Crowd::new("* origin:80");
    (1..=3).for_each(|client| crowd.ask(client, 1000, Packet::default()));
    assert_eq!(crowd.opened, 1);
    let headers: &[(&[u8], &[u8])] = &[(b"Set-Cookie", b"session=1")];
    crowd.bench.origin(Packet { headers: Headers::Pairs(headers), ..ok(b"one", false) });
    let opened = crowd.bench.raw();
    let ids: Vec<Vec<u8>> = opened.iter().filter_map(Sent::opened).collect();
    opened.into_iter().for_each(|sent| crowd.bench.put_back(sent));
    crowd.look();
    assert!(crowd.has(1, 200, b"one") && crowd.got[&2].code.is_none() && crowd.got[&3].code.is_none());
    assert_eq!((crowd.opened, ids.len()), (3, 2));
    for id in &ids {
        crowd.bench.origin_answers(id, ok(b"own", false));
        crowd.look();
    }
    assert!(crowd.has(2, 200, b"own") && crowd.has(3, 200, b"own"));
    assert!(crowd.bench.engine.is_empty());
}

#[test]
fn a_slow_client_waits_for_itself_and_one_that_leaves_takes_nobody_with_it() {
    let mut crowd = Crowd::new("* origin:80");
    (1..=3).for_each(|client| crowd.ask(client, if client == 2 { 1 } else { 1000 }, Packet::default()));
    crowd.origin(ok(b"hel", true));
    crowd.client(1, cancel());
    crowd.origin(data(b"lo", false));
    assert!(crowd.has(3, 200, b"hello") && !crowd.got[&2].complete && crowd.got[&1].body == b"hel");
    crowd.client(2, credit(10));
    assert!(crowd.has(2, 200, b"hello"));
    assert!(crowd.bench.engine.is_empty() && crowd.origin.is_empty());
}

#[test]
fn a_client_that_is_too_slow_is_ended_and_the_others_go_on() {
    let mut crowd = Crowd::new("* origin:80");
    let all = 3_000_000;
    crowd.ask(1, all as u32, Packet::default());
    crowd.ask(2, 10, Packet::default());
    crowd.origin(ok(b"", true));
    let mut sent = 0;
    while sent < all {
        let room = 50_000.min(200_000 + crowd.granted - sent).min(all - sent);
        if room > 0 {
            crowd.origin(data(&vec![b'x'; room], true));
            sent += room;
        } else {
            // The source waits for the slow one, for a while.
            assert!(!crowd.got[&2].cancelled);
            crowd.wait(Duration::from_secs(5));
            assert!(crowd.got[&2].cancelled);
        }
    }
    crowd.origin(data(b"", false));
    assert!(crowd.got[&1].complete && crowd.got[&1].body.len() == all);
    assert!(crowd.bench.recorded.log.iter().any(|line| line.starts_with("shared-slow")));
}

#[test]
fn the_request_ends_when_nobody_waits_any_more() {
    let mut crowd = Crowd::new("* origin:80");
    crowd.ask(1, 1000, Packet::default());
    crowd.ask(2, 1000, Packet::default());
    crowd.origin(ok(b"a", true));
    crowd.client(1, cancel());
    assert!(crowd.origin.is_empty());
    crowd.client(2, cancel());
    assert_eq!(crowd.origin, ["cancel"]);
    assert!(crowd.bench.engine.is_empty());
}

#[test]
fn a_frontend_that_goes_ends_the_request_of_its_clients() {
    let mut crowd = Crowd::new("* origin:80");
    crowd.ask(1, 1000, Packet::default());
    crowd.ask(2, 1000, Packet::default());
    crowd.origin(ok(b"a", true));
    crowd.bench.engine.client_instance_left(b"front", crowd.bench.now, &mut crowd.bench.recorded);
    crowd.look();
    assert_eq!(crowd.origin, ["cancel"]);
    assert!(crowd.bench.engine.is_empty());
}

#[test]
fn a_hold_takes_all_of_them_over_each_with_its_own_session() {
    let mut crowd = Crowd::new("*,id=r origin:80,sub=s");
    (1..=3).for_each(|client| crowd.ask(client, 1000, Packet::default()));
    crowd.origin(grip_response("response", b"later", false));
    assert!(crowd.got.values().all(|got| got.paused && got.code.is_none()));
    (1..=3).for_each(|client| crowd.client(client, Packet { kind: Kind::HandoffProceed, ..Packet::default() }));
    assert_eq!((crowd.opened, crowd.accepts.len()), (1, 3));
    for (accept, client) in crowd.accepts.iter().zip(1..) {
        let Some(args) = accept.get(b"args") else { panic!() };
        let Some(Value::List(requests)) = args.get(b"requests") else { panic!() };
        let id = requests[0].get(b"rid").and_then(|rid| rid.get(b"id"));
        assert_eq!(id, Some(&Value::Bytes(vec![client])));
        let body = args.get(b"response").and_then(|response| response.get(b"body"));
        assert_eq!(body, Some(&Value::Bytes(b"later".to_vec())));
    }
}

#[test]
fn scripts_of_other_sites_and_plain_clients_share_and_get_what_is_theirs() {
    let mut crowd = Crowd::new("*,aco origin:80");
    let with = |origin: &'static [u8]| [(&b"Host"[..], &b"h"[..]), (b"Origin", origin), (b"Accept", b"*/*")];
    crowd.ask(1, 1000, Packet { headers: Headers::Pairs(&with(b"http://a")), ..Packet::default() });
    crowd.ask(2, 1000, Packet { headers: Headers::Pairs(&with(b"http://b")), ..Packet::default() });
    let script = Packet { uri: Some(b"http://h/path?callback=cb"), ..Packet::default() };
    crowd.ask(3, 1000, Packet { headers: Headers::Pairs(&with(b"http://c")), ..script });
    crowd.origin(ok(b"1", false));
    assert_eq!(crowd.opened, 1);
    assert!(crowd.has(1, 200, b"1") && crowd.has(2, 200, b"1"));
    assert!(
        crowd.has(3, 200, b"/**/cb({\"code\": 200, \"reason\": \"OK\", \"headers\": {}, \"body\": \"1\"});\n"),
        "{:?}",
        crowd.got[&3]
    );
}

#[test]
fn a_failure_is_everybodys_and_a_response_that_breaks_off_does_so_for_all() {
    let mut crowd = Crowd::new("* origin:80 other:81");
    crowd.ask(1, 1000, Packet::default());
    crowd.ask(2, 1000, Packet::default());
    crowd.origin(error(b"remote-connection-failed"));
    assert_eq!(crowd.opened, 2);
    crowd.origin(error(b"remote-connection-failed"));
    let text = b"Error while proxying to origin.\n";
    assert!(crowd.has(1, 502, text) && crowd.has(2, 502, text));
    crowd.ask(3, 1000, Packet::default());
    crowd.ask(4, 1000, Packet::default());
    crowd.origin(ok(b"a", true));
    crowd.origin(error(b"undefined-condition"));
    assert!(crowd.got[&3].cancelled && crowd.got[&4].cancelled);
    assert!(crowd.bench.engine.is_empty());
}

#[test]
fn a_response_that_keeps_coming_does_not_end_by_itself() {
    let mut crowd = Crowd::new("* origin:80");
    crowd.ask(1, 1000, Packet::default());
    crowd.origin(ok(b"a", true));
    for _ in 0..10 {
        crowd.wait(Duration::from_secs(30));
        crowd.client(1, Packet { kind: Kind::KeepAlive, ..Packet::default() });
        crowd.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() });
    }
    crowd.origin(data(b"b", false));
    assert!(crowd.has(1, 200, b"ab"), "{:?} {:?}", crowd.got, crowd.bench.recorded.log);
}

#[test]
fn polls_that_are_given_back_at_once_share_a_request_if_they_are_the_same_in_all() {
    let mut crowd = Crowd::new("*,id=r origin:80");
    let again = |crowd: &mut Crowd, client: u8, round: &str, agent: &str, last: &str| {
        crowd.seqs.insert(client, 5);
        crowd.got.insert(client, Got { credits: 1000, seq: 5, ..Got::default() });
        let text = |text: &str| Value::Bytes(text.as_bytes().to_vec());
        let rid = value(&[("sender", text("front")), ("id", Value::Bytes(vec![client]))]);
        let number = |number: i64| Value::Int(number);
        let state = value(&[
            ("rid", rid),
            ("in-seq", number(5)),
            ("out-seq", number(5)),
            ("out-credits", number(1000)),
            ("router-resp", Value::Bool(true)),
        ]);
        let headers =
            vec![Value::List(vec![text("Host"), text("h")]), Value::List(vec![text("User-Agent"), text(agent)])];
        let data = value(&[
            ("method", text("GET")),
            ("uri", text("http://h/poll")),
            ("headers", Value::List(headers)),
            ("body", text("")),
        ]);
        let inspect = value(&[("no-proxy", Value::Bool(false)), ("last-ids", value(&[("c", text(last))]))]);
        let retry = value(&[
            ("requests", Value::List(vec![state])),
            ("request-data", data),
            ("inspect", inspect),
            ("round", text(round)),
            ("route", text("r")),
        ]);
        let message = tnetstring::to_vec(&retry).unwrap();
        crowd.bench.engine.retry(&message, crowd.bench.now, &mut crowd.bench.recorded);
        crowd.look();
    };
    again(&mut crowd, 1, "h|1", "a", "7");
    again(&mut crowd, 2, "h|1", "a", "7");
    assert_eq!(crowd.opened, 1);
    again(&mut crowd, 3, "h|2", "a", "7");
    again(&mut crowd, 4, "h|1", "b", "7");
    again(&mut crowd, 5, "h|1", "a", "8");
    assert_eq!(crowd.opened, 4);
}

/// What clients, the backend and the time do.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8, u32),
    Credit(u8, u32),
    Leave(u8),
    Proceed(u8),
    Answer(usize, bool),
    AnswerOne(usize, bool),
    Instruct(usize, bool),
    Data(usize, bool),
    Fail,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 1..5u8;
    let size = prop_oneof![Just(0usize), 1..50usize, 40_000..110_000usize];
    let piece = (size, prop::bool::weighted(0.8));
    prop_oneof![
        4 => (client.clone(), 0..1000u32).prop_map(|(client, credits)| Step::Ask(client, credits)),
        4 => (client.clone(), 0..300_000u32).prop_map(|(client, credits)| Step::Credit(client, credits)),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Proceed),
        3 => piece.clone().prop_map(|(size, more)| Step::Answer(size, more)),
        1 => piece.clone().prop_map(|(size, more)| Step::AnswerOne(size, more)),
        1 => piece.clone().prop_map(|(size, more)| Step::Instruct(size, more)),
        6 => piece.prop_map(|(size, more)| Step::Data(size, more)),
        1 => Just(Step::Fail),
        2 => prop_oneof![0..50u64, 5_000..6_000u64, 30_000..70_000u64].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whoever_does_what_each_client_gets_a_beginning_of_one_response_and_nothing_is_left(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut crowd = Crowd::new("* origin:80");
        for step in &steps {
            match step {
                Step::Ask(client, credits) => {
                    let waits = crowd.got.get(client).is_some_and(|got| !got.complete && !got.cancelled);
                    if !waits {
                        crowd.ask(*client, *credits, Packet::default());
                    }
                }
                Step::Credit(client, credits) => crowd.client(*client, credit(*credits)),
                // One that is paused is heard by its next owner.
                Step::Leave(client) => {
                    if crowd.got.get(client).is_some_and(|got| !got.paused) {
                        crowd.client(*client, cancel());
                        crowd.got.get_mut(client).unwrap().cancelled = true;
                    }
                }
                Step::Proceed(client) => {
                    if crowd.got.get(client).is_some_and(|got| got.paused) {
                        crowd.client(*client, Packet { kind: Kind::HandoffProceed, ..Packet::default() });
                    }
                }
                Step::Answer(size, more) => crowd.origin(ok(&vec![b'x'; *size], *more)),
                Step::AnswerOne(size, more) => {
                    let headers: &[(&[u8], &[u8])] = &[(b"Set-Cookie", b"a=b")];
                    crowd.origin(Packet { headers: Headers::Pairs(headers), ..ok(&vec![b'x'; *size], *more) });
                }
                Step::Instruct(size, more) => crowd.origin(grip_response("stream", &vec![b'x'; *size], *more)),
                Step::Data(size, more) => crowd.origin(data(&vec![b'x'; *size], *more)),
                Step::Fail => crowd.origin(error(b"undefined-condition")),
                Step::Wait(ms) => crowd.wait(Duration::from_millis(*ms)),
            }
        }
        // Silence ends all of it, some of it late.
        for _ in 0..6 {
            crowd.wait(Duration::from_secs(65));
        }
        prop_assert!(crowd.bench.engine.is_empty());
    }
}
