// SPDX-License-Identifier: AGPL-3.0-or-later
//! One WebSocket: the client's session, the backend's, and what passes between them.
//!
//! - [`client`]: the client's side.
//! - [`origin`]: the backend's, and [`over_http`] if that is spoken to by requests.
//! - [`handler`]: what the handler and the WebSocket tell each other.
//! - [`closing`]: how it ends, and [`resume`]: how it goes on when the proxy does, with [`counted`] if the backend's connection is to
//!   be taken over.
//! - [`account`]: what is told of it, in the log and to statistics.

mod account;
mod client;
mod closing;
mod counted;
mod handler;
mod origin;
mod over_http;
mod resume;

use std::sync::Arc;
use std::time::{Duration, Instant};

use routes::{ById, Protocol, Route, Table as Routes};
use rpc::uuid::Uuid;
use zhttp::recovery::PROXY;
use zhttp::session::server;
use zhttp::{Ext, Headers, Id, Kind, Packet, PeerId, Record};

pub use self::client::packet;
pub use self::handler::message;
pub use self::resume::run_items;

use self::closing::Closing;
use self::origin::Origin;
use self::resume::Kept;
use super::control::{Control, Introduction, Items};
use super::extension::Extension;
use super::handshake::Handshake;
use super::pipe::Pipe;
use super::slow::{Lag, Limit};
use crate::access_log::Outcome;
use crate::context::Context;
use crate::error::ProxyError;
use crate::request::forwarded;
use crate::request::uri::{Scheme, Uri};
use crate::sockjs::framing::Framing;
use crate::sockjs::page;
use crate::sockjs::place::{self, Place};
use crate::statistics;

/// How long the other end of a connection may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// A WebSocket.
pub struct Relay {
    /// Its place in the table.
    index: u32,
    /// Tells it from others that had the place before.
    serial: u64,
    name: Uuid,
    client: server::Session,
    frontend: Frontend,
    /// The client's instance lets a second server push into the session: the bytes that one may send.
    lane: Option<u32>,
    /// Goes back with each packet, as Pushpin's frontends want it.
    user_data: Option<Box<(tnetstring::Kind, Box<[u8]>)>>,
    /// What the client has asked for.
    request: Handshake,
    /// As the client came, or is believed to have come.
    scheme: Scheme,
    debug: bool,
    trusted: bool,
    route: Option<Arc<Route>>,
    target: usize,
    /// The backend is asked for the route's path for SockJS instead of the client's.
    is_sockjs: bool,
    /// The client speaks SockJS.
    framing: Option<Box<Framing>>,
    phase: Phase,
    origin: Origin,
    extension: Option<Extension>,
    control: Option<Control>,
    /// The backend is not to hear of the client any more.
    detached: bool,
    /// To the client.
    down: Pipe,
    /// To the backend.
    up: Pipe,
    client_closing: Closing,
    /// The handler has sent the client its close.
    client_told: bool,
    /// What must happen in time, because it ends or is behind.
    late: Option<Box<Late>>,
    /// A packet to the client was not taken.
    refused: bool,
    /// None if its frontend does not keep it for a successor.
    kept: Option<Box<Kept>>,
    outcome: Option<Outcome>,
}

/// What an idle WebSocket has none of.
#[derive(Debug, Default)]
struct Late {
    /// When the connection is given up that one side has begun to close.
    close_by: Option<Instant>,
    /// When it is closed because the handler has gone.
    orphaned_at: Option<Instant>,
    /// How long too much has waited for the client.
    lag: Lag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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
enum Frontend {
    /// What Pushpin's can.
    Plain,
    /// It takes control frames in the middle of a message.
    Interleaves,
    /// It also counts what passes.
    Counts,
}

impl Frontend {
    fn of(first: &Packet<'_>) -> Self {
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

    /// Finds the route and the first target.
    pub fn begin(&mut self, packet: &Packet<'_>, uri: &Uri<'_>, routes: &Routes, scene: &mut Scene<'_, '_>) {
        let config = &scene.cx.shared.config;
        let rules = &config.rules;
        if rules.accept_protocol && forwarded::says_secure(packet.headers) {
            self.scheme = uri.scheme.with_tls(true);
        }
        if forwarded::has_looped(packet.headers, &rules.cdn_loop) {
            return self.fail(&ProxyError::Looped, scene);
        }
        let wanted = packet.headers.get("Pushpin-Route").filter(|_| rules.accept_route);
        let path = if uri.path.is_empty() { b"/" } else { uri.path };
        let route = match wanted.map(|id| std::str::from_utf8(id).map(|id| routes.by_id(id))) {
            Some(Ok(ById::Found(route))) if path.starts_with(route.path_beg.as_bytes()) => Ok(route),
            Some(_) => Err(ProxyError::NoSuchRoute),
            None => {
                let host = std::str::from_utf8(uri.host()).ok();
                let route = host.and_then(|host| routes.lookup(Protocol::Ws, self.scheme.is_secure(), host, path));
                route.ok_or(ProxyError::NoRoute)
            }
        };
        let route = match route {
            Ok(route) => route.clone(),
            Err(error) => {
                self.debug = config.debug;
                return self.fail(&error, scene);
            }
        };
        match Place::of(&route, path) {
            None => {}
            Some(Place::Raw) => self.is_sockjs = true,
            Some(Place::Session { .. }) => {
                self.is_sockjs = true;
                self.framing = Some(Box::new(Framing::new(config.max_message_size)));
            }
            Some(_) => {
                let page = page::text(404, "Not Found", "Not Found\n");
                let headers: Vec<_> = page.headers.iter().map(|(name, value)| (&**name, &value[..])).collect();
                self.route = Some(route);
                return self.reject((404, b"Not Found", Headers::Pairs(&headers)), &page.body, scene);
            }
        }
        self.begin_on(route, packet, scene);
    }

    /// Begins on a route that is known.
    pub fn begin_on(&mut self, route: Arc<Route>, packet: &Packet<'_>, scene: &mut Scene<'_, '_>) {
        self.debug = scene.cx.shared.config.debug || route.debug;
        if let Some(key) = &scene.cx.shared.upstream {
            self.trusted = packet.headers.get("Grip-Sig").is_some_and(|token| key.accepts(token, scene.cx.unix));
        }
        self.route = Some(route);
        self.connect(scene);
    }

    /// Whether the backend's GRIP is for a proxy in front of us.
    fn passes_grip_on(&self) -> bool {
        self.trusted || self.route.as_ref().is_none_or(|route| !route.grip)
    }

    /// A backend has accepted the WebSocket.
    fn accept(&mut self, reason: &[u8], headers: Headers<'_>, scene: &mut Scene<'_, '_>) {
        let Some(route) = self.route.clone() else { return };
        let found = Extension::find(headers);
        let extension = found.and_then(Extension::parse);
        let grip = extension.is_some();
        let mut kept: Vec<(&[u8], &[u8])> =
            headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"Sec-WebSocket-Extensions")).collect();
        match (self.passes_grip_on(), found) {
            (true, Some(found)) if grip => kept.push((b"Sec-WebSocket-Extensions", found)),
            _ => self.extension = extension.filter(|_| !self.passes_grip_on()),
        }
        let target = route.targets.get(self.target);
        let subscriptions: &[String] = target.map_or(&[], |target| &target.subscriptions);
        if grip || !subscriptions.is_empty() {
            let uri = self.with_request(|this, packet| this.client_uri(packet));
            // Of what is pushed nobody would know, after the handler's end, who has had it.
            let is_kept = !scene.cx.shared.config.recover_wait.is_zero();
            let lane = self.second_lane(scene).filter(|_| !is_kept);
            let (now, progress, name) = (scene.cx.now, self.progress(), self.name.text());
            let introduction = Introduction { lane, ..self.introduction(&uri, &route) };
            let mut control = Control::open(&name, &introduction, is_kept, now, scene.items);
            for channel in subscriptions {
                control.subscribe(&name, channel, progress, now, scene.items);
            }
            self.control = Some(control);
        }
        self.phase = Phase::Open;
        let record = self.begin_to_keep(scene);
        let keep = record.as_deref().map(|content| Record { owner: PROXY, content });
        let credits = self.client.grant();
        let had = self.is_counted().then_some(0);
        let ext = Ext { multi: self.client.takes_multi(), keep, had, ..Ext::default() };
        self.count(scene, |report| {
            report.server_header_bytes_received += statistics::response_size(reason, headers);
            report.client_header_bytes_sent += statistics::response_size(reason, Headers::Pairs(&kept));
        });
        let headers = Headers::Pairs(&kept);
        let packet = Packet { code: Some(101), reason: Some(reason), headers, credits, ext, ..Packet::default() };
        self.send(0, packet, scene);
        if let Some(framing) = &mut self.framing {
            let frame = framing.open(scene.cx.now);
            self.down.relay(frame, 0);
        }
        self.outcome = Some(Outcome::Responded(101, 0));
    }

    /// The client does not get a WebSocket, but this response.
    fn reject(&mut self, head: (u16, &[u8], Headers<'_>), body: &[u8], scene: &mut Scene<'_, '_>) {
        let (code, reason, headers) = head;
        self.count(scene, |report| {
            report.client_header_bytes_sent += statistics::response_size(reason, headers);
            report.client_content_bytes_sent += statistics::length(body.len());
        });
        let headers = if headers == Headers::Absent { Headers::Pairs(&[]) } else { headers };
        let packet = Packet {
            kind: Kind::Error,
            condition: Some(b"rejected"),
            code: Some(code),
            reason: Some(reason),
            headers,
            body,
            ..Packet::default()
        };
        self.send(0, packet, scene);
        self.outcome = Some(Outcome::Responded(code, body.len() as u64));
        self.over(scene);
    }

    /// The WebSocket does not come about, or can not go on, through no fault of the client.
    fn fail(&mut self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
        self.warn(error, scene);
        match self.phase {
            Phase::Connecting => {
                let answer = error.answer_of(self.route.as_deref(), self.debug);
                let body = format!("{}\n", answer.text);
                self.reject((answer.code, answer.reason.as_bytes(), Headers::Absent), body.as_bytes(), scene);
            }
            Phase::Open => {
                self.send(0, Packet { kind: Kind::Cancel, ..Packet::default() }, scene);
                self.over(scene);
            }
            Phase::Claiming => self.claim_failed(scene),
            Phase::Over => {}
        }
    }

    /// Does something with the decoded request.
    fn with_request<R>(&self, act: impl FnOnce(&Self, &Packet<'_>) -> R) -> R {
        self.request.with(|packet| act(self, packet))
    }

    /// The path that the backend is asked for instead of the client's, before the route's changes.
    fn backend_path(&self, route: &Route) -> Option<Vec<u8>> {
        self.is_sockjs.then(|| place::backend_path(route, true))
    }

    /// The client's URI with the scheme that counts.
    fn client_uri(&self, packet: &Packet<'_>) -> Vec<u8> {
        let text = packet.uri.unwrap_or_default();
        let mut whole = Vec::with_capacity(text.len() + 1);
        match Uri::parse(text) {
            Some(uri) => Uri { scheme: self.scheme, ..uri }.write(&mut whole),
            None => whole.extend_from_slice(text),
        }
        whole
    }
}
