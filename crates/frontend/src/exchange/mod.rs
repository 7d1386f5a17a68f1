// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges: one request and its response, as a ZHTTP session (ZHTTP, session life cycle).
//!
//! An exchange knows numbers, credits and whom to talk to; it knows nothing of connections or of HTTP's syntax. Its id
//! names its place in the table of exchanges, so that a connection may have as many as its protocol allows.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod keeping;
mod moving;
#[cfg(test)]
pub(crate) mod opened;
mod replaying;
mod table;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tnetstring::Writer;
use wire::http1::{RequestHead, Version};
use wire::request_id::{self, REQUEST_ID};
use zhttp::session::client::{Due, Grant, Outcome, Outgoing, Session, Standing};
use zhttp::session::{Protocol, Violation};
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet, PeerId};

pub use self::table::{Exchanges, Sweep};
use crate::keep::underway::Underway;
use crate::keep::{Hand, Kept};
use crate::replay::{KeptRequest, Replays};
use crate::uplink::Uplink;

/// How long the server of a response that the client has got already may take to end it.
const ENDING: Duration = Duration::from_secs(1);

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    slot: u32,
    /// Part of the id, never used twice.
    serial: u64,
    audience: Audience,
    session: Session,
    /// What is kept for its server.
    pub(crate) kept: Kept,
    /// The request, as long as it can be sent again.
    request: Option<Box<KeptRequest>>,
    /// Of a WebSocket whose proxy leaves records.
    underway: Option<Box<Underway>>,
    /// When it was opened, until its response begins; not known of those of a predecessor.
    begun: Option<NonZeroU32>,
}

/// Who waits for the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// The client in this slot.
    Client(u32),
    /// The client has got all that it can get; the server has until then to end the session by itself.
    Served(Instant),
    /// The client of a WebSocket is gone, without a close or behind one. That is kept until the proxy says that the backend knows.
    Left { closed: bool },
}

/// What a packet means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing, or more credits for the request's body.
    Nothing,
    /// A part of the response.
    Data,
    /// A WebSocket's close, ping or pong.
    Control,
    /// The server has given up.
    Failed,
}

/// Why an exchange is over, as far as its server is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The server was silent for too long; it is not told.
    Expired,
    /// It is to be cancelled: the client was served long ago, or the session has no numbers left.
    Unwanted,
    /// The same because who pushes into it was silent for too long.
    Unpushed,
}

/// Whether the server is owed credits that are worth a packet of their own only in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing, or they have been granted.
    Nothing,
    /// Grant them in a while, if the session goes quiet.
    Later,
}

/// What the first packet of a session says beside the head.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The client's slot.
    pub client: u32,
    /// The client's address; none on a Unix socket.
    pub peer: Option<std::net::SocketAddr>,
    /// The client came with TLS.
    pub tls: bool,
    /// The request.
    pub head: &'a RequestHead<'a>,
    /// A body follows.
    pub body: bool,
    /// It is for a WebSocket.
    pub websocket: bool,
    /// A second server may push frames into it.
    pub lanes: bool,
    /// A successor of the proxy may go on with it.
    pub recovers: bool,
    /// Body bytes that the server may send.
    pub window: u32,
    /// The server is to answer through the ROUTER.
    pub router_resp: bool,
}

/// An address as text. That of version 4 is written by hand: std's formatting of it was a twelfth of the process's work.
fn text(address: IpAddr) -> Vec<u8> {
    let IpAddr::V4(address) = address.to_canonical() else { return address.to_string().into_bytes() };
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push(b'.');
        }
        text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
    text
}

impl Exchange {
    fn open(
        slot: u32,
        serial: u64,
        opening: &Opening<'_>,
        name: Option<&str>,
        replays: &mut Replays,
        now: Instant,
        up: &mut dyn Uplink,
    ) -> Self {
        let head = opening.head;
        let mut uri = Vec::with_capacity(256);
        let scheme = match (opening.websocket, opening.tls) {
            (false, false) => "http",
            (false, true) => "https",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        head.write_uri(scheme, &mut uri);
        let mut headers: Vec<(&[u8], &[u8])> =
            head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        if let Some(name) = name
            && request_id::of(headers.iter().copied()).is_none()
        {
            // One that is no name would hide ours.
            headers.retain(|(name, _)| !name.eq_ignore_ascii_case(REQUEST_ID.as_bytes()));
            headers.push((REQUEST_ID.as_bytes(), name.as_bytes()));
        }
        let address = opening.peer.map(|peer| text(peer.ip()));
        let id = Id::indexed(slot, serial);
        let packet = Packet {
            ids: Ids::One(id.as_bytes(), Some(0)),
            method: Some(head.method.as_bytes()),
            uri: Some(&uri),
            headers: if headers.is_empty() { Headers::Absent } else { Headers::Pairs(&headers) },
            credits: Some(opening.window),
            more: opening.body,
            stream: !opening.websocket,
            router_resp: opening.router_resp,
            ext: Ext {
                adopt: true,
                interim: !opening.websocket && head.version == Version::Http11,
                lanes: opening.lanes,
                had: opening.recovers.then_some(0),
                ..Ext::MULTI
            },
            peer_address: address.as_deref(),
            peer_port: opening.peer.map(|peer| peer.port()),
            ..Packet::default()
        };
        let waiting = match up.is_connected() || !replays.are_kept() {
            true => None,
            false => replays.keep(packet.encode(None, &mut Writer::new(1024)), &packet),
        };
        let request = match waiting {
            Some(mut request) => {
                request.waits = true;
                replays.wait(slot, serial, now);
                Some(request)
            }
            None => replays.keep(up.open(&packet), &packet),
        };
        Exchange {
            slot,
            serial,
            audience: Audience::Client(opening.client),
            kept: Kept::default(),
            request,
            underway: None,
            begun: None,
            session: Session::start(
                if opening.websocket { Protocol::WebSocket } else { Protocol::Http },
                opening.window,
                now,
            ),
        }
    }

    /// The session's id.
    pub fn id(&self) -> Id {
        Id::indexed(self.slot, self.serial)
    }

    /// Its place in the table.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The serial number of the id.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The client that waits for the response.
    pub fn client(&self) -> Option<u32> {
        match self.audience {
            Audience::Client(client) => Some(client),
            Audience::Served(_) | Audience::Left { .. } => None,
        }
    }

    /// Request body that may be sent now, in bytes: none while the server is not known or changes.
    pub fn credits(&self) -> u32 {
        if self.is_behind() || self.is_behind_again() { 0 } else { self.session.credits() }
    }

    /// The server that sent the last packet, unless another one is about to follow it.
    pub fn server(&self) -> Option<PeerId> {
        self.session.server()
    }

    /// Whether the server that sent the last packet is this one.
    pub fn is_served_by(&self, peer: PeerId) -> bool {
        self.session.server() == Some(peer)
    }

    /// Whether another server has the session, and does not give it away.
    pub fn is_of_another(&self, peer: PeerId) -> bool {
        self.session.server().is_some_and(|server| server != peer)
    }

    /// Whether this server pushes into the session, beside its own server.
    pub fn is_pushed_by(&self, peer: PeerId) -> bool {
        self.session.second_server() == Some(peer)
    }

    /// Packets of the session's own server that have come.
    pub fn received(&self) -> u32 {
        self.session.received()
    }

    /// Whether there is a server to talk to: one has answered, and is not about to be followed by another.
    pub fn has_server(&self) -> bool {
        self.session.server().is_some()
    }

    /// Whether frames can be sent: there is a server, and nothing has to be sent to it before.
    pub fn takes_frames(&self) -> bool {
        self.has_server() && !self.is_behind_again()
    }

    /// Whether its server has ended, and a successor may take it up.
    pub fn is_orphan(&self) -> bool {
        self.kept.orphan != 0
    }

    /// Numbers and credits, as a successor of its server must know them.
    pub(crate) fn standing(&self) -> Standing {
        self.session.standing()
    }

    /// Takes note of a packet.
    ///
    /// # Errors
    /// The packet breaks the rules; the session can not go on.
    pub fn receive(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
        up: &mut dyn Uplink,
    ) -> Result<Event, Violation> {
        let was_known = self.has_server();
        let outcome = self.session.on_packet(packet, from, seq, now)?;
        let was_orphan = std::mem::take(&mut self.kept.orphan) != 0;
        if self.kept.hand == Hand::Giving {
            let goes_on = was_orphan && self.has_server();
            self.kept.hand = if goes_on { Hand::Own } else { Hand::Former };
        }
        self.note_outcome(outcome, packet.ext.replay);
        if !self.count(packet, was_orphan, up) {
            return Ok(Event::Failed);
        }
        Ok(match outcome {
            Outcome::Alive => {
                if !was_known {
                    // What was written during a hand-off.
                    self.grant(up);
                }
                if was_orphan {
                    self.send_underway(up);
                } else {
                    self.go_on_sending(up);
                }
                self.catch_up(up);
                Event::Nothing
            }
            Outcome::HandOff(to) => {
                self.send(to, Packet { kind: Kind::HandoffProceed, ..Packet::default() }, up);
                Event::Nothing
            }
            Outcome::Ended => Event::Failed,
            Outcome::Data => Event::Data,
            Outcome::Control => Event::Control,
        })
    }

    /// Takes note of a packet on lane 1, of a server that pushes into the session. The first one lets it in, with a window
    /// of `window` bytes, which it knows by the session's first packet.
    ///
    /// # Errors
    /// The packet breaks the rules; the session can not go on.
    pub fn receive_push(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        window: u32,
        now: Instant,
    ) -> Result<Event, Violation> {
        if packet.ext.lane == 1 {
            self.session.open_second(window, now);
        }
        Ok(match self.session.on_packet(packet, from, seq, now)? {
            Outcome::Alive => Event::Nothing,
            Outcome::Data => Event::Data,
            Outcome::Control => Event::Control,
            Outcome::Ended => Event::Failed,
            Outcome::HandOff(_) => return Err(Violation::Kind { got: packet.kind, expected: "a push" }),
        })
    }

    /// Nobody pushes into the session any more.
    pub fn close_second(&mut self) {
        self.session.close_second();
    }

    /// Sends a part of the request's body, which is within the credits.
    pub fn send_body(&mut self, body: &[u8], more: bool, up: &mut dyn Uplink) {
        if let Some(to) = self.session.send_body(body.len()) {
            self.request.take_if(|request| !request.add(body, more));
            self.send(to, Packet { body, more, ..Packet::default() }, up);
        }
    }

    /// Sends a packet of a WebSocket, whose body is within the credits.
    pub fn send_packet(&mut self, packet: Packet<'_>, up: &mut dyn Uplink) {
        // A close takes none.
        let bytes = if packet.kind == Kind::Close { 0 } else { packet.body.len() };
        if let Some(to) = self.session.send_body(bytes) {
            let had = self.underway.as_mut().and_then(|underway| {
                underway.sent.add(to.seq, &packet);
                underway.tell()
            });
            self.send(to, Packet { ext: Ext { had, ..packet.ext }, ..packet }, up);
        }
    }

    /// Bytes of the response's body have been written. Gives credits back for them, now or later.
    pub fn on_written(&mut self, body: usize, now: Instant, up: &mut dyn Uplink) -> Owed {
        let grant = self.session.pass_on(body, now);
        self.give(grant, up)
    }

    /// The same for bytes that were pushed.
    pub fn on_push_written(&mut self, bytes: usize, now: Instant, up: &mut dyn Uplink) -> Owed {
        let grant = self.session.second().map_or(Grant::Nothing, |second| second.pass_on(bytes, now));
        self.give(grant, up)
    }

    fn give(&self, grant: Grant, up: &mut dyn Uplink) -> Owed {
        match grant {
            Grant::Nothing => Owed::Nothing,
            Grant::Later => Owed::Later,
            Grant::Now(Outgoing { to, seq }, credits) => {
                up.grant(to, credits, self.id(), seq);
                Owed::Nothing
            }
        }
    }

    /// Grants what the servers are owed.
    pub fn grant(&mut self, up: &mut dyn Uplink) {
        let pushed = self.session.second().and_then(|second| second.grant());
        for (Outgoing { to, seq }, credits) in self.session.grant().into_iter().chain(pushed) {
            up.grant(to, credits, self.id(), seq);
        }
    }

    /// Address and number of a packet that names many sessions, if the server is known.
    pub fn address(&mut self) -> Option<Outgoing> {
        self.session.send()
    }

    /// Does what is due: tells `keep_alive` whom to send one. Gives the time of the next look.
    ///
    /// # Errors
    /// The exchange is over.
    pub fn on_timer(&mut self, now: Instant, mut keep_alive: impl FnMut(Outgoing, Id)) -> Result<Instant, Over> {
        if matches!(self.audience, Audience::Served(until) if until <= now) {
            return Err(Over::Unwanted);
        }
        let id = self.id();
        while let Some(second) = self.session.second() {
            match second.on_timer(now) {
                Due::Nothing => break,
                Due::KeepAlive(to) => keep_alive(to, id),
                Due::Expired | Due::Spent => return Err(Over::Unpushed),
            }
        }
        loop {
            match self.session.on_timer(now) {
                Due::Nothing => return Ok(self.next_due()),
                Due::KeepAlive(to) => keep_alive(to, self.id()),
                Due::Expired => return Err(Over::Expired),
                Due::Spent => return Err(Over::Unwanted),
            }
        }
    }

    fn next_due(&self) -> Instant {
        let due = self.session.next_due();
        match self.audience {
            Audience::Served(until) => due.min(until),
            Audience::Client(_) | Audience::Left { .. } => due,
        }
    }

    /// Tells the servers that are known that nobody wants the response.
    pub fn cancel(&mut self, up: &mut dyn Uplink) {
        let pushing = self.session.second().and_then(|second| second.send());
        for to in self.session.send().into_iter().chain(pushing) {
            self.send(to, Packet { kind: Kind::Cancel, ..Packet::default() }, up);
        }
    }

    fn send(&self, Outgoing { to, seq }: Outgoing, packet: Packet<'_>, up: &mut dyn Uplink) {
        let id = self.id();
        let ext = Ext { multi: true, ..packet.ext };
        up.send(to, &Packet { ids: Ids::One(id.as_bytes(), Some(seq)), ext, ..packet });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_usual_form_and_mapped_ones_that_of_version_4() {
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("0.10.200.3", "0.10.200.3"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(text(address.parse().unwrap()), expected.as_bytes());
        }
    }
}
