// SPDX-License-Identifier: AGPL-3.0-or-later
//! Many held clients, and a frontend that costs nothing: packets are encoded as for a socket and counted.

use std::time::{Duration, Instant};

use grip::Instruct;
use grip::instruct::BackendResponse;
use handler::context::{Actions, Address, Context, GivenBack, Sent};
use handler::engine::{Engine, Limits};
use handler::notice::Notice;
use handler::take_over::accept::{Accept, Request};
use handler::take_over::admission::Decision;
use tnetstring::Writer;
use zhttp::session::HandedOver;
use zhttp::{Id, Ids, Kind, Packet, PeerId, Peers};

/// Credits enough for any test.
const CREDITS: u32 = u32::MAX;

/// Counts packets.
pub struct Counter {
    writer: Writer,
    /// The only frontend there is.
    peer: PeerId,
    pub packets: usize,
    pub bytes: usize,
}

impl Actions for Counter {
    fn send(&mut self, _: Address, packet: &Packet<'_>) -> Sent {
        self.packets += 1;
        self.bytes += packet.encode(Some(b"frontend_1_0123abcd"), &mut self.writer).len();
        Sent::Taken
    }

    fn frontend(&mut self, _: &[u8]) -> Option<PeerId> {
        Some(self.peer)
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

    fn control(&mut self, packet: &rpc::ws_control::Packet<'_>) -> Sent {
        self.packets += 1;
        self.bytes += packet.encode().unwrap().len();
        Sent::Taken
    }

    fn follow(&mut self, _: &str) {}

    fn unfollow(&mut self, _: &str) {}

    fn report(&mut self, _: Notice<'_>) {}
}

/// An engine and its clients.
pub struct Crowd {
    pub engine: Engine,
    pub counter: Counter,
    pub now: Instant,
    peer: PeerId,
    serial: u64,
}

impl Crowd {
    pub fn new() -> Self {
        let now = Instant::now();
        let limits = Limits {
            subscriptions: 20,
            records: true,
            unbuffer_streams: false,
            linger: Duration::ZERO,
            queue_bytes: 1_000_000,
            queue_time: Duration::from_secs(5),
            message_rate: None,
            message_hwm: None,
            message_block_size: None,
            message_wait: Duration::from_secs(5),
            id_cache_ttl: Duration::from_secs(60),
            id_cache_max: 1000,
            update_on_first_subscription: settings::FirstSubscription::Reliable,
            link_requests: 100,
            gone_requests: 100,
            filter_requests: 10,
            filter_messages: 100,
            filter_bytes: 100_000,
        };
        let peer = Peers::default().intern(b"frontend_1_0123abcd").unwrap();
        Crowd {
            engine: Engine::new(limits, now),
            counter: Counter { writer: Writer::new(16_384), peer, packets: 0, bytes: 0 },
            now,
            peer,
            serial: 0,
        }
    }

    /// Holds one more client.
    pub fn hold(&mut self, mode: &str, channel: &str) -> Id {
        let id = Id::indexed(self.serial as u32, self.serial);
        self.serial += 1;
        let state = HandedOver { client: self.peer, id, in_seq: 1, out_seq: 1, credits: CREDITS, by_router: false };
        let headers = [("Content-Type", "text/plain"), ("Grip-Hold", mode), ("Grip-Channel", channel)]
            .map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let response = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: b"hello\n" };
        let accept = Accept {
            is_taken_up: false,
            conn_max: Vec::new(),
            requests: vec![Request { state, responding: false, debug: false, cross_origin: None }],
            uri: b"http://example.com/path",
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
        let cx = &mut Context::new(self.now, &mut self.counter);
        match self.engine.decide(accept, &Instruct::read(response).unwrap(), cx) {
            Decision::Hold(prepared) => self.engine.take_over(prepared, cx),
            _ => panic!("the instruct holds"),
        }
        id
    }

    /// A client's connection is gone.
    #[allow(dead_code)]
    pub fn leave(&mut self, id: Id) {
        let packet = Packet { ids: Ids::One(id.as_bytes(), None), kind: Kind::Cancel, ..Packet::default() };
        self.engine.on_packet(self.peer, &packet, &mut Context::new(self.now, &mut self.counter));
    }

    /// Takes in what the proxy says of WebSockets.
    #[allow(dead_code)]
    pub fn control(&mut self, packet: &rpc::ws_control::Packet<'_>) {
        self.engine.on_control(packet, &mut Context::new(self.now, &mut self.counter));
    }

    /// Publishes, but does not end the turn.
    #[allow(dead_code)]
    pub fn add(&mut self, item: grip::Item) {
        self.engine.publish(item, &mut Context::new(self.now, &mut self.counter));
    }

    /// Lets the engine see that time has passed.
    #[allow(dead_code)]
    pub fn on_timer(&mut self) {
        self.engine.on_timer(&mut Context::new(self.now, &mut self.counter));
    }

    /// Publishes, and ends the turn.
    #[allow(dead_code)]
    pub fn publish(&mut self, item: grip::Item) {
        self.add(item);
        self.engine.flush(&mut Context::new(self.now, &mut self.counter));
    }
}

/// An item with 100 bytes for streams.
#[allow(dead_code)]
pub fn content(channel: &str) -> grip::Item {
    item(channel, &format!("\"http-stream\":{{\"content\":\"{}\"}}", "x".repeat(100)))
}

/// An item with 100 bytes for long-polls.
#[allow(dead_code)]
pub fn answer(channel: &str) -> grip::Item {
    item(channel, &format!("\"http-response\":{{\"body\":\"{}\"}}", "x".repeat(100)))
}

fn item(channel: &str, formats: &str) -> grip::Item {
    let text = format!("J{{\"channel\":\"{channel}\",\"formats\":{{{formats}}}}}");
    grip::item::from_message(text.as_bytes(), None).unwrap()
}
