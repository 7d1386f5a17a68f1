// SPDX-License-Identifier: AGPL-3.0-or-later
//! An engine and a place to write down what it does.

use std::time::{Duration, Instant};

use grip::Instruct;
use grip::instruct::BackendResponse;
use handler::context::{Actions, Address, Context, GivenBack, Sent};
use handler::deliver::fate::Fate;
use handler::engine::{Engine, Limits};
use handler::notice::{Level, Notice};
use handler::take_over::accept::{Accept, Request};
use handler::take_over::admission::Decision;
use handler::take_over::asked::Members;
use zhttp::session::HandedOver;
use zhttp::{Headers, Id, Ids, Kind, Packet, PeerId, Peers};

/// Packets and subscriptions, one a line.
#[derive(Default)]
pub struct Written {
    names: Vec<(PeerId, String)>,
    /// Frontends whose links do not take all that is sent.
    pub links: Vec<(String, Sent)>,
    pub lines: Vec<String>,
    pub warnings: Vec<String>,
    /// If wanted: the content of each session's packets, and whether more follows.
    pub bodies: Option<Vec<(String, Vec<u8>, bool)>>,
    /// Packets for the proxy about WebSockets.
    pub control: Vec<Vec<u8>>,
    /// The ids of our own requests.
    pub opened: Vec<Vec<u8>>,
    /// Nothing is taken by a proxy.
    pub no_proxy: bool,
    /// What frontends have been told to keep.
    pub records: Vec<Vec<u8>>,
}

impl Actions for Written {
    fn send(&mut self, to: Address, packet: &Packet<'_>) -> Sent {
        let name = self.names.iter().find(|(peer, _)| *peer == to.peer).map_or("?", |(_, name)| name);
        let sent = match self.links.iter().find(|(link, _)| link == name) {
            Some((_, sent)) => *sent,
            None => Sent::Taken,
        };
        if sent == Sent::Lost {
            return sent;
        }
        if let Some(bodies) = &mut self.bodies {
            let ids = packet.ids.iter().flatten().map(|(id, _)| text(id).into_owned());
            bodies.extend(ids.map(|id| (id, packet.body.to_vec(), packet.more)));
        }
        let way = if to.by_router { " by router" } else { "" };
        let what = if to.by_router { describe(packet) + &describe_run(packet) } else { describe(packet) };
        self.lines.push(format!("{name}{way} {what}"));
        self.records.extend(packet.ext.keep.map(|record| record.content.to_vec()));
        sent
    }

    fn frontend(&mut self, name: &[u8]) -> Option<PeerId> {
        self.names.iter().find(|(_, known)| known.as_bytes() == name).map(|(peer, _)| *peer)
    }

    fn open(&mut self, packet: &Packet<'_>) -> bool {
        let (id, _) = packet.ids.single().unwrap();
        self.opened.push(id.to_vec());
        let route = rpc::passthrough::Passthrough::decode(packet.passthrough.unwrap()).unwrap();
        let inside = if route.prefer_internal { "" } else { " outside" };
        let last: String = packet.headers.iter().map(|(_, value)| format!(" [{}]", text(value))).collect();
        let (method, uri) = (text(packet.method.unwrap()), text(packet.uri.unwrap()));
        let body = if packet.body.is_empty() { String::new() } else { format!(" {:?}", text(packet.body)) };
        self.lines.push(format!("ask {method} {uri}{inside}{last}{body}"));
        !self.no_proxy
    }

    fn to_proxy(&mut self, _to: PeerId, packet: &Packet<'_>) -> bool {
        let credits = packet.credits.map_or(String::new(), |credits| format!(" {credits}"));
        self.lines.push(format!("proxy {}{credits}", packet.kind.name()));
        true
    }

    fn give_back(&mut self, poll: &GivenBack<'_>) -> bool {
        let ids: String = poll.last_ids.iter().map(|(name, id)| format!(" {name}={id}")).collect();
        let session = poll.session;
        self.lines.push(format!("give back {}#{}/{}{ids}", session.id, session.in_seq, session.out_seq));
        !self.no_proxy
    }

    fn control(&mut self, packet: &rpc::ws_control::Packet<'_>) -> Sent {
        let sent = self.links.iter().find(|(link, _)| link == "control").map_or(Sent::Taken, |(_, sent)| *sent);
        if sent != Sent::Lost {
            self.control.push(packet.encode().unwrap());
        }
        sent
    }

    fn follow(&mut self, channel: &str) {
        self.lines.push(format!("follow {channel}"));
    }

    fn unfollow(&mut self, channel: &str) {
        self.lines.push(format!("unfollow {channel}"));
    }

    fn report(&mut self, notice: Notice<'_>) {
        if notice.level() == Level::Warning {
            self.warnings.push(notice.to_string());
        }
    }
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn describe(packet: &Packet<'_>) -> String {
    let ids = packet.ids.iter().map(|id| id.unwrap()).map(|(id, seq)| format!("{}#{}", text(id), seq.unwrap()));
    let mut line = ids.collect::<Vec<_>>().join(",");
    if packet.ext.lane > 0 {
        line += &format!(" lane {}", packet.ext.lane);
    }
    if packet.kind != Kind::Data {
        line += &format!(" {}", packet.kind.name());
    }
    if packet.ext.after > 0 {
        line += &format!(" after {}", packet.ext.after);
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

/// What a frontend keeps of a packet for a successor.
fn describe_run(packet: &Packet<'_>) -> String {
    let mut line = String::from(if packet.ext.lag { " lag" } else { "" });
    if let Some(run) = packet.ext.run {
        line += &format!(" run {}", run.number);
        let items = run.iter().map(|(channel, id)| format!(" [{} {}]", text(channel), text(id)));
        line.extend(items);
    }
    line
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
    pub method: &'static str,
    pub code: u16,
    pub debug: bool,
    pub by_router: bool,
    pub uri: &'static str,
    /// The arguments of the `accept` call that are kept.
    call: Vec<u8>,
    /// What was known of the channels when the requests were given back.
    pub known: &'static [(&'static str, &'static str)],
    peers: Peers,
}

pub const LIMITS: Limits = Limits {
    subscriptions: 20,
    records: true,
    unbuffer_streams: false,
    linger: Duration::from_secs(60),
    queue_bytes: 200,
    queue_time: Duration::from_secs(5),
    message_rate: None,
    message_hwm: None,
    message_block_size: None,
    message_wait: Duration::from_secs(5),
    id_cache_ttl: Duration::from_secs(60),
    id_cache_max: 1000,
    update_on_first_subscription: settings::FirstSubscription::Never,
    link_requests: 3,
    gone_requests: 2,
    filter_requests: 2,
    filter_messages: 4,
    filter_bytes: 1000,
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
            method: "GET",
            code: 200,
            debug: false,
            by_router: false,
            uri: "http://x.test/",
            call: b"48:8:requests,0:]17:orig-request-data,8:3:uri,0:,}}".to_vec(),
            known: &[],
            peers: Peers::default(),
        }
    }

    /// The states of some requests as they stand in a call, and the ids that the clients are said to have.
    fn requests(&mut self, count: usize) -> Vec<u8> {
        let state = rpc::RequestState { out_credits: self.credits, ..rpc::RequestState::default() };
        let ids = self.known.iter().copied();
        let known = ids.map(|(name, id): (&str, &str)| (name.into(), tnetstring::Value::Bytes(id.into()))).collect();
        let user_data = Some(tnetstring::Value::Map(known));
        let inspect = rpc::inspect::Inspected { user_data, ..Default::default() };
        let data = rpc::RequestData { method: "GET".into(), uri: self.uri.into(), ..Default::default() };
        let call = rpc::accept::Accept {
            orig_request_data: data,
            inspect: Some(inspect),
            route: Some("r"),
            ..rpc::accept::Accept::default()
        };
        self.call = tnetstring::to_vec(&call).unwrap();
        tnetstring::to_vec(&vec![state; count]).unwrap()
    }

    /// A response to our latest request, or more of it; the number is the packet's.
    pub fn respond(
        &mut self,
        seq: u32,
        code: Option<u16>,
        headers: &[(&str, &str)],
        body: &str,
        more: bool,
    ) -> Vec<String> {
        let id = self.out.opened.last().unwrap().clone();
        self.respond_to(&id, seq, code, headers, body, more)
    }

    /// The same to another one.
    pub fn respond_to(
        &mut self,
        id: &[u8],
        seq: u32,
        code: Option<u16>,
        headers: &[(&str, &str)],
        body: &str,
        more: bool,
    ) -> Vec<String> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let packet = Packet {
            ids: Ids::One(id, Some(seq)),
            code,
            headers: if code.is_some() { Headers::Pairs(&headers) } else { Headers::Absent },
            body: body.as_bytes(),
            more,
            ..Packet::default()
        };
        let from = Some(self.peer("proxy"));
        self.engine.on_proxy_packet(from, &packet, &mut Context::new(self.now, &mut self.out));
        self.turn()
    }

    /// A packet of the proxy.
    pub fn proxy_packet(&mut self, packet: Packet<'_>) {
        let from = Some(self.peer("proxy"));
        self.engine.on_proxy_packet(from, &packet, &mut Context::new(self.now, &mut self.out));
    }

    /// The frontend has paused a session.
    pub fn proceed(&mut self, frontend: &str, id: &str) -> Vec<String> {
        let ids = Ids::One(id.as_bytes(), Some(1));
        self.packet(frontend, Packet { ids, kind: Kind::HandoffProceed, ..Packet::default() });
        self.turn()
    }

    pub fn peer(&mut self, name: &str) -> PeerId {
        let peer = self.peers.intern(name.as_bytes()).unwrap();
        if !self.out.names.iter().any(|(known, _)| *known == peer) {
            self.out.names.push((peer, name.into()));
        }
        peer
    }

    /// Gives requests of a frontend over, with a backend's response. Their next packets are 1 in and 1 out.
    pub fn hold(&mut self, frontend: &str, ids: &[&str], headers: &[(&str, &str)], body: &str) -> Vec<String> {
        let client = self.peer(frontend);
        let list = self.requests(ids.len());
        let requests = ids.iter().map(|id| {
            let id = Id::new(id.as_bytes()).unwrap();
            let state =
                HandedOver { client, id, in_seq: 1, out_seq: 1, credits: self.credits, by_router: self.by_router };
            Request { state, responding: false, debug: self.debug, cross_origin: None }
        });
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let response = BackendResponse { code: self.code, reason: b"", headers: &headers, body: body.as_bytes() };
        let members = Members::find(tnetstring::split(&self.call).unwrap().0);
        let accept = Accept {
            is_taken_up: false,
            conn_max: Vec::new(),
            requests: requests.collect(),
            uri: self.uri.as_bytes(),
            method: self.method.as_bytes(),
            response: response.into(),
            prefix: self.prefix,
            channels: self.implicit.clone(),
            response_sent: false,
            route: self.route,
            route_id: "r",
            trusted: false,
            members: members.map(|members| Members { requests: tnetstring::split(&list).unwrap().0, ..members }),
        };
        let instruct = Instruct::read(response).unwrap();
        let cx = &mut Context::new(self.now, &mut self.out);
        match self.engine.decide(accept, &instruct, cx) {
            Decision::Hold(prepared) => self.engine.take_over(prepared, cx),
            Decision::Pass(body) => self.out.lines.push(format!("pass {:?}", text(&body))),
            Decision::Refuse(refusal) => self.out.lines.push(format!("refuse {refusal}")),
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
    pub fn publish(&mut self, channel: &str, formats: &str) -> Fate {
        self.publish_item(&format!("\"channel\":\"{channel}\",\"formats\":{{{formats}}}"))
    }

    /// Publishes an item with these members, but does not end the turn.
    pub fn publish_item(&mut self, members: &str) -> Fate {
        let item = grip::item::from_message(format!("J{{{members}}}").as_bytes(), None).unwrap();
        self.engine.publish(item, &mut Context::new(self.now, &mut self.out)).1
    }

    /// Publishes content for streams, but does not end the turn.
    pub fn content(&mut self, channel: &str, content: &str) {
        self.publish(channel, &format!("\"http-stream\":{{\"content\":\"{content}\"}}"));
    }

    /// A packet of a frontend.
    pub fn packet(&mut self, frontend: &str, packet: Packet<'_>) {
        let from = self.peer(frontend);
        self.engine.on_packet(from, &packet, &mut Context::new(self.now, &mut self.out));
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
        let address = Address { peer: self.peer(frontend), by_router: self.by_router };
        self.engine.on_peer_gone(address, &mut Context::new(self.now, &mut self.out));
    }

    /// From now on packets for a frontend have this fate.
    pub fn link(&mut self, frontend: &str, sent: Sent) {
        self.out.links.retain(|(link, _)| link != frontend);
        self.out.links.push((frontend.into(), sent));
    }

    /// A frontend's link has room again.
    pub fn room(&mut self, frontend: &str) -> Vec<String> {
        self.out.links.retain(|(link, _)| link != frontend);
        let peer = self.peer(frontend);
        self.engine.on_room(peer, &mut Context::new(self.now, &mut self.out));
        self.written()
    }

    /// A frontend's link has room for one packet again.
    pub fn room_once(&mut self, frontend: &str) -> Vec<String> {
        let peer = self.peer(frontend);
        self.engine.on_room(peer, &mut Context::new(self.now, &mut self.out));
        self.written()
    }

    pub fn expire_sequences(&mut self) {
        self.engine.expire_sequences(&mut Context::new(self.now, &mut self.out));
    }

    pub fn on_timer(&mut self) {
        self.engine.on_timer(&mut Context::new(self.now, &mut self.out));
    }

    pub fn recover(&mut self) {
        self.engine.recover(&mut Context::new(self.now, &mut self.out));
    }

    pub fn shut_down(&mut self) {
        self.engine.shut_down(&mut Context::new(self.now, &mut self.out));
    }

    /// Lets time pass, looking at the engine whenever it wants to be looked at.
    pub fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        while let Some(due) = self.engine.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.on_timer();
        }
        self.now = end;
        self.on_timer();
        self.written()
    }

    /// Ends the turn.
    pub fn turn(&mut self) -> Vec<String> {
        self.engine.flush(&mut Context::new(self.now, &mut self.out));
        self.written()
    }

    /// What has been written down since the last time.
    pub fn written(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out.lines)
    }
}
