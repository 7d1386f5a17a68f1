//! Exchanges: one request and its response, as a ZHTTP session (ZHTTP, session life cycle).
//!
//! An exchange knows numbers, credits and whom to talk to; it knows nothing of connections or of HTTP's syntax. Its id
//! names its place in the table of exchanges, so that a connection may have as many as its protocol allows.

mod table;

use std::time::{Duration, Instant};

use wire::http1::RequestHead;
use zhttp::{Ext, Headers, Id, Ids, KEEP_ALIVE, Kind, Packet, PeerId, Violation, Window, client};

pub use self::table::{Exchanges, Sweep};
use crate::uplink::Uplink;

/// How long the server of a response that the client has got already may take to end it.
const ENDING: Duration = Duration::from_secs(1);
/// Sooner than the protocol asks for, because timers are not exact.
const REFRESH: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() - 1);

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    slot: u32,
    /// Part of the id, never used twice.
    serial: u64,
    audience: Audience,
    session: client::Session,
    /// Response body that the server may send.
    window: Window,
    /// Request body that may be sent.
    credits: u32,
    /// Queued by the worker, because its server is owed credits.
    pub owing: bool,
    /// When the server last heard from us that the session lives.
    kept_alive: Instant,
}

/// Who waits for the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// The client in this slot.
    Client(u32),
    /// The client has got all that it can get; the server has until then to end the session by itself.
    Served(Instant),
}

/// What a packet means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing, or more credits for the request's body.
    Nothing,
    /// A part of the response.
    Data,
    /// The server has given up.
    Failed,
}

/// What is due for an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing until then.
    Nothing(Instant),
    /// A keep-alive to this peer with this number.
    KeepAlive(PeerId, u32),
    /// The server has been silent for too long; it is not told.
    Expired,
    /// The client was served long ago, and the server has not ended the session: it is to be cancelled.
    Unwanted,
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
    /// The request.
    pub head: &'a RequestHead<'a>,
    /// A body follows.
    pub body: bool,
    /// Body bytes that the server may send.
    pub window: u32,
}

impl Exchange {
    fn open(slot: u32, serial: u64, opening: &Opening<'_>, now: Instant, up: &mut dyn Uplink) -> Self {
        let head = opening.head;
        let mut uri = Vec::with_capacity(256);
        head.write_uri("http", &mut uri);
        let headers: Vec<(&[u8], &[u8])> =
            head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        let address = opening.peer.map(|peer| peer.ip().to_canonical().to_string());
        let id = Id::indexed(slot, serial);
        up.open(&Packet {
            ids: Ids::One(id.as_bytes(), Some(0)),
            method: Some(head.method.as_bytes()),
            uri: Some(&uri),
            headers: if headers.is_empty() { Headers::Absent } else { Headers::Pairs(&headers) },
            credits: Some(opening.window),
            more: opening.body,
            stream: true,
            ext: Ext { adopt: true, ..Ext::MULTI },
            peer_address: address.as_deref().map(str::as_bytes),
            peer_port: opening.peer.map(|peer| peer.port()),
            ..Packet::default()
        });
        Exchange {
            slot,
            serial,
            audience: Audience::Client(opening.client),
            session: client::Session::start(now),
            window: Window::granted(opening.window),
            credits: 0,
            owing: false,
            kept_alive: now,
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
            Audience::Served(_) => None,
        }
    }

    /// Request body that may be sent now, in bytes: none while the server is not known or changes.
    pub fn credits(&self) -> u32 {
        if self.session.server().is_some() { self.credits } else { 0 }
    }

    /// Whether the server that sent the last packet is this one.
    pub fn is_served_by(&self, peer: PeerId) -> bool {
        self.session.server() == Some(peer)
    }

    /// Whether there is a server to talk to: one has answered, and is not about to be followed by another.
    pub fn has_server(&self) -> bool {
        self.session.server().is_some()
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
        self.session.receive(packet.kind, from, seq, now)?;
        if let Some(granted) = packet.credits {
            self.credits = self.credits.saturating_add(granted);
        }
        match packet.kind {
            Kind::Credit | Kind::KeepAlive => Ok(Event::Nothing),
            Kind::HandoffStart => {
                if let Some((peer, seq)) = self.session.hand_off() {
                    let id = self.id();
                    let ids = Ids::One(id.as_bytes(), Some(seq));
                    up.send(peer, &Packet { ids, kind: Kind::HandoffProceed, ext: Ext::MULTI, ..Packet::default() });
                }
                Ok(Event::Nothing)
            }
            Kind::Error | Kind::Cancel => Ok(Event::Failed),
            Kind::Data => {
                self.window.receive(packet.body.len())?;
                Ok(Event::Data)
            }
            kind => Err(Violation::Unexpected(kind.name())),
        }
    }

    /// Sends a part of the request's body, which is within the credits.
    pub fn send_body(&mut self, body: &[u8], more: bool, up: &mut dyn Uplink) {
        let Some((peer, seq)) = self.session.send() else { return };
        self.credits = self.credits.saturating_sub(body.len() as u32);
        let id = self.id();
        let ids = Ids::One(id.as_bytes(), Some(seq));
        up.send(peer, &Packet { ids, body, more, ext: Ext::MULTI, ..Packet::default() });
    }

    /// Bytes of the response's body have been written. Gives credits back for them, now or later.
    pub fn on_written(&mut self, body: usize, up: &mut dyn Uplink) -> Owed {
        if self.window.pass_on(body) {
            self.grant(up);
        }
        if self.window.owes() { Owed::Later } else { Owed::Nothing }
    }

    /// Grants what the server is owed.
    pub fn grant(&mut self, up: &mut dyn Uplink) {
        if self.window.owes()
            && let Some((peer, seq)) = self.session.send()
        {
            up.grant(peer, self.window.take_owed(), self.id(), seq);
        }
    }

    /// Address and number of a packet that names many sessions, if the server is known.
    pub fn address(&mut self) -> Option<(PeerId, u32)> {
        self.session.send()
    }

    /// What is due. After a keep-alive it is to be asked again.
    pub fn on_timer(&mut self, now: Instant) -> Due {
        if self.session.is_expired(now) {
            return Due::Expired;
        }
        if matches!(self.audience, Audience::Served(until) if until <= now) {
            return Due::Unwanted;
        }
        if now.saturating_duration_since(self.kept_alive) >= REFRESH {
            self.kept_alive = now;
            if let Some((peer, seq)) = self.session.send() {
                return Due::KeepAlive(peer, seq);
            }
        }
        Due::Nothing(self.next_due())
    }

    fn next_due(&self) -> Instant {
        let due = self.session.expires_at().min(self.kept_alive + REFRESH);
        match self.audience {
            Audience::Served(until) => due.min(until),
            _ => due,
        }
    }

    fn cancel(&mut self, up: &mut dyn Uplink) {
        let Some((peer, seq)) = self.session.send() else { return };
        let id = self.id();
        let ids = Ids::One(id.as_bytes(), Some(seq));
        up.send(peer, &Packet { ids, kind: Kind::Cancel, ext: Ext::MULTI, ..Packet::default() });
    }
}
