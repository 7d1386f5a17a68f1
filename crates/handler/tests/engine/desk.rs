//! An engine and a place to write down what it does.

use std::time::{Duration, Instant};

use grip::Instruct;
use grip::instruct::BackendResponse;
use handler::engine::{Decision, Engine, Limits, Outlet};
use handler::take_over::accept::{Accept, Request};
use zhttp::server::HandedOver;
use zhttp::{Id, Ids, Kind, Packet, PeerId, Peers};

/// Packets and subscriptions, one a line.
#[derive(Default)]
pub struct Written {
    names: Vec<(PeerId, String)>,
    pub lines: Vec<String>,
}

impl Outlet for Written {
    fn send(&mut self, to: PeerId, by_router: bool, packet: &Packet<'_>) {
        let name = self.names.iter().find(|(peer, _)| *peer == to).map_or("?", |(_, name)| name);
        let way = if by_router { " by router" } else { "" };
        self.lines.push(format!("{name}{way} {}", describe(packet)));
    }

    fn follow(&mut self, channel: &str) {
        self.lines.push(format!("follow {channel}"));
    }

    fn unfollow(&mut self, channel: &str) {
        self.lines.push(format!("unfollow {channel}"));
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn describe(packet: &Packet<'_>) -> String {
    let ids = packet.ids.iter().map(|id| id.unwrap()).map(|(id, seq)| format!("{}#{}", text(id), seq.unwrap()));
    let mut line = ids.collect::<Vec<_>>().join(",");
    if packet.kind != Kind::Data {
        line += &format!(" {}", packet.kind.name());
    }
    if let Some(code) = packet.code {
        line += &format!(" {code} {}", text(packet.reason.unwrap_or_default()));
    }
    for (name, value) in packet.headers.iter() {
        line += &format!(" [{}: {}]", text(name), text(value));
    }
    if !packet.body.is_empty() {
        line += &format!(" {:?}", text(packet.body));
    }
    if packet.more { line + " more" } else { line }
}

/// The engine with everything around it.
pub struct Desk {
    pub engine: Engine,
    pub now: Instant,
    pub out: Written,
    /// Credits of the requests that are given over.
    pub credits: u32,
    /// The channel of the route, if it has one.
    pub implicit: Vec<&'static str>,
    pub prefix: &'static str,
    pub route: Option<&'static str>,
    peers: Peers,
}

pub const LIMITS: Limits = Limits {
    subscriptions: 20,
    linger: Duration::from_secs(60),
    queue_bytes: 200,
    message_rate: None,
    message_hwm: None,
    message_wait: Duration::from_secs(5),
    id_cache_ttl: Duration::from_secs(60),
};

impl Desk {
    pub fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Desk {
            engine: Engine::new(limits, now),
            now,
            out: Written::default(),
            credits: 1000,
            implicit: Vec::new(),
            prefix: "",
            route: None,
            peers: Peers::default(),
        }
    }

    fn peer(&mut self, name: &str) -> PeerId {
        let peer = self.peers.intern(name.as_bytes()).unwrap();
        if !self.out.names.iter().any(|(known, _)| *known == peer) {
            self.out.names.push((peer, name.into()));
        }
        peer
    }

    /// Gives requests of a frontend over, with a backend's response. Their next packets are 1 in and 1 out.
    pub fn hold(&mut self, frontend: &str, ids: &[&str], headers: &[(&str, &str)], body: &str) -> Vec<String> {
        let client = self.peer(frontend);
        let requests = ids.iter().map(|id| {
            let id = Id::new(id.as_bytes()).unwrap();
            let state = HandedOver { client, id, in_seq: 1, out_seq: 1, credits: self.credits, by_router: false };
            Request { state, responding: false }
        });
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let response = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: body.as_bytes() };
        let accept = Accept {
            requests: requests.collect(),
            uri: b"http://x.test/",
            response: Default::default(),
            prefix: self.prefix,
            channels: self.implicit.clone(),
            response_sent: false,
            route: self.route,
        };
        match self.engine.decide(accept, &Instruct::read(response).unwrap()) {
            Decision::Hold(prepared) => self.engine.take_over(prepared, self.now, &mut self.out),
            Decision::Pass => self.out.lines.push("pass".into()),
        }
        self.written()
    }

    /// A stream that has nothing but its channels, ready.
    pub fn stream(&mut self, frontend: &str, id: &str, channels: &str) {
        self.hold(frontend, &[id], &[("Grip-Hold", "stream"), ("Grip-Channel", channels)], "");
    }

    /// A long-poll that gets "none" when nothing comes, ready.
    pub fn poll(&mut self, frontend: &str, id: &str, channels: &str) {
        self.hold(frontend, &[id], &[("Grip-Hold", "response"), ("Grip-Channel", channels)], "none");
    }

    /// Publishes, but does not end the turn.
    pub fn publish(&mut self, channel: &str, formats: &str) {
        let item = format!("J{{\"channel\":\"{channel}\",\"formats\":{{{formats}}}}}");
        let item = grip::item::from_message(item.as_bytes(), None).unwrap();
        self.engine.publish(item, self.now, &mut self.out);
    }

    /// Publishes content for streams, but does not end the turn.
    pub fn content(&mut self, channel: &str, content: &str) {
        self.publish(channel, &format!("\"http-stream\":{{\"content\":\"{content}\"}}"));
    }

    /// A packet of a frontend.
    pub fn packet(&mut self, frontend: &str, packet: Packet<'_>) {
        let from = self.peer(frontend);
        self.engine.on_packet(from, &packet, self.now, &mut self.out);
    }

    pub fn grant(&mut self, frontend: &str, id: &str, seq: u32, credits: u32) {
        let ids = Ids::One(id.as_bytes(), Some(seq));
        self.packet(frontend, Packet { ids, kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
    }

    pub fn cancel(&mut self, frontend: &str, id: &str) {
        let ids = Ids::One(id.as_bytes(), Some(1));
        self.packet(frontend, Packet { ids, kind: Kind::Cancel, ..Packet::default() });
    }

    pub fn frontend_goes(&mut self, frontend: &str) {
        let peer = self.peer(frontend);
        self.engine.on_peer_gone(peer, self.now, &mut self.out);
    }

    /// Lets time pass, looking at the engine whenever it wants to be looked at.
    pub fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        while let Some(due) = self.engine.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.engine.on_timer(self.now, &mut self.out);
        }
        self.now = end;
        self.engine.on_timer(self.now, &mut self.out);
        self.written()
    }

    /// Ends the turn.
    pub fn turn(&mut self) -> Vec<String> {
        self.engine.flush_run(self.now, &mut self.out);
        self.written()
    }

    /// What has been written down since the last time.
    pub fn written(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out.lines)
    }
}
