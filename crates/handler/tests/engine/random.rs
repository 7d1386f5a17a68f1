// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whatever happens in whatever order: every stream gets just what was published while it was there, never more than
//! its credits allow, and its packets are numbered without gaps.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use grip::Instruct;
use grip::instruct::BackendResponse;
use handler::context::{Actions, Address, Context, GivenBack, Sent};
use handler::engine::{Engine, Limits};
use handler::notice::Notice;
use handler::take_over::accept::{Accept, Request};
use handler::take_over::admission::Decision;
use proptest::prelude::*;
use zhttp::session::HandedOver;
use zhttp::{Id, Ids, Kind, Packet, PeerId, Peers};

use super::desk::LIMITS;

const CHANNELS: [&str; 3] = ["c", "d", "e"];
const STREAMS: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// A stream joins, on the channels whose bits are set.
    Join { stream: usize, channels: u8, credits: u32 },
    /// Its client leaves.
    Leave { stream: usize },
    /// Its frontend grants credits.
    Grant { stream: usize, credits: u32 },
    /// So many bytes are published.
    Publish { channel: usize, bytes: usize },
    /// The streams of a channel are closed.
    Close { channel: usize },
    /// The turn ends.
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..STREAMS, 1u8..8, 0u32..300).prop_map(|(stream, channels, credits)| Step::Join { stream, channels, credits }),
        1 => (0..STREAMS).prop_map(|stream| Step::Leave { stream }),
        3 => (0..STREAMS, 0u32..500).prop_map(|(stream, credits)| Step::Grant { stream, credits }),
        6 => (0..CHANNELS.len(), 0usize..60).prop_map(|(channel, bytes)| Step::Publish { channel, bytes }),
        1 => (0..CHANNELS.len(), 5_000usize..10_000).prop_map(|(channel, bytes)| Step::Publish { channel, bytes }),
        1 => (0..CHANNELS.len()).prop_map(|channel| Step::Close { channel }),
        3 => Just(Step::Turn),
    ]
}

/// A client, as the test sees it.
#[derive(Default)]
struct Client {
    channels: u8,
    granted: usize,
    next_out: u32,
    next_in: u32,
    got: Vec<u8>,
    due: Vec<u8>,
    /// Nothing is due to it any more.
    closing: bool,
    ended: bool,
    cancelled: bool,
}

#[derive(Default)]
struct Clients(BTreeMap<String, Client>);

impl Actions for Clients {
    fn send(&mut self, _: Address, packet: &Packet<'_>) -> Sent {
        for id in packet.ids.iter() {
            let (id, seq) = id.unwrap();
            let client = self.0.get_mut(std::str::from_utf8(id).unwrap()).expect("a known session");
            assert!(!client.ended && !client.cancelled, "a packet after the end");
            assert_eq!(seq, Some(client.next_out));
            client.next_out += 1;
            client.got.extend(packet.body);
            assert!(client.got.len() <= client.granted, "{} bytes of {}", client.got.len(), client.granted);
            client.cancelled = packet.kind == Kind::Cancel;
            client.ended = packet.kind == Kind::Data && !packet.more;
        }
        Sent::Taken
    }

    fn frontend(&mut self, _: &[u8]) -> Option<PeerId> {
        None
    }

    fn open(&mut self, _: &Packet<'_>) -> bool {
        false
    }

    fn to_proxy(&mut self, _: PeerId, _: &Packet<'_>) -> bool {
        false
    }

    fn give_back(&mut self, _: &GivenBack<'_>) -> bool {
        false
    }

    fn control(&mut self, _: &rpc::ws_control::Packet<'_>) -> Sent {
        Sent::Taken
    }

    fn follow(&mut self, _: &str) {}

    fn unfollow(&mut self, _: &str) {}

    fn report(&mut self, _: Notice<'_>) {}
}

fn join(engine: &mut Engine, peer: PeerId, name: &str, channels: u8, credits: u32, now: Instant, out: &mut Clients) {
    let state = HandedOver {
        client: peer,
        id: Id::new(name.as_bytes()).unwrap(),
        in_seq: 1,
        out_seq: 1,
        credits,
        by_router: false,
    };
    let names = (0..CHANNELS.len()).filter(|i| channels >> i & 1 == 1).map(|i| CHANNELS[i]).collect::<Vec<_>>();
    let names = names.join(",");
    let headers = [(&b"Grip-Hold"[..], &b"stream"[..]), (b"Grip-Channel", names.as_bytes())];
    let response = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: b"hello" };
    let accept = Accept {
        is_taken_up: false,
        conn_max: Vec::new(),
        requests: vec![Request { state, responding: false, debug: false, cross_origin: None }],
        uri: b"",
        method: b"GET",
        response: Default::default(),
        prefix: "",
        channels: Vec::new(),
        response_sent: false,
        route: None,
        route_id: "",
        trusted: false,
        members: None,
    };
    let cx = &mut Context::new(now, out);
    let Decision::Hold(prepared) = engine.decide(accept, &Instruct::read(response).unwrap(), cx) else {
        unreachable!()
    };
    engine.take_over(prepared, cx);
}

fn publish(engine: &mut Engine, channel: usize, format: &str, now: Instant, out: &mut Clients) {
    let text = format!("J{{\"channel\":\"{}\",\"formats\":{{\"http-stream\":{format}}}}}", CHANNELS[channel]);
    engine.publish(grip::item::from_message(text.as_bytes(), None).unwrap(), &mut Context::new(now, out));
}

fn check(steps: Vec<Step>, queue_bytes: usize) {
    let now = Instant::now();
    let mut engine = Engine::new(Limits { queue_bytes, linger: Duration::ZERO, ..LIMITS }, now);
    let mut peers = Peers::default();
    // Two frontends; a stream's index says whose it is.
    let frontends = [peers.intern(b"a").unwrap(), peers.intern(b"b").unwrap()];
    let mut out = Clients::default();
    let mut names: [Option<String>; STREAMS] = Default::default();
    for (serial, step) in steps.into_iter().enumerate() {
        match step {
            Step::Join { stream, channels, credits } => {
                if names[stream].is_some() {
                    continue;
                }
                let name = format!("{stream}-{serial}");
                let client = Client {
                    channels,
                    granted: credits as usize,
                    next_out: 1,
                    next_in: 1,
                    due: b"hello".to_vec(),
                    ..Client::default()
                };
                out.0.insert(name.clone(), client);
                join(&mut engine, frontends[stream % 2], &name, channels, credits, now, &mut out);
                names[stream] = Some(name);
            }
            Step::Leave { stream } => {
                let Some(name) = names[stream].take() else { continue };
                let ids = Ids::One(name.as_bytes(), None);
                let packet = Packet { ids, kind: Kind::Cancel, ..Packet::default() };
                engine.on_packet(frontends[stream % 2], &packet, &mut Context::new(now, &mut out));
                // What it had until then must be the beginning of what was due.
                let client = out.0.remove(&name).unwrap();
                assert!(client.due.starts_with(&client.got));
            }
            Step::Grant { stream, credits } => {
                let Some(client) = names[stream].as_ref().and_then(|name| out.0.get_mut(name)) else { continue };
                client.granted += credits as usize;
                let seq = client.next_in;
                client.next_in += 1;
                let ids = Ids::One(names[stream].as_ref().unwrap().as_bytes(), Some(seq));
                let packet = Packet { ids, kind: Kind::Credit, credits: Some(credits), ..Packet::default() };
                engine.on_packet(frontends[stream % 2], &packet, &mut Context::new(now, &mut out));
            }
            Step::Publish { channel, bytes } => {
                let content: String = (0..bytes).map(|i| char::from(b'a' + ((serial + i) % 26) as u8)).collect();
                let listening =
                    |client: &&mut Client| client.channels >> channel & 1 == 1 && !client.closing && !client.cancelled;
                for client in out.0.values_mut().filter(listening) {
                    client.due.extend(content.as_bytes());
                }
                publish(&mut engine, channel, &format!("{{\"content\":\"{content}\"}}"), now, &mut out);
            }
            Step::Close { channel } => {
                for client in out.0.values_mut().filter(|client| client.channels >> channel & 1 == 1) {
                    client.closing = true;
                }
                publish(&mut engine, channel, "{\"action\":\"close\"}", now, &mut out);
            }
            Step::Turn => engine.flush(&mut Context::new(now, &mut out)),
        }
    }
    engine.flush(&mut Context::new(now, &mut out));
    for (stream, name) in names.iter().enumerate() {
        let Some(client) = name.as_ref().and_then(|name| out.0.get_mut(name)) else { continue };
        if !client.ended && !client.cancelled {
            client.granted += 1_000_000;
            let ids = Ids::One(name.as_ref().unwrap().as_bytes(), Some(client.next_in));
            let packet = Packet { ids, kind: Kind::Credit, credits: Some(1_000_000), ..Packet::default() };
            engine.on_packet(frontends[stream % 2], &packet, &mut Context::new(now, &mut out));
        }
        let client = &out.0[name.as_ref().unwrap()];
        if client.cancelled {
            assert!(queue_bytes < 1_000_000 && client.due.starts_with(&client.got));
        } else {
            assert!(client.got == client.due, "{} bytes instead of {}", client.got.len(), client.due.len());
            assert_eq!(client.ended, client.closing);
        }
    }
    let alive = out.0.values().filter(|client| !client.ended && !client.cancelled).count();
    assert_eq!(engine.held(), alive);
}

proptest! {
    #[test]
    fn each_stream_gets_all_that_was_published_while_it_was_there(steps in prop::collection::vec(step(), 0..80)) {
        check(steps, 1_000_000);
    }

    #[test]
    fn a_slow_client_is_closed_and_misses_nothing_until_then(steps in prop::collection::vec(step(), 0..80)) {
        check(steps, 200);
    }
}
