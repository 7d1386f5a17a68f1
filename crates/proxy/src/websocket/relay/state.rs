// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a WebSocket is made of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use routes::Route;
use rpc::uuid::Uuid;
use zhttp::session::server;
use zhttp::{Id, Packet, PeerId};

use super::super::control::{Control, Items};
use super::super::extension::Extension;
use super::super::handshake::Handshake;
use super::super::pipe::Pipe;
use super::super::slow::{Lag, Limit};
use super::kept::Kept;
use super::side::{Closing, Origin};
use crate::access_log::Outcome;
use crate::context::Context;
use crate::request::uri::{Scheme, Uri};
use crate::sockjs::framing::Framing;
use crate::sockjs::place;

/// How long the other end of a connection may take to answer a close.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// A WebSocket.
pub struct Relay {
    /// Its place in the table.
    pub(super) index: u32,
    /// Tells it from others that had the place before.
    pub(super) serial: u64,
    pub(super) name: Uuid,
    pub(super) client: server::Session,
    pub(super) frontend: Frontend,
    /// The client's instance lets a second server push into the session: the bytes that one may send.
    pub(super) lane: Option<u32>,
    /// Goes back with each packet, as Pushpin's frontends want it.
    pub(super) user_data: Option<Box<(tnetstring::Kind, Box<[u8]>)>>,
    /// What the client has asked for.
    pub(super) request: Handshake,
    /// As the client came, or is believed to have come.
    pub(super) scheme: Scheme,
    pub(super) debug: bool,
    pub(super) trusted: bool,
    pub(super) route: Option<Arc<Route>>,
    pub(super) target: usize,
    /// The backend is asked for the route's path for SockJS instead of the client's.
    pub(super) is_sockjs: bool,
    /// The client speaks SockJS.
    pub(super) framing: Option<Box<Framing>>,
    pub(super) phase: Phase,
    pub(super) origin: Origin,
    pub(super) extension: Option<Extension>,
    pub(super) control: Option<Control>,
    /// The backend is not to hear of the client any more.
    pub(super) detached: bool,
    /// To the client.
    pub(super) down: Pipe,
    /// To the backend.
    pub(super) up: Pipe,
    pub(super) client_closing: Closing,
    /// The handler has sent the client its close.
    pub(super) client_told: bool,
    /// What must happen in time, because it ends or is behind.
    pub(super) late: Option<Box<Late>>,
    /// A packet to the client was not taken.
    pub(super) refused: bool,
    /// None if its frontend does not keep it for a successor.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) outcome: Option<Outcome>,
}

/// What an idle WebSocket has none of.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// When the connection is given up that one side has begun to close.
    pub(super) close_by: Option<Instant>,
    /// When it is closed because the handler has gone.
    pub(super) orphaned_at: Option<Instant>,
    /// How long too much has waited for the client.
    pub(super) lag: Lag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A backend is asked.
    Connecting,
    /// It was a predecessor's, and the outbound process is asked for its backend's connection.
    Claiming,
    /// The client has been accepted.
    Open,
    /// Nothing remains to be done.
    Over,
}

/// What the client's instance can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    /// What Pushpin's can.
    Plain,
    /// It takes control frames in the middle of a message.
    Interleaves,
    /// It also counts what passes.
    Counts,
}

impl Frontend {
    pub(super) fn of(first: &Packet<'_>) -> Self {
        match (first.ext.adopt, first.ext.had) {
            (false, _) => Frontend::Plain,
            (true, None) => Frontend::Interleaves,
            (true, Some(_)) => Frontend::Counts,
        }
    }
}

/// What a relay is made of.
pub struct Arrival<'a> {
    /// Its place in the table.
    pub index: u32,
    /// See [`Relay::serial`].
    pub serial: u64,
    /// Its public name.
    pub name: Uuid,
    /// The client's session.
    pub client: server::Session,
    /// What the first packet says.
    pub request: Handshake,
    /// The first packet.
    pub packet: &'a Packet<'a>,
    /// The scheme of its address.
    pub scheme: Scheme,
}

/// What else is at hand while a relay does something.
pub struct Scene<'c, 'x> {
    /// What all requests share.
    pub cx: &'c mut Context<'x>,
    /// Items for the handler.
    pub items: &'c mut Items,
    /// What of the handler's messages may wait for a client.
    pub limit: Limit,
    /// There is room for one more backend that is to hear of a client which is gone.
    pub may_part: bool,
}

impl Relay {
    /// Makes a relay for a session that has come to us. Nothing is sent yet.
    pub fn new(arrival: Arrival<'_>) -> Self {
        let packet = arrival.packet;
        Relay {
            index: arrival.index,
            serial: arrival.serial,
            name: arrival.name,
            client: arrival.client,
            frontend: Frontend::of(packet),
            lane: packet.credits.filter(|_| packet.ext.lanes && packet.ext.multi && packet.user_data.is_none()),
            user_data: packet.user_data.map(|item| Box::new((item.kind, item.payload.into()))),
            request: arrival.request,
            scheme: arrival.scheme,
            debug: false,
            trusted: false,
            route: None,
            target: 0,
            is_sockjs: false,
            framing: None,
            phase: Phase::Connecting,
            origin: Origin::None,
            extension: None,
            control: None,
            detached: false,
            down: Pipe::default(),
            up: Pipe::default(),
            client_closing: Closing::default(),
            client_told: false,
            late: None,
            refused: false,
            kept: None,
            outcome: None,
        }
    }

    /// Tells it from others in the same place.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Its public name.
    pub fn name(&self) -> Uuid {
        self.name
    }

    /// What the client has asked for.
    pub fn request(&self) -> &Handshake {
        &self.request
    }

    /// The client's instance, and the session's id there.
    pub fn client_key(&self) -> (PeerId, Id) {
        (self.client.client(), self.client.id())
    }

    /// Whether nothing remains to be done.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether a packet with this serial in its id is for the current session with the backend's side.
    pub fn is_origin(&self, serial: u64) -> bool {
        self.origin.is(serial)
    }

    /// Whether the backend's GRIP is for a proxy in front of us.
    pub(super) fn passes_grip_on(&self) -> bool {
        self.trusted || self.route.as_ref().is_none_or(|route| !route.grip)
    }

    /// Does something with the decoded request.
    pub(super) fn with_request<R>(&self, act: impl FnOnce(&Self, &Packet<'_>) -> R) -> R {
        self.request.with(|packet| act(self, packet))
    }

    /// The path that the backend is asked for instead of the client's, before the route's changes.
    pub(super) fn backend_path(&self, route: &Route) -> Option<Vec<u8>> {
        self.is_sockjs.then(|| place::backend_path(route, true))
    }

    /// The client's URI with the scheme that counts.
    pub(super) fn client_uri(&self, packet: &Packet<'_>) -> Vec<u8> {
        let text = packet.uri.unwrap_or_default();
        let mut whole = Vec::with_capacity(text.len() + 1);
        match Uri::parse(text) {
            Some(uri) => Uri { scheme: self.scheme, ..uri }.write(&mut whole),
            None => whole.extend_from_slice(text),
        }
        whole
    }
}
