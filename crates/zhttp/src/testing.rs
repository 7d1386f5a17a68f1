// SPDX-License-Identifier: AGPL-3.0-or-later
//! Two sessions joined by an imaginary wire, and a clock that is turned by hand.
//!
//! A [`Pair`] is both ends of one session, each with an application behind it: the client's sends a request body and
//! takes the response, the server's the other way round. Packets are written and read for real. What is on the wire can
//! be lost, repeated and put out of order. The applications check every byte that comes, so that a gap which the
//! sessions let through is found.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tnetstring::Writer;

use crate::session::client::{self, Grant};
use crate::session::{HandedOver, Protocol, Violation, server};
use crate::{Id, Ids, Kind, Packet, PeerId, Peers};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Of the request.
    ToServer,
    /// Of the response.
    ToClient,
}

/// How one end has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response is complete.
    Complete,
    /// The other end said so.
    Told,
    /// The other end broke the rules.
    Broken(Violation),
    /// The other end was silent.
    Expired,
    /// The numbers are used up.
    Spent,
    /// The application behind it wanted so.
    Cancelled,
}

/// Bytes that an application still sends, and how many have come to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that wait for credits.
    pub waiting: usize,
    /// Nothing comes after them.
    pub last: bool,
    /// The other side has been told so.
    pub last_sent: bool,
    /// Bytes sent.
    pub sent: usize,
    /// Bytes received.
    pub received: usize,
    /// Received, and not passed on by the application.
    pub held: usize,
    /// The application does not pass anything on.
    pub stalled: bool,
}

/// The byte at a place of a body.
fn byte(place: usize) -> u8 {
    (place % 251) as u8
}

impl Traffic {
    fn take(&mut self, credits: usize) -> Option<(Vec<u8>, bool)> {
        let count = self.waiting.min(credits);
        let more = !self.last || count < self.waiting;
        if self.last_sent || (count == 0 && more) {
            return None;
        }
        let body = (self.sent..self.sent + count).map(byte).collect();
        self.waiting -= count;
        self.sent += count;
        self.last_sent = !more;
        Some((body, more))
    }

    fn receive(&mut self, body: &[u8]) {
        for (i, &got) in body.iter().enumerate() {
            assert_eq!(got, byte(self.received + i), "byte {} of a body is another than was sent", self.received + i);
        }
        self.received += body.len();
        self.held += body.len();
    }

    fn pass_on(&mut self) -> usize {
        if self.stalled { 0 } else { std::mem::take(&mut self.held) }
    }
}

/// The two ends of a session. Window sizes are the same both ways.
pub struct Pair {
    /// The end that has sent the first packet.
    pub client: client::Session,
    /// The end that answers.
    pub server: server::Session,
    /// How they have ended, if they have.
    pub client_end: Option<End>,
    /// See [`Pair::client_end`].
    pub server_end: Option<End>,
    /// Behind the client.
    pub client_app: Traffic,
    /// Behind the server.
    pub server_app: Traffic,
    /// The clock.
    pub now: Instant,
    /// Packets under way.
    to_server: VecDeque<Vec<u8>>,
    to_client: VecDeque<Vec<u8>>,
    /// Packets that were sent, by type, since the beginning.
    pub sent: Vec<(Way, Kind)>,
    peers: Peers,
    server_names: u32,
    server_name: Vec<u8>,
    id: Id,
    writer: Writer,
    head_sent: bool,
}

const CLIENT: &[u8] = b"front";

impl Pair {
    /// A request without a body, for which up to `window` bytes may come, as it has come to the server.
    pub fn get(window: u32) -> Self {
        Pair::open(window, false)
    }

    /// A request with a body.
    pub fn post(window: u32) -> Self {
        Pair::open(window, true)
    }

    // Any time will do to begin with; from here on it is turned by hand.
    #[allow(clippy::disallowed_methods)]
    fn open(window: u32, more: bool) -> Self {
        let (now, mut peers) = (Instant::now(), Peers::default());
        let id = Id::indexed(1, 2);
        let packet = Packet {
            from: CLIENT,
            ids: Ids::One(id.as_bytes(), Some(0)),
            uri: Some(b"http://h/"),
            credits: Some(window),
            more,
            stream: true,
            ext: crate::Ext::MULTI,
            ..Packet::default()
        };
        let client_peer = peers.intern(CLIENT).expect("the table is empty");
        let server = server::Session::open(&packet, client_peer, window, now).expect("the packet opens a session");
        let mut pair = Pair {
            client: client::Session::start(Protocol::Http, window, now),
            server,
            client_end: None,
            server_end: None,
            client_app: Traffic { last: !more, last_sent: !more, ..Traffic::default() },
            server_app: Traffic::default(),
            now,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            sent: Vec::new(),
            peers,
            server_names: 0,
            server_name: b"server0".to_vec(),
            id,
            writer: Writer::new(256),
            head_sent: false,
        };
        if more {
            pair.grant_client();
        }
        pair
    }

    fn post_to_server(&mut self, to: client::Outgoing, packet: Packet<'_>) {
        let ids = Ids::One(self.id.as_bytes(), Some(to.seq));
        self.sent.push((Way::ToServer, packet.kind));
        let packet = Packet { from: CLIENT, ids, ..packet };
        // What goes to a former owner gets lost, as on the real wire it would come to somebody who ignores it.
        if self.peers.find(&self.server_name) == Some(to.to) {
            self.to_server.push_back(packet.encode(None, &mut self.writer).to_vec());
        }
    }

    fn post_to_client(&mut self, to: server::Outgoing, packet: Packet<'_>) {
        self.sent.push((Way::ToClient, packet.kind));
        let packet = Packet { from: &self.server_name, ids: Ids::One(self.id.as_bytes(), Some(to.seq)), ..packet };
        self.to_client.push_back(packet.encode(None, &mut self.writer).to_vec());
    }

    /// The client's application sends `bytes` of the request, and nothing after them if `last`.
    pub fn upload(&mut self, bytes: usize, last: bool) {
        self.client_app.waiting += bytes;
        self.client_app.last |= last;
        self.pump_client();
    }

    /// The server's application sends `bytes` of the response, and nothing after them if `last`.
    pub fn respond(&mut self, bytes: usize, last: bool) {
        self.server_app.waiting += bytes;
        self.server_app.last |= last;
        self.pump_server();
    }

    fn pump_client(&mut self) {
        while self.client_end.is_none()
            && self.client.server().is_some()
            && let Some((body, more)) = self.client_app.take(self.client.credits() as usize)
            && let Some(to) = self.client.send_body(body.len())
        {
            self.post_to_server(to, Packet { body: &body, more, ..Packet::default() });
        }
    }

    fn pump_server(&mut self) {
        while self.server_end.is_none()
            && self.server.is_ours()
            && let Some((body, more)) = self.server_app.take(self.server.credits() as usize)
        {
            let to = self.server.send_body(body.len());
            let code = (!std::mem::replace(&mut self.head_sent, true)).then_some(200);
            self.post_to_client(to, Packet { body: &body, more, code, ..Packet::default() });
            if !more {
                self.server_end = Some(End::Complete);
            }
        }
    }

    fn grant_client(&mut self) {
        if self.server.is_ours()
            && let Some(credits) = self.server.grant()
        {
            let to = self.server.send();
            self.post_to_client(to, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
        }
    }

    /// The client's application passes on again what it has got.
    pub fn drain_client(&mut self) {
        self.client_app.stalled = false;
        self.client_passes_on();
    }

    fn client_passes_on(&mut self) {
        let bytes = self.client_app.pass_on();
        if self.client_end.is_some() {
            return;
        }
        if let Grant::Now(to, credits) = self.client.pass_on(bytes, self.now) {
            self.post_to_server(to, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
        }
    }

    /// The server wants to give the session away.
    pub fn offer(&mut self) {
        let to = self.server.offer();
        self.post_to_client(to, Packet { kind: Kind::HandoffStart, ..Packet::default() });
    }

    /// Another server takes the session over, and says so.
    pub fn take_over(&mut self, state: &HandedOver) {
        self.server_names += 1;
        self.server_name = format!("server{}", self.server_names).into_bytes();
        self.server = server::Session::take_over(state, self.now);
        let to = self.server.send();
        self.post_to_client(to, Packet { kind: Kind::KeepAlive, ..Packet::default() });
    }

    /// One end gives up, and tells the other if it can.
    pub fn cancel(&mut self, way: Way) {
        match way {
            Way::ToServer => self.end_client(End::Cancelled),
            Way::ToClient => self.end_server(End::Cancelled),
        }
    }

    fn end_client(&mut self, end: End) {
        if self.client_end.replace(end).is_none()
            && let Some(to) = self.client.send()
        {
            self.post_to_server(to, Packet { kind: Kind::Cancel, ..Packet::default() });
        }
    }

    fn end_server(&mut self, end: End) {
        if self.server_end.replace(end).is_none() && self.server.is_ours() {
            let to = self.server.send();
            self.post_to_client(to, Packet { kind: Kind::Cancel, ..Packet::default() });
        }
    }

    /// Packets under way.
    pub fn under_way(&mut self, way: Way) -> &mut VecDeque<Vec<u8>> {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }

    /// Loses the first packet of a type that is under way. `false` if there is none.
    pub fn lose(&mut self, way: Way, kind: Kind) -> bool {
        let wire = self.under_way(way);
        let found = wire.iter().position(|bytes| Packet::decode(bytes).is_ok_and(|packet| packet.kind == kind));
        found.and_then(|place| wire.remove(place)).is_some()
    }

    /// Delivers the next packet of a way. `false` if there is none.
    pub fn deliver(&mut self, way: Way) -> bool {
        let Some(bytes) = self.under_way(way).pop_front() else { return false };
        let packet = Packet::decode(&bytes).expect("only packets are on the wire");
        let seq = packet.ids.single().and_then(|(_, seq)| seq);
        match way {
            Way::ToServer => self.at_server(&packet, seq),
            Way::ToClient => self.at_client(&packet, seq),
        }
        true
    }

    fn at_server(&mut self, packet: &Packet<'_>, seq: Option<u32>) {
        if self.server_end.is_some() {
            return;
        }
        match self.server.on_packet(packet, seq, self.now) {
            Err(violation) => return self.end_server(End::Broken(violation)),
            Ok(server::Outcome::Ended) => return self.server_end = Some(End::Told),
            Ok(server::Outcome::Data) => {
                self.server_app.receive(packet.body);
                let bytes = self.server_app.pass_on();
                if self.server.pass_on(bytes) {
                    self.grant_client();
                }
            }
            Ok(_) => {}
        }
        self.pump_server();
    }

    fn at_client(&mut self, packet: &Packet<'_>, seq: Option<u32>) {
        if self.client_end.is_some() {
            return;
        }
        let from = self.peers.intern(packet.from);
        match self.client.on_packet(packet, from, seq, self.now) {
            Err(violation) => return self.end_client(End::Broken(violation)),
            Ok(client::Outcome::Ended) => return self.client_end = Some(End::Told),
            Ok(client::Outcome::HandOff(to)) => {
                self.post_to_server(to, Packet { kind: Kind::HandoffProceed, ..Packet::default() });
            }
            Ok(client::Outcome::Data) => {
                self.client_app.receive(packet.body);
                if !packet.more {
                    return self.client_end = Some(End::Complete);
                }
                self.client_passes_on();
            }
            Ok(client::Outcome::Alive) => self.client_passes_on(),
            Ok(_) => {}
        }
        self.pump_client();
    }

    /// Delivers until nothing is under way.
    pub fn drive(&mut self) {
        while self.deliver(Way::ToServer) | self.deliver(Way::ToClient) {}
    }

    /// Lets time pass, delivering all the while.
    pub fn advance(&mut self, time: Duration) {
        self.pass(time, Self::drive);
    }

    /// Lets time pass while nothing that is sent arrives.
    pub fn advance_cut_off(&mut self, time: Duration) {
        self.pass(time, |pair| {
            pair.to_server.clear();
            pair.to_client.clear();
        });
    }

    fn pass(&mut self, time: Duration, mut meanwhile: impl FnMut(&mut Self)) {
        let until = self.now + time;
        meanwhile(self);
        for _ in 0..100_000 {
            let client = self.client_end.is_none().then(|| self.client.next_due());
            let grant = self.client.grant_due().filter(|_| self.client_end.is_none());
            let server = self.server_end.is_none().then(|| self.server.next_due());
            let Some(due) = client.into_iter().chain(grant).chain(server).min().filter(|&due| due <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(due);
            self.ring();
            meanwhile(self);
        }
        panic!("something is always due and nothing comes of it");
    }

    fn ring(&mut self) {
        while self.client_end.is_none() {
            match self.client.on_timer(self.now) {
                client::Due::Nothing => break,
                client::Due::KeepAlive(to) => {
                    self.post_to_server(to, Packet { kind: Kind::KeepAlive, ..Packet::default() });
                }
                client::Due::Expired => self.client_end = Some(End::Expired),
                client::Due::Spent => self.end_client(End::Spent),
            }
        }
        if self.client_end.is_none()
            && self.client.grant_due().is_some_and(|due| due <= self.now)
            && let Some((to, credits)) = self.client.grant()
        {
            self.post_to_server(to, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
        }
        while self.server_end.is_none() {
            match self.server.on_timer(self.now) {
                server::Due::Nothing => break,
                server::Due::KeepAlive(to) => {
                    self.post_to_client(to, Packet { kind: Kind::KeepAlive, ..Packet::default() });
                }
                server::Due::Expired => self.server_end = Some(End::Expired),
                server::Due::Spent => self.end_server(End::Spent),
            }
        }
    }

    /// Whether both ends know that the session is over.
    pub fn is_over(&self) -> bool {
        self.client_end.is_some() && self.server_end.is_some()
    }

    /// How many packets of a type have been sent on a way.
    pub fn count(&self, way: Way, kind: Kind) -> usize {
        self.sent.iter().filter(|&&sent| sent == (way, kind)).count()
    }

    /// The table of names, to write a session down and to read it again.
    pub fn peers(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// The instance that the client's packets come from.
    pub fn client_peer(&self) -> Option<PeerId> {
        self.peers.find(CLIENT)
    }
}
