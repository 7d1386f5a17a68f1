// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whatever the others do, in whatever order: the client's packets keep the rules, and every request ends.

use std::time::Duration;

use proptest::prelude::*;
use tnetstring::Value;
use zhttp::{Kind, Packet};

use super::bench::{Bench, Sent, cancel, credit, data, error, grip_response, ok, value};

/// Something that the client's instance, the outbound process, the handler or the time does.
#[derive(Clone, Debug)]
enum Step {
    ClientData(usize, bool),
    ClientCredits(u32),
    ClientCancels,
    ClientProceeds,
    ClientBreaksRules,
    OriginAlive,
    OriginCredits(u32),
    OriginAnswers(usize, bool),
    OriginInstructs(bool, usize, bool),
    OriginData(usize, bool),
    OriginFails(&'static [u8]),
    OutboundLeaves,
    HandlerInspects,
    HandlerAccepts,
    HandlerResponds,
    HandlerRefuses,
    HandlerLeaves,
    FrontendLeaves,
    ClientFull(bool),
    OriginFull(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let size = prop_oneof![Just(0usize), 1..50usize, 9_000..11_000usize, 90_000..110_000usize];
    let sizes = (size, prop::bool::weighted(0.7));
    let conditions =
        [&b"remote-connection-failed"[..], b"connection-timeout", b"length-required", b"undefined-condition"];
    // What brings a request forward comes more often than what ends it.
    prop_oneof![
        4 => sizes.clone().prop_map(|(size, more)| ClientData(size, more)),
        4 => (0..300_000u32).prop_map(ClientCredits),
        1 => Just(ClientCancels),
        5 => Just(ClientProceeds),
        1 => Just(ClientBreaksRules),
        3 => Just(OriginAlive),
        3 => (0..300_000u32).prop_map(OriginCredits),
        6 => sizes.clone().prop_map(|(size, more)| OriginAnswers(size, more)),
        6 => (any::<bool>(), sizes.clone()).prop_map(|(stream, (size, more))| OriginInstructs(stream, size, more)),
        6 => sizes.prop_map(|(size, more)| OriginData(size, more)),
        2 => prop::sample::select(conditions.to_vec()).prop_map(OriginFails),
        1 => Just(OutboundLeaves),
        4 => Just(HandlerInspects),
        1 => Just(HandlerAccepts),
        3 => Just(HandlerResponds),
        2 => Just(HandlerRefuses),
        1 => Just(HandlerLeaves),
        1 => Just(FrontendLeaves),
        3 => any::<bool>().prop_map(ClientFull),
        2 => any::<bool>().prop_map(OriginFull),
        4 => prop_oneof![0..20u64, 500..9_000u64, 30_000..70_000u64].prop_map(Wait),
    ]
}

/// The client's instance, which checks what it gets.
#[derive(Default)]
struct Client {
    next: u32,
    credits: u64,
    /// It has been told that nothing more comes, or whom else to listen to.
    over: bool,
}

impl Client {
    fn check(&mut self, bench: &mut Bench) {
        // Also notes the ids that the others answer to.
        for sent in bench.take() {
            let Sent::Client(message) = sent else { continue };
            let packet = Packet::decode(&message).unwrap();
            for entry in packet.ids.iter() {
                let (_, seq) = entry.unwrap();
                if packet.kind == Kind::Cancel {
                    self.over = true;
                    continue;
                }
                assert!(!self.over, "{packet:?} after the end");
                assert_eq!(seq, Some(self.next), "{packet:?}");
                self.next += 1;
                assert!(packet.body.len() as u64 <= self.credits, "{packet:?} with {} credits", self.credits);
                self.credits -= packet.body.len() as u64;
                self.over = packet.kind == Kind::Data && !packet.more;
            }
        }
    }
}

fn act(bench: &mut Bench, client: &mut Client, step: &Step) {
    let bytes = |size: &usize| vec![b'x'; *size];
    match step {
        Step::ClientData(size, more) => bench.client(data(&bytes(size), *more)),
        Step::ClientCredits(credits) => {
            client.credits += u64::from(*credits);
            bench.client(credit(*credits));
        }
        Step::ClientCancels => bench.client(cancel()),
        Step::ClientProceeds => bench.client(Packet { kind: Kind::HandoffProceed, ..Packet::default() }),
        Step::ClientBreaksRules => {
            bench.client_seq += 1;
            bench.client(credit(0));
        }
        Step::OriginAlive => bench.origin(Packet { kind: Kind::KeepAlive, ..Packet::default() }),
        Step::OriginCredits(credits) => bench.origin(credit(*credits)),
        Step::OriginAnswers(size, more) => bench.origin(ok(&bytes(size), *more)),
        Step::OriginInstructs(stream, size, more) => {
            bench.origin(grip_response(if *stream { "stream" } else { "response" }, &bytes(size), *more));
        }
        Step::OriginData(size, more) => bench.origin(data(&bytes(size), *more)),
        Step::OriginFails(condition) => bench.origin(error(condition)),
        Step::OutboundLeaves => bench.outbound_leaves(),
        Step::HandlerInspects => {
            let id = bench.call_id.clone();
            bench.reply("inspect", &id, "success", &value(&[("no-proxy", Value::Bool(false))]));
        }
        Step::HandlerAccepts => bench.verdict("success", &value(&[("accepted", Value::Bool(true))])),
        Step::HandlerResponds => {
            let response = value(&[
                ("code", Value::Int(200)),
                ("reason", Value::Bytes(b"OK".to_vec())),
                ("headers", Value::List(Vec::new())),
                ("body", Value::Bytes(b"answer".to_vec())),
            ]);
            bench.verdict("success", &value(&[("response", response)]));
        }
        Step::HandlerRefuses => bench.verdict("bad-format", &Value::Bytes(b"why".to_vec())),
        Step::HandlerLeaves => {
            bench.engine.inspect_lost(bench.now, &mut bench.recorded);
            bench.engine.accept_lost(bench.now, &mut bench.recorded);
        }
        Step::FrontendLeaves => bench.engine.client_instance_left(b"front", bench.now, &mut bench.recorded),
        Step::ClientFull(full) => {
            bench.recorded.client_full = *full;
            if !full {
                bench.engine.room(b"front", &mut bench.recorded);
            }
        }
        Step::OriginFull(full) => {
            bench.recorded.origin_full = *full;
            if !full {
                bench.engine.room(b"out", &mut bench.recorded);
            }
        }
        Step::Wait(millis) => bench.wait(Duration::from_millis(*millis)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_rules_are_kept_and_every_request_ends(
        asking in any::<bool>(),
        adopt in any::<bool>(),
        post in any::<bool>(),
        more in prop::bool::weighted(0.3),
        credits in prop_oneof![Just(0u32), Just(8192)],
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let routes = "*,debug one:1 two:2";
        let mut bench = if asking { Bench::asking(routes) } else { Bench::new(routes) };
        let mut client = Client { credits: credits.into(), ..Client::default() };
        let ext = zhttp::Ext { adopt, ..zhttp::Ext::default() };
        let method = Some(if post { &b"POST"[..] } else { b"GET" });
        bench.request(Packet { method, more, ext, credits: Some(credits), ..Packet::default() });
        client.check(&mut bench);
        for step in &steps {
            act(&mut bench, &mut client, step);
            client.check(&mut bench);
        }
        for _ in 0..40 {
            bench.wait(Duration::from_secs(5));
            client.check(&mut bench);
        }
        prop_assert!(bench.engine.is_empty(), "the request has not ended");
    }
}
