// SPDX-License-Identifier: AGPL-3.0-or-later
//! The engine between a frontend, an outbound process and a handler that are played by the test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use routes::Table;
use settings::keys::Key;
use tnetstring::{Value, Writer, from_slice};
use zhttp::{Headers, Ids, Kind, Packet};

use crate::context::{Config, Links, Note};
use crate::engine::Engine;

/// Something the engine has sent.
#[derive(Debug)]
pub(super) enum Sent {
    Client(Vec<u8>),
    Handler(Vec<u8>),
    Open(Vec<u8>),
    Origin(Vec<u8>),
    Inspect(Value),
    Accept(Value),
    Control(Vec<u8>),
}

impl Sent {
    /// The id of the request that it opens.
    pub(super) fn opened(&self) -> Option<Vec<u8>> {
        let Sent::Open(message) = self else { return None };
        Some(Packet::decode(message).unwrap().ids.single().unwrap().0.to_vec())
    }

    /// A short description: who gets it, and what it is.
    fn name(&self) -> String {
        let describe = |to: &str, bytes: &[u8]| {
            let packet = Packet::decode(bytes).unwrap();
            let code = packet.code.map_or(String::new(), |code| format!(" {code}"));
            let credits = packet.credits.map_or(String::new(), |credits| format!(" +{credits}"));
            let more = if packet.more { " more" } else { "" };
            let body = if packet.body.is_empty() { String::new() } else { format!(" [{}]", packet.body.len()) };
            format!("{to} {}{code}{credits}{body}{more}", packet.kind.name())
        };
        match self {
            Sent::Client(bytes) => describe("client:", bytes),
            Sent::Control(bytes) => {
                let packet = rpc::ws_control::Packet::decode(bytes).unwrap();
                let items = packet.items.iter().map(|item| {
                    let message = item.message.as_ref().map(|message| format!(" {}", message.escape_ascii()));
                    format!("{:?}{}", item.kind, message.unwrap_or_default())
                });
                format!("control: {}", items.collect::<Vec<_>>().join(", "))
            }
            Sent::Handler(bytes) => describe("handler:", bytes),
            Sent::Open(bytes) => describe("open:", bytes),
            Sent::Origin(bytes) => describe("origin:", bytes),
            Sent::Inspect(_) => "inspect".into(),
            Sent::Accept(_) => "accept".into(),
        }
    }
}

#[derive(Default)]
pub(super) struct Recorded {
    sent: Vec<Sent>,
    /// Lines for the log.
    pub(super) log: Vec<String>,
    /// Packets to the client or to the outbound process are not taken.
    pub(super) client_full: bool,
    /// The frontend has asked to be answered through its ROUTER.
    pub(super) by_router: bool,
    pub(super) origin_full: bool,
    pub(super) no_handler: bool,
    pub(super) no_outbound: bool,
}

pub(super) fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    packet.encode(None, &mut Writer::new(64)).to_vec()
}

impl Links for Recorded {
    fn log(&mut self, note: &Note<'_>) {
        self.log.push(match note {
            Note::Request(line) => line.to_string(),
            Note::Warning { kind, text } => format!("{kind}: {text}"),
        });
    }

    fn to_client(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        assert_eq!((to, by_router), (&b"front"[..], self.by_router));
        if !self.client_full {
            self.sent.push(Sent::Client(bytes(packet)));
        }
        !self.client_full
    }

    fn to_handler(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> bool {
        assert_eq!((to, by_router), (&b"handler"[..], true));
        self.sent.push(Sent::Handler(bytes(packet)));
        true
    }

    fn open_origin(&mut self, packet: &Packet<'_>) -> bool {
        if !self.no_outbound {
            self.sent.push(Sent::Open(bytes(packet)));
        }
        !self.no_outbound
    }

    fn open_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        assert_eq!(spec, "ipc://zmq");
        self.open_origin(packet)
    }

    fn ask_zmq(&mut self, spec: &str, packet: &Packet<'_>) -> bool {
        assert_eq!(spec, "ipc://zmq");
        self.open_origin(packet)
    }

    fn to_origin(&mut self, to: &[u8], packet: &Packet<'_>) -> bool {
        assert_eq!(to, b"out");
        if !self.origin_full {
            self.sent.push(Sent::Origin(bytes(packet)));
        }
        !self.origin_full
    }

    fn inspect(&mut self, call: &[u8]) -> bool {
        if !self.no_handler {
            self.sent.push(Sent::Inspect(from_slice(call).unwrap()));
        }
        !self.no_handler
    }

    fn control(&mut self, packet: &[u8]) -> bool {
        if !self.no_handler {
            self.sent.push(Sent::Control(packet.to_vec()));
        }
        !self.no_handler
    }

    fn accept(&mut self, call: &[u8]) -> bool {
        if !self.no_handler {
            self.sent.push(Sent::Accept(from_slice(call).unwrap()));
        }
        !self.no_handler
    }
}

/// Settings of a proxy that waits so long for the successor of a handler.
pub(super) fn config(recover_wait: Duration) -> Config {
    Config {
        sig_iss: "pushpin".into(),
        sig_key: Some(Key::Secret(b"changeme".to_vec())),
        max_open_requests: 10,
        log_requests: Some(|| true),
        session_queue_bytes: 1_000_000,
        session_queue_time: Duration::from_secs(5),
        recover_wait,
        max_message_size: 1_000_000,
        events_timeout: Duration::from_secs(60),
        ..Config::default()
    }
}

/// An engine between a frontend, an outbound process and a handler that are played by the test.
pub(super) struct Bench {
    pub(super) engine: Engine,
    pub(super) recorded: Recorded,
    pub(super) now: Instant,
    /// Number of the frontend's next packet, of the outbound side's next packet, and the id it answers to.
    pub(super) client_seq: u32,
    pub(super) origin_seq: u32,
    pub(super) origin_id: Vec<u8>,
    pub(super) call_id: Vec<u8>,
}

impl Bench {
    pub(super) fn new(routes: &str) -> Self {
        Bench::waiting(routes, Duration::from_secs(10))
    }

    /// One whose proxy waits so long for the successor of a handler.
    pub(super) fn waiting(routes: &str, recover_wait: Duration) -> Self {
        let (routes, warnings) = Table::parse(routes.as_bytes(), "routes", &());
        assert!(warnings.is_empty(), "{warnings:?}");
        let now = Instant::now();
        let engine = Engine::new("proxy_1", config(recover_wait), Arc::new(routes), now, 1_000_000);
        let mut bench = Bench {
            engine,
            recorded: Recorded::default(),
            now,
            client_seq: 0,
            origin_seq: 0,
            origin_id: Vec::new(),
            call_id: Vec::new(),
        };
        // As our handler says it: it need not be asked.
        bench.reply(
            "inspect",
            b"0-0",
            "success",
            &value(&[("no-proxy", Value::Bool(false)), ("inspect-again", Value::Int(60_000))]),
        );
        bench
    }

    /// A bench whose handler wants to be asked each time, as originals do.
    pub(super) fn asking(routes: &str) -> Self {
        let mut bench = Bench::new(routes);
        bench.reply("inspect", b"0-0", "success", &value(&[("no-proxy", Value::Bool(false))]));
        bench
    }

    /// What has been sent since the last look, described.
    pub(super) fn sent(&mut self) -> Vec<String> {
        self.take().iter().map(Sent::name).collect()
    }

    /// What has been sent since the last look. Takes note of whom to answer.
    pub(super) fn take(&mut self) -> Vec<Sent> {
        for sent in &self.recorded.sent {
            match sent {
                Sent::Open(bytes) => {
                    self.origin_id = Packet::decode(bytes).unwrap().ids.single().unwrap().0.to_vec();
                    self.origin_seq = 0;
                }
                Sent::Inspect(call) | Sent::Accept(call) => {
                    let Some(Value::Bytes(id)) = call.get(b"id") else { panic!("a call without id") };
                    self.call_id = id.clone();
                }
                _ => {}
            }
        }
        std::mem::take(&mut self.recorded.sent)
    }

    /// What has been sent since the last look, as it is.
    pub(super) fn raw(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.recorded.sent)
    }

    /// The frontend wants to be answered through its ROUTER.
    pub(super) fn by_router(&mut self) {
        self.recorded.by_router = true;
    }

    /// As if it had not been looked at.
    pub(super) fn put_back(&mut self, sent: Sent) {
        self.recorded.sent.push(sent);
    }

    /// The first packet from the outbound side to the request of this id.
    pub(super) fn origin_answers(&mut self, id: &[u8], packet: Packet<'_>) {
        let packet = Packet { from: b"out", ids: Ids::One(id, Some(0)), ..packet };
        self.engine.origin_packet(&bytes(&packet), self.now, &mut self.recorded);
    }

    pub(super) fn request(&mut self, packet: Packet<'_>) {
        let packet = Packet {
            from: b"front",
            ids: Ids::One(b"1", Some(0)),
            ext: zhttp::Ext { multi: true, ..packet.ext },
            stream: true,
            credits: packet.credits.or(Some(8192)),
            method: packet.method.or(Some(b"GET")),
            uri: packet.uri.or(Some(b"http://h/path")),
            headers: if packet.headers == Headers::Absent {
                Headers::Pairs(&[(b"Host", b"h")])
            } else {
                packet.headers
            },
            ..packet
        };
        self.client_seq = 1;
        self.engine.request(&bytes(&packet), self.now, &mut self.recorded);
    }

    pub(super) fn client(&mut self, packet: Packet<'_>) {
        let packet = Packet { from: b"front", ids: Ids::One(b"1", Some(self.client_seq)), ..packet };
        self.client_seq += 1;
        self.engine.client_packet(&bytes(&packet), self.now, &mut self.recorded);
    }

    pub(super) fn origin(&mut self, packet: Packet<'_>) {
        let packet = Packet { from: b"out", ids: Ids::One(&self.origin_id, Some(self.origin_seq)), ..packet };
        self.origin_seq += 1;
        self.engine.origin_packet(&bytes(&packet), self.now, &mut self.recorded);
    }

    pub(super) fn reply(&mut self, to: &str, id: &[u8], condition: &str, value: &Value) {
        let mut reply = vec![
            (b"id".to_vec(), Value::Bytes(id.to_vec())),
            (b"success".to_vec(), Value::Bool(condition == "success")),
            (b"value".to_vec(), value.clone()),
        ];
        reply.push((b"condition".to_vec(), Value::Bytes(condition.as_bytes().to_vec())));
        let message = tnetstring::to_vec(&Value::Map(reply)).unwrap();
        match to {
            "inspect" => self.engine.inspect_reply(&message, self.now, &mut self.recorded),
            _ => self.engine.accept_reply(&message, self.now, &mut self.recorded),
        }
    }

    pub(super) fn verdict(&mut self, condition: &str, value: &Value) {
        let id = self.call_id.clone();
        self.reply("accept", &id, condition, value);
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.engine.on_timer(self.now, &mut self.recorded);
    }

    pub(super) fn outbound_leaves(&mut self) {
        self.engine.outbound_left(b"out", self.now, &mut self.recorded);
    }

    /// Brings a request to where the handler is asked to accept it.
    pub(super) fn until_accept(&mut self) {
        self.request(Packet::default());
        self.sent();
        self.origin(grip_response("response", b"timeout\n", false));
        assert_eq!(self.sent(), ["client: handoff-start"]);
        self.client(Packet { kind: Kind::HandoffProceed, ..Packet::default() });
    }
}

pub(super) fn value(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.clone())).collect())
}

pub(super) fn ok(body: &[u8], more: bool) -> Packet<'_> {
    Packet { code: Some(200), reason: Some(b"OK"), headers: Headers::Pairs(&[]), body, more, ..Packet::default() }
}

pub(super) fn data(body: &[u8], more: bool) -> Packet<'_> {
    Packet { body, more, ..Packet::default() }
}

pub(super) fn credit(credits: u32) -> Packet<'static> {
    Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }
}

pub(super) fn error(condition: &[u8]) -> Packet<'_> {
    Packet { kind: Kind::Error, condition: Some(condition), ..Packet::default() }
}

pub(super) fn cancel() -> Packet<'static> {
    Packet { kind: Kind::Cancel, ..Packet::default() }
}

pub(super) fn grip_response<'a>(mode: &str, body: &'a [u8], more: bool) -> Packet<'a> {
    let headers: &[(&[u8], &[u8])] = match mode {
        "stream" => &[(b"Grip-Hold", b"stream"), (b"Grip-Channel", b"c"), (b"Content-Length", b"150000")],
        _ => &[(b"Grip-Hold", b"response"), (b"Grip-Channel", b"c")],
    };
    Packet { headers: Headers::Pairs(headers), ..ok(body, more) }
}
