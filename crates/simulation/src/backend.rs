// SPDX-License-Identifier: AGPL-3.0-or-later
//! The outbound process together with the backends behind it: a session of zhttp for each request, answered by its path.
//!
//! - `/plain/N`: N bytes. `/upload/N`: the length of the body, which should be N. `/both/N`: N bytes at once, while a
//!   body of N bytes comes.
//! - `/stream/a,b`: held as a stream on the channels a and b. `/poll/a`: held for one message.
//! - `/reliable/N`: the items of the channel r after N, from the backend's own store; held if there are none.
//! - `/socket/ID/a,b`: events of a WebSocket ([`conversations`](crate::conversations)).

use std::collections::BTreeMap;
use std::time::Instant;

use tnetstring::Writer;
use zhttp::session::server::{Due, Outcome, Session};
use zhttp::{Ext, Headers, Ids, Kind, Packet, PeerId, Peers};

use crate::conversations::{Asked, Conversations};
use crate::net::{Lane, Net, Part};

/// Request bytes that are granted at a time.
const WINDOW: u32 = 1_000;

/// A session by the proxy that has opened it and the name that this has given to it.
type Key = (PeerId, Vec<u8>);

struct Exchange {
    session: Session,
    path: String,
    /// What the proxy says the client has of the channel r.
    last: Option<u64>,
    /// What it says of a WebSocket.
    asked: Asked,
    body: Vec<u8>,
    answer: Option<Answer>,
}

struct Answer {
    headers: Vec<(String, String)>,
    head_sent: bool,
    body: Vec<u8>,
    sent: usize,
}

/// See the module.
pub struct Backend {
    name: Vec<u8>,
    peers: Peers,
    exchanges: BTreeMap<Key, Exchange>,
    /// WebSockets.
    pub conversations: Conversations,
    /// Items of the channel r that are stored.
    pub stored: u64,
}

/// The body of a plain response.
pub fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'a' + (i % 26) as u8).collect()
}

impl Backend {
    /// A backend with nothing to do.
    pub fn new(name: &[u8]) -> Self {
        Backend {
            name: name.to_vec(),
            peers: Peers::default(),
            exchanges: BTreeMap::new(),
            conversations: Conversations::default(),
            stored: 0,
        }
    }

    /// Another outbound process in front of the same backend.
    pub fn succeed(self, name: &[u8]) -> Self {
        Backend { conversations: self.conversations, stored: self.stored, ..Backend::new(name) }
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    fn send(&self, (client, id): &Key, seq: u32, packet: Packet<'_>, net: &mut Net) {
        let packet = Packet { from: &self.name, ids: Ids::One(id, Some(seq)), ext: Ext::MULTI, ..packet };
        if let Some(proxy) = net.part(self.peers.name(*client)) {
            net.send(Part::Backend, proxy, Lane::Published, packet.encode(None, &mut Writer::new(1024)));
        }
    }

    /// A packet of the proxy.
    pub fn on_packet(&mut self, lane: Lane, message: &[u8], now: Instant, net: &mut Net) {
        let packet = Packet::decode(message).expect("the proxy sends packets");
        let Some(client) = self.peers.intern(packet.from) else { panic!("a packet without a sender") };
        if lane == Lane::First {
            let (id, _) = packet.ids.single().expect("a first packet has one id");
            let session = Session::open(&packet, client, WINDOW, now).expect("the proxy opens sessions well");
            let uri = String::from_utf8_lossy(packet.uri.unwrap_or_default()).into_owned();
            let path = uri.splitn(4, '/').nth(3).unwrap_or_default().to_string();
            let last = packet.headers.get("Grip-Last").and_then(|value| std::str::from_utf8(value).ok());
            let last = last.and_then(|value| value.strip_prefix("r; last-id=")?.parse().ok());
            let header = |name| packet.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
            let asked = Asked {
                name: header("Connection-Id").unwrap_or_default(),
                uncertain: header("Content-Bytes-Uncertain").map(|bytes| bytes.parse().expect("a number of bytes")),
            };
            let exchange = Exchange { session, path, last, asked, body: packet.body.to_vec(), answer: None };
            let key = (client, id.to_vec());
            let former = self.exchanges.insert(key.clone(), exchange);
            assert!(former.is_none(), "the proxy uses an id twice");
            return self.go_on(&key, net);
        }
        for (id, seq) in packet.ids.iter().map(|id| id.expect("the proxy sends good ids")) {
            let key = (client, id.to_vec());
            let Some(exchange) = self.exchanges.get_mut(&key) else { continue };
            match exchange.session.on_packet(&packet, seq, now) {
                Ok(Outcome::Ended) => drop(self.exchanges.remove(&key)),
                Ok(Outcome::Data) => {
                    exchange.body.extend_from_slice(packet.body);
                    exchange.session.pass_on(packet.body.len());
                    self.go_on(&key, net);
                }
                Ok(_) => self.go_on(&key, net),
                Err(violation) => panic!("the proxy broke the rules: {violation}; {packet:?}"),
            }
        }
    }

    /// Grants, and answers what is complete.
    fn go_on(&mut self, key: &Key, net: &mut Net) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if let Some(credits) = exchange.session.grant() {
            let seq = exchange.session.send().seq;
            self.send(key, seq, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, net);
        }
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if !exchange.session.is_complete() && !exchange.path.starts_with("both") {
            return;
        }
        let (stored, conversations) = (self.stored, &mut self.conversations);
        let Exchange { path, last, asked, body, .. } = &*exchange;
        let made = match exchange.answer {
            Some(_) => None,
            None => Some(answer(path, *last, asked, body, stored, conversations)),
        };
        let answer = exchange.answer.get_or_insert_with(|| made.expect("it was made"));
        let mut packets = Vec::new();
        loop {
            let count = (answer.body.len() - answer.sent).min(exchange.session.credits() as usize);
            let more = answer.sent + count < answer.body.len();
            if answer.head_sent && count == 0 && more {
                break;
            }
            let seq = exchange.session.send_body(count).seq;
            packets.push((
                seq,
                !std::mem::replace(&mut answer.head_sent, true),
                answer.sent..answer.sent + count,
                more,
            ));
            answer.sent += count;
            if !more {
                break;
            }
        }
        let over = packets.last().is_some_and(|(.., more)| !more);
        if packets.is_empty() {
            return;
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let Some(answer) = &exchange.answer else { return };
        let headers: Vec<(&[u8], &[u8])> =
            answer.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        for (seq, head, range, more) in packets {
            let packet = Packet { body: &answer.body[range], more, ..Packet::default() };
            let packet = match head {
                true => Packet { code: Some(200), reason: Some(b"OK"), headers: Headers::Pairs(&headers), ..packet },
                false => packet,
            };
            self.send(key, seq, packet, net);
        }
        if over {
            self.exchanges.remove(key);
        }
    }

    /// A proxy is gone, and nobody wants its answers any more.
    pub fn on_left(&mut self, name: &[u8]) {
        let client = self.peers.find(name);
        self.exchanges.retain(|(known, _), _| Some(*known) != client);
    }

    /// When something is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.exchanges.values().map(|exchange| exchange.session.next_due()).min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net) {
        let keys: Vec<Key> = self.exchanges.keys().cloned().collect();
        for key in keys {
            while let Some(exchange) = self.exchanges.get_mut(&key) {
                match exchange.session.on_timer(now) {
                    Due::Nothing => break,
                    Due::KeepAlive(to) => {
                        self.send(&key, to.seq, Packet { kind: Kind::KeepAlive, ..Packet::default() }, net);
                    }
                    Due::Expired | Due::Spent => drop(self.exchanges.remove(&key)),
                }
            }
        }
    }
}

fn answer(
    path: &str,
    last: Option<u64>,
    asked: &Asked,
    body: &[u8],
    stored: u64,
    conversations: &mut Conversations,
) -> Answer {
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    let header = |name: &str, value: &str| (name.to_string(), value.to_string());
    let (headers, body) = match kind {
        "plain" | "both" => (Vec::new(), plain(rest.parse().expect("a path has a length"))),
        "upload" => (Vec::new(), body.len().to_string().into_bytes()),
        "socket" => conversations.answer(rest.split_once('/').map_or("", |(_, channels)| channels), asked, body),
        "stream" => {
            let channels = rest.split(',').map(|channel| header("Grip-Channel", channel));
            let mut headers = vec![header("Grip-Hold", "stream"), header("Grip-Keep-Alive", "~;timeout=20")];
            headers.extend(channels);
            (headers, b"hello;".to_vec())
        }
        "poll" => {
            let headers =
                vec![header("Grip-Hold", "response"), header("Grip-Channel", rest), header("Grip-Timeout", "30")];
            (headers, b"timeout;".to_vec())
        }
        "reliable" => {
            let last = last.unwrap_or_else(|| rest.parse().expect("a path has a number"));
            let channel = format!("r; prev-id={last}");
            let headers =
                vec![header("Grip-Hold", "response"), header("Grip-Channel", &channel), header("Grip-Timeout", "30")];
            match last < stored {
                true => (Vec::new(), format!("{},{stored};", last + 1).into_bytes()),
                false => (headers, b"timeout;".to_vec()),
            }
        }
        _ => panic!("nobody asks for {path}"),
    };
    Answer { headers, head_sent: false, body, sent: 0 }
}
