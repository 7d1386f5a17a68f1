// SPDX-License-Identifier: AGPL-3.0-or-later
//! One WebSocket: the client's session, the backend's, and what passes between them.

mod closing;
mod origin;
mod over_http;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use routes::{ById, Protocol, Route, Table as Routes};
use rpc::stats::{ConnKind, Report};
use rpc::ws_control::{Client, Item, Kind as ItemKind, Lane};
use zhttp::session::server::{self, Outcome as Told, Outgoing};
use zhttp::{Ext, Headers, Id, Ids, Kind, Packet, PeerId};

use self::closing::Closing;
use self::origin::Origin;
use super::control::{self, Control, Introduction, Items, Progress};
use super::extension::{Extension, Verdict};
use super::pipe::{Frame, Pipe, Status};
use super::slow::{Lag, Limit};
use crate::access_log::{Line, Outcome};
use crate::context::{Context, Cut, Note, Side, Way};
use crate::error::ProxyError;
use crate::request::forwarded;
use crate::request::headers::target_name;
use crate::request::uri::{Scheme, Uri};
use crate::sockjs::framing::{self, Framing};
use crate::sockjs::page;
use crate::sockjs::place::{self, Place};
use crate::statistics;

/// How long the other end of a connection may take to answer a close.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// A WebSocket.
pub struct Relay {
    /// Its place in the table.
    index: usize,
    /// Tells it from others that had the place before.
    serial: u64,
    /// Its public name.
    cid: Rc<[u8]>,
    client: server::Session,
    /// The client's instance takes control frames in the middle of a message.
    interleaves: bool,
    /// The client's instance lets a second server push into the session: the bytes that one may send.
    lane: Option<u32>,
    user_data: Option<(tnetstring::Kind, Box<[u8]>)>,
    /// The first packet.
    request: Rc<[u8]>,
    /// As the client came, or is believed to have come.
    scheme: Scheme,
    debug: bool,
    trusted: bool,
    route: Option<Arc<Route>>,
    target: usize,
    /// The backend is asked for this path instead of the client's.
    backend_path: Option<Rc<[u8]>>,
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
    /// How long too much has waited there.
    lag: Lag,
    /// To the backend.
    up: Pipe,
    client_closing: Closing,
    /// The handler has sent the client its close.
    client_told: bool,
    /// Control frames of the backend that wait for the end of its message.
    late: Vec<Frame>,
    /// When the connection is given up that one side has begun to close.
    close_by: Option<Instant>,
    /// When it is closed because the handler has gone.
    orphaned_at: Option<Instant>,
    /// A packet to the client was not taken.
    refused: bool,
    started: Instant,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A backend is asked.
    Connecting,
    /// The client has been accepted.
    Open,
    /// Nothing remains to be done.
    Over,
}

/// What a relay is made of.
pub struct Arrival<'a> {
    /// Its place in the table.
    pub index: usize,
    /// See [`Relay::serial`].
    pub serial: u64,
    /// Its public name.
    pub cid: Rc<[u8]>,
    /// The client's session.
    pub client: server::Session,
    /// The first packet.
    pub message: &'a [u8],
    /// The same, decoded.
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
    pub fn new(arrival: Arrival<'_>, now: Instant) -> Self {
        let packet = arrival.packet;
        Relay {
            index: arrival.index,
            serial: arrival.serial,
            cid: arrival.cid,
            client: arrival.client,
            interleaves: packet.ext.adopt,
            lane: packet.credits.filter(|_| packet.ext.lanes && packet.ext.multi && packet.user_data.is_none()),
            user_data: packet.user_data.map(|item| (item.kind, item.payload.into())),
            request: arrival.message.into(),
            scheme: arrival.scheme,
            debug: false,
            trusted: false,
            route: None,
            target: 0,
            backend_path: None,
            framing: None,
            phase: Phase::Connecting,
            origin: Origin::None,
            extension: None,
            control: None,
            detached: false,
            down: Pipe::default(),
            lag: Lag::default(),
            up: Pipe::default(),
            client_closing: Closing::default(),
            client_told: false,
            late: Vec::new(),
            close_by: None,
            orphaned_at: None,
            refused: false,
            started: now,
            outcome: None,
        }
    }

    /// Tells it from others in the same place.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Its public name: `Connection-Id` towards backends, `cid` towards the handler.
    pub fn cid(&self) -> &Rc<[u8]> {
        &self.cid
    }

    /// The client's instance, and the session's id there.
    pub fn client_key(&self) -> (PeerId, Id) {
        (self.client.client(), *self.client.id())
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
            Some(Place::Raw) => self.backend_path = Some(place::backend_path(&route, true).into()),
            Some(Place::Session { .. }) => {
                self.backend_path = Some(place::backend_path(&route, true).into());
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
            let (now, progress) = (scene.cx.now, self.progress());
            let introduction = Introduction { lane, ..self.introduction(&uri, &route) };
            let mut control = Control::open(&self.cid, &introduction, is_kept, now, scene.items);
            for channel in subscriptions {
                control.subscribe(&self.cid, channel, progress, now, scene.items);
            }
            self.control = Some(control);
        }
        self.phase = Phase::Open;
        let credits = self.client.grant();
        let ext = Ext { multi: self.client.takes_multi(), ..Ext::default() };
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

    fn introduction<'a>(&self, uri: &'a [u8], route: &'a Route) -> Introduction<'a> {
        Introduction {
            uri,
            route: &route.id,
            separate_stats: route.explicit_id,
            channel_prefix: &route.prefix,
            trusted: route.targets.get(self.target).is_some_and(|target| target.trusted),
            lane: None,
        }
    }

    /// What the handler needs to push into the client's session. Frames of SockJS are ours to make.
    fn second_lane(&self, scene: &Scene<'_, '_>) -> Option<(Client<'static>, Lane)> {
        let credits = self.lane.filter(|_| self.framing.is_none())?;
        let (peer, id) = self.client_key();
        let sender = scene.cx.shared.peers.name(peer).to_vec().into();
        let client = Client { sender, id: id.as_bytes().to_vec().into(), router_resp: self.client.by_router() };
        Some((client, Lane { credits }))
    }

    fn progress(&self) -> Progress {
        let clear = self.down.has_left(self.down.end()).then(|| self.client.next_out());
        Progress { end: self.down.end(), clear }
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
            Phase::Over => {}
        }
    }

    fn warn(&self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
        let uri = self.with_request(|this, packet| this.client_uri(packet));
        let target = self.route.as_ref().and_then(|route| route.targets.get(self.target));
        let target = target.map(|target| format!(" -> {}", target_name(target))).unwrap_or_default();
        let text = format!("{}{target}: {error}", uri.escape_ascii());
        scene.cx.links.log(&Note::Warning { kind: error.kind(), text: &text });
    }

    /// Takes in a packet from the client.
    pub fn client_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, scene: &mut Scene<'_, '_>) {
        match self.client.on_packet(packet, seq, scene.cx.now) {
            Ok(Told::Data) => {
                let binary = packet.content_type == Some(b"binary");
                let body = Bytes::copy_from_slice(packet.body);
                self.on_client_frame(Frame::Data { binary, more: packet.more, body }, scene);
            }
            Ok(Told::Control) => {
                let body = Bytes::copy_from_slice(packet.body);
                let frame = match packet.kind {
                    Kind::Ping => Frame::Ping(body),
                    Kind::Pong => Frame::Pong(body),
                    _ => Frame::Close(packet.code.map(|code| Status { code, reason: body })),
                };
                self.on_client_frame(frame, scene);
            }
            Ok(Told::Alive | Told::Proceed | Told::Ignored) => {}
            Ok(Told::Ended) => return self.client_left(scene),
            Err(violation) => {
                let text = format!("ending a WebSocket whose frontend broke the protocol: {violation}");
                scene.cx.links.log(&Note::Warning { kind: "client-violation", text: &text });
                self.send(0, Packet { kind: Kind::Cancel, ..Packet::default() }, scene);
                return self.client_left(scene);
            }
        }
        self.flush(scene);
    }

    fn on_client_frame(&mut self, frame: Frame, scene: &mut Scene<'_, '_>) {
        let owed = frame.len();
        self.count(scene, |report| {
            report.client_content_bytes_received += statistics::length(owed);
            report.client_messages_received += frame.messages();
        });
        if let Frame::Close(_) = frame {
            self.client_closing.received = true;
            self.close_by.get_or_insert(scene.cx.now + CLOSE_WAIT);
            if self.detached || self.origin.is_none() {
                // There is nobody else to answer it.
                return self.down.insert(frame, None);
            }
        }
        if self.detached || self.origin.is_none() {
            return self.grant_client(owed, scene);
        }
        match &mut self.framing {
            Some(framing) if let Frame::Data { body, more, .. } = &frame => match framing.take(body, *more) {
                Ok(None) => {}
                Ok(Some((messages, size))) => {
                    let inside: usize = messages.iter().map(Bytes::len).sum();
                    self.grant_client(size.saturating_sub(inside), scene);
                    for message in messages {
                        let owed = message.len();
                        self.relay_up(Frame::message(false, message), owed);
                    }
                }
                Err(error) => self.fail(&ProxyError::SockJs(error), scene),
            },
            _ => self.relay_up(frame, owed),
        }
    }

    fn relay_up(&mut self, frame: Frame, owed: usize) {
        match self.origin {
            Origin::Test => self.relay_down(frame, owed),
            _ => self.up.relay(frame, owed),
        }
    }

    /// A frame of the backend has come.
    fn on_origin_frame(&mut self, frame: Frame, scene: &mut Scene<'_, '_>) {
        let owed = frame.len();
        self.count(scene, |report| {
            report.server_content_bytes_received += statistics::length(owed);
            report.server_messages_received += frame.messages();
        });
        if let Frame::Close(_) = frame {
            self.close_by.get_or_insert(scene.cx.now + CLOSE_WAIT);
        }
        if self.detached {
            return self.grant_origin(owed, scene);
        }
        let verdict = match &mut self.extension {
            Some(extension) => extension.judge(frame),
            None => Verdict::Pass(frame),
        };
        match verdict {
            Verdict::Pass(frame) => {
                let stripped = owed - frame.len();
                self.grant_origin(stripped, scene);
                self.relay_framed(frame, owed - stripped, scene);
            }
            Verdict::Control(message) => {
                let progress = self.progress();
                if let Some(control) = &mut self.control {
                    control.instruct(&self.cid, &message, progress, scene.cx.now, scene.items);
                }
                self.grant_origin(owed, scene);
            }
            Verdict::Drop => self.grant_origin(owed, scene),
        }
    }

    /// Passes on a frame in the form that the client expects.
    fn relay_framed(&mut self, frame: Frame, owed: usize, scene: &mut Scene<'_, '_>) {
        let (Some(framing), Frame::Data { body, more, .. }) = (&mut self.framing, &frame) else {
            return self.relay_down(frame, owed);
        };
        match framing.wrap(body, *more) {
            Ok(None) => self.grant_origin(owed, scene),
            Ok(Some(frame)) => self.relay_down(frame, owed),
            Err(error) => self.fail(&ProxyError::SockJs(error), scene),
        }
    }

    /// Pushpin's frontends break off a connection whose control frames come in the middle of a message.
    fn relay_down(&mut self, frame: Frame, owed: usize) {
        let control = matches!(frame, Frame::Ping(_) | Frame::Pong(_));
        if control && !self.interleaves && self.down.is_within_message() {
            return self.late.push(frame);
        }
        self.down.relay(frame, owed);
        if !self.down.is_within_message() {
            for frame in std::mem::take(&mut self.late) {
                let owed = frame.len();
                self.down.relay(frame, owed);
            }
        }
    }

    /// Takes in an item of the handler; gives the number under which it is to be answered now.
    pub fn on_item<'i>(&mut self, item: &'i Item<'_>, jitter: Duration, scene: &mut Scene<'_, '_>) -> Option<&'i [u8]> {
        let number = item.req_id.as_deref();
        let Some(control) = &mut self.control else { return number };
        match item.kind {
            ItemKind::Ack => {
                control.on_ack(number.unwrap_or_default());
                return None;
            }
            ItemKind::KeepAliveSetup => {
                let by_silence = item.keep_alive_mode.as_deref() != Some(b"interval");
                control.on_keep_alive_setup(item.timeout.unwrap_or(0), by_silence, jitter, scene.cx.now);
            }
            ItemKind::Send => {
                let frame = match message(item) {
                    Frame::Data { body, .. } if self.framing.is_some() => framing::wrapped(&body),
                    frame => frame,
                };
                self.down.insert(frame, number.map(Into::into));
                self.flush(scene);
                return None;
            }
            ItemKind::Close => {
                let status = item.code.and_then(|code| u16::try_from(code).ok()).map(|code| {
                    let reason = Bytes::copy_from_slice(item.reason.as_deref().unwrap_or_default());
                    Status { code, reason }
                });
                self.client_told |= item.told;
                self.close(status, scene);
            }
            ItemKind::Detach => self.detach(scene),
            ItemKind::Refresh => self.refresh(scene),
            ItemKind::Cancel => self.abort(scene),
            _ => {}
        }
        number
    }

    /// What a message of the handler needs to leave at once in a packet with those for others: its number is taken then,
    /// and the packet must leave before anything else of this session.
    pub fn take_turn(&mut self, bytes: usize, now: Instant) -> Option<(Outgoing, Way, Id)> {
        let control = self.control.as_mut()?;
        let free = self.phase == Phase::Open
            && self.framing.is_none()
            && self.user_data.is_none()
            && self.client.takes_multi()
            && self.down.is_clear()
            && self.client.credits() as usize >= bytes;
        if !free {
            return None;
        }
        control.on_sent(now);
        let way = self.way();
        Some((self.client.send_body(bytes), way, *self.client.id()))
    }

    /// Sends what the credits of both sides allow, and sees whether all is over.
    pub fn flush(&mut self, scene: &mut Scene<'_, '_>) {
        self.flush_down(scene);
        self.end_slow(scene);
        self.flush_up(scene);
        self.settle(scene);
    }

    /// Gives up a client for which too much has waited for too long.
    fn end_slow(&mut self, scene: &mut Scene<'_, '_>) {
        let weight = self.down.weight();
        if self.phase == Phase::Open && self.lag.is_too_much(weight, &scene.limit, scene.cx.now) {
            let waiting = self.down.waiting();
            let text = format!(
                "ending a WebSocket whose client reads too slowly: {waiting} bytes wait for it (session_queue_bytes)"
            );
            scene.cx.links.log(&Note::Warning { kind: "slow-client", text: &text });
            self.abort(scene);
        }
    }

    fn flush_down(&mut self, scene: &mut Scene<'_, '_>) {
        while self.phase == Phase::Open
            && !self.client_closing.sent
            && let Some(leaving) = self.down.next(self.client.credits() as usize)
        {
            self.send_frame(&leaving.frame, scene);
            if let Some(control) = &mut self.control {
                control.on_sent(scene.cx.now);
                let (next, down) = (self.client.next_out(), &self.down);
                control.tell_barrier(&self.cid, next, |place| down.has_left(place), scene.items);
            }
            if let Some(number) = leaving.ack {
                let number = number.into_vec().into();
                scene.items.push(Item { req_id: Some(number), ..control::item(ItemKind::Ack, &self.cid) });
            }
            if let Origin::Test = self.origin {
                self.grant_client(leaving.owed, scene);
            } else {
                self.grant_origin(leaving.owed, scene);
            }
        }
    }

    fn send_frame(&mut self, frame: &Frame, scene: &mut Scene<'_, '_>) {
        let packet = packet(frame);
        if let Frame::Close(_) = frame {
            self.client_closing.sent = true;
            if self.client_told {
                return;
            }
        }
        self.count_sent(frame, scene.cx);
        self.send(frame.len(), packet, scene);
    }

    /// Counts a frame that leaves for the client, for statistics.
    pub fn count_sent(&self, frame: &Frame, cx: &mut Context<'_>) {
        self.count_in(cx, |report| {
            report.client_content_bytes_sent += statistics::length(frame.len());
            report.client_messages_sent += frame.messages();
        });
    }

    /// Counts a frame that leaves for the backend, for statistics.
    fn count_sent_up(&self, frame: &Frame, scene: &mut Scene<'_, '_>) {
        self.count(scene, |report| {
            report.server_content_bytes_sent += statistics::length(frame.len());
            report.server_messages_sent += frame.messages();
        });
    }

    /// Sends a packet with so many bytes of the client's credits.
    fn send(&mut self, bytes: usize, packet: Packet<'_>, scene: &mut Scene<'_, '_>) {
        let to = self.client.send_body(bytes);
        self.send_numbered(to, packet, scene);
    }

    fn send_numbered(&mut self, to: Outgoing, packet: Packet<'_>, scene: &mut Scene<'_, '_>) {
        let shared = &scene.cx.shared;
        let packet = Packet {
            from: &shared.instance,
            ids: Ids::One(self.client.id().as_bytes(), Some(to.seq)),
            ext: Ext { multi: packet.ext.multi || (to.seq == 0 && self.client.takes_multi()), ..packet.ext },
            user_data: self.user_data.as_ref().map(|(kind, payload)| tnetstring::Item { kind: *kind, payload }),
            ..packet
        };
        self.refused |= !self.way().send(shared.peers.name(to.to), &packet, scene.cx.links);
    }

    fn way(&self) -> Way {
        Way { internal: false, by_router: self.client.by_router() }
    }

    /// Gives the client credits for what has left.
    fn grant_client(&mut self, bytes: usize, scene: &mut Scene<'_, '_>) {
        if self.phase == Phase::Open
            && self.client.pass_on(bytes)
            && let Some(credits) = self.client.grant()
        {
            self.send(0, Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, scene);
        }
    }

    /// Ends the sessions that a packet was not taken of. To be called whenever something may have been sent.
    pub fn end_refused(&mut self, scene: &mut Scene<'_, '_>) {
        if std::mem::take(&mut self.refused) && !self.is_over() {
            self.cut_client(scene);
        }
    }

    /// A packet to the client was not taken.
    pub fn cut_client(&mut self, scene: &mut Scene<'_, '_>) {
        let (peer, id) = self.client_key();
        scene.cx.shared.cut.push(Cut { peer, id, side: Side::Client(self.way()) });
        let text = "ending a WebSocket whose frontend takes no more packets";
        scene.cx.links.log(&Note::Warning { kind: "client-full", text: &text });
        self.client_left(scene);
    }

    /// Does something with the decoded request.
    fn with_request<R>(&self, act: impl FnOnce(&Self, &Packet<'_>) -> R) -> R {
        // It could be decoded when it came.
        act(self, &Packet::decode(&self.request).unwrap_or_default())
    }

    /// The URI that the backend gets, before the route's changes.
    fn uri_for_backend<'a>(uri: Uri<'a>, path: Option<&'a Rc<[u8]>>) -> Uri<'a> {
        path.map_or(uri, |path| Uri { path, ..uri })
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

    /// The client as statistics see it.
    pub fn with_arrival<R>(&self, act: impl FnOnce(statistics::Arrival<'_>) -> R) -> R {
        self.with_request(|this, packet| act(this.arrival(packet)))
    }

    fn arrival<'a>(&'a self, request: &Packet<'a>) -> statistics::Arrival<'a> {
        statistics::Arrival {
            id: &self.cid,
            kind: ConnKind::Ws,
            route: self.route_id(),
            peer_address: request.peer_address,
            secure: self.scheme.is_secure(),
            again: false,
        }
    }

    /// Notes for statistics that the client is here.
    pub fn note_arrival(&self, request: &Packet<'_>, scene: &mut Scene<'_, '_>) {
        scene.cx.shared.arrivals.websockets += 1;
        if !scene.cx.shared.statistics.is_heard() {
            return;
        }
        scene.cx.shared.statistics.begin(&self.arrival(request), scene.cx.now);
        self.count(scene, |report| {
            let uri = request.uri.unwrap_or_default();
            report.client_header_bytes_received += statistics::request_size(b"GET", uri, request.headers);
        });
    }

    /// The route, if it has an id of its own.
    fn route_id(&self) -> Option<&str> {
        self.route.as_ref().filter(|route| route.explicit_id).map(|route| route.id.as_str())
    }

    /// Counts what passes, for statistics.
    fn count(&self, scene: &mut Scene<'_, '_>, add: impl FnOnce(&mut Report<'static>)) {
        self.count_in(scene.cx, add);
    }

    fn count_in(&self, cx: &mut Context<'_>, add: impl FnOnce(&mut Report<'static>)) {
        cx.shared.statistics.count(self.route_id(), cx.now, add);
    }

    /// Writes the line to the log, once there is something to say.
    pub fn log(&mut self, scene: &mut Scene<'_, '_>) {
        let Some(outcome) = self.outcome.take() else { return };
        let config = &scene.cx.shared.config;
        let level = self.route.as_ref().and_then(|route| route.log_level);
        if !config.logs_request(level) {
            return;
        }
        let request = self.request.clone();
        let packet = Packet::decode(&request).unwrap_or_default();
        let target = self.route.as_ref().and_then(|route| route.targets.get(self.target)).map(target_name);
        let line = Line {
            request: &Packet { method: packet.method.or(Some(b"GET")), ..packet },
            uri: &self.client_uri(&packet),
            target: target.as_deref(),
            from: packet.peer_address.filter(|_| config.log_from),
            route: self.route_id(),
            outcome,
            duration: scene.cx.now.saturating_duration_since(self.started),
            retry: false,
            shared: None,
            user_agent: config.log_user_agent,
        };
        scene.cx.links.log(&Note::Request(&line));
    }
}

/// The frame that a `send` item asks for.
pub fn message(item: &Item<'_>) -> Frame {
    let body = Bytes::copy_from_slice(item.message.as_deref().unwrap_or_default());
    match item.content_type.as_deref() {
        Some(b"binary") => Frame::message(true, body),
        Some(b"ping") => Frame::Ping(body),
        Some(b"pong") => Frame::Pong(body),
        _ => Frame::message(false, body),
    }
}

/// The packet that carries a frame.
pub fn packet(frame: &Frame) -> Packet<'_> {
    match frame {
        Frame::Data { binary, more, body } => {
            let content_type: &[u8] = if *binary { b"binary" } else { b"text" };
            Packet { content_type: Some(content_type), more: *more, body, ..Packet::default() }
        }
        Frame::Ping(body) => Packet { kind: Kind::Ping, body, ..Packet::default() },
        Frame::Pong(body) => Packet { kind: Kind::Pong, body, ..Packet::default() },
        Frame::Close(None) => Packet { kind: Kind::Close, ..Packet::default() },
        Frame::Close(Some(status)) => {
            Packet { kind: Kind::Close, code: Some(status.code), body: &status.reason, ..Packet::default() }
        }
    }
}
