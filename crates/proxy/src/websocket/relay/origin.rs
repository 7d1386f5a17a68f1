// SPDX-License-Identifier: AGPL-3.0-or-later
//! The backend's side of a WebSocket.

use bytes::Bytes;
use routes::{Route, Target, TargetKind};
use zhttp::session::Protocol;
use zhttp::session::client::{self, Grant, Outcome as Told, Outgoing, Session};
use zhttp::{Ext, Headers, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId};

use super::super::extension::Verdict;
use super::super::pipe::{Frame, Status};
use super::side::{Closing, Direct, Origin, origin_index};
use super::state::{Frontend, Phase, Relay, Scene};
use crate::context::{Cut, Side};
use crate::error::{ProxyError, Retry};
use crate::exchange::{KeepAlive, failure, open};
use crate::handler::TIMEOUT;
use crate::request::headers::{Additions, Circumstances, Rules, authority, origin_uri, target_name};
use crate::request::uri::Uri;
use crate::statistics;

impl Relay {
    /// Asks the present target.
    pub(super) fn connect(&mut self, scene: &mut Scene<'_, '_>) {
        let Some(route) = self.route.clone() else { return };
        let Some(target) = route.targets.get(self.target) else { return };
        let request = self.request.clone();
        request.with(|packet| self.connect_to(target, packet, &route, scene));
    }

    fn connect_to(&mut self, target: &Target, packet: &Packet<'_>, route: &Route, scene: &mut Scene<'_, '_>) {
        let Some(uri) = Uri::parse(packet.uri.unwrap_or_default()) else {
            return self.fail(&ProxyError::NoRoute, scene);
        };
        let path = self.backend_path(route);
        let uri = Uri { path: path.as_deref().unwrap_or(uri.path), ..uri };
        match &target.kind {
            TargetKind::Test => self.connect_test(&uri, route, scene),
            TargetKind::Host { .. } | TargetKind::Zhttp { .. } if target.over_http => {
                self.open_over_http(target.one_event, scene);
            }
            TargetKind::Host { .. } | TargetKind::Zhttp { .. } => {
                self.open_direct(packet, &uri, route, target, scene);
            }
            _ => self.origin_failed(&ProxyError::TargetKind(target_name(target)), scene),
        }
    }

    fn open_direct(
        &mut self,
        request: &Packet<'_>,
        uri: &Uri<'_>,
        route: &Route,
        target: &Target,
        scene: &mut Scene<'_, '_>,
    ) {
        let name = (self.frontend == Frontend::Counts && self.may_be_kept(scene)).then(|| self.name.text());
        let shared = &mut scene.cx.shared;
        let serial = shared.serial();
        let token = shared.signatures.token(route, scene.cx.unix);
        let what = self.circumstances(request, uri, route, target, &shared.config.rules, token);
        let additions = Additions::new(request.headers, &what);
        let mut headers = additions.headers(request.headers, &what);
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(b"Sec-WebSocket-Extensions"));
        if route.grip {
            headers.push((b"Sec-WebSocket-Extensions", b"grip"));
        }
        let id = Id::indexed(origin_index(self.index), serial);
        let target_uri = origin_uri(uri, route, target);
        // Backends that speak ZHTTP themselves keep nothing.
        let is_host = matches!(target.kind, TargetKind::Host { .. });
        let packet = Packet {
            from: &shared.instance,
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: Ext { coded: true, name: name.as_ref().map(|name| &name[..]).filter(|_| is_host), ..Ext::MULTI },
            method: Some(b"GET"),
            uri: Some(&target_uri),
            headers: Headers::Pairs(&headers),
            router_resp: shared.config.router_resp,
            credits: Some(INITIAL_BODY as u32),
            ..Packet::default()
        };
        shared.statistics.count(self.route_id(), scene.cx.now, |report| {
            report.server_header_bytes_sent += statistics::request_size(b"GET", &target_uri, packet.headers);
        });
        if !open(target, packet, scene.cx.links) {
            return self.fail(&ProxyError::NoOutbound, scene);
        }
        self.origin = Origin::Direct(Box::new(Direct {
            serial,
            session: Session::start(Protocol::WebSocket, INITIAL_BODY as u32, scene.cx.now),
            answer_by: scene.cx.now + TIMEOUT,
            closing: Closing::default(),
            counts: false,
        }));
    }

    /// Everything that decides what the request looks like to a target.
    pub(super) fn circumstances<'a>(
        &self,
        request: &Packet<'a>,
        uri: &Uri<'a>,
        route: &'a Route,
        target: &'a Target,
        rules: &'a Rules,
        token: Option<&'a str>,
    ) -> Circumstances<'a> {
        Circumstances {
            rules,
            route,
            trusted: self.trusted,
            internal: false,
            scheme: self.scheme,
            peer: request.peer_address,
            token,
            inspected: None,
            authority: authority(uri, route, target),
        }
    }

    /// The test backend accepts at `/ws`, subscribes to the channels of the query if it is asked by GRIP, and sends back
    /// what it gets.
    fn connect_test(&mut self, uri: &Uri<'_>, route: &Route, scene: &mut Scene<'_, '_>) {
        let path = uri.path.get(route.path_beg.len()..).unwrap_or_default();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.strip_suffix(b"/").unwrap_or(path) != b"ws" {
            let headers: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"text/plain")];
            let head = (404, &b"Not Found"[..], Headers::Pairs(&headers));
            return self.reject(head, b"no such test resource\n", scene);
        }
        self.origin = Origin::Test;
        let grip: &[(&[u8], &[u8])] = &[(b"Sec-WebSocket-Extensions", b"grip")];
        let headers = if route.grip && !self.trusted { grip } else { &[] };
        self.accept(b"Switching Protocols", Headers::Pairs(headers), scene);
        let (now, progress) = (scene.cx.now, self.progress());
        if let Some(control) = &mut self.control {
            for channel in crate::response::test_target::channels(uri.query) {
                let message =
                    serde_json::json!({"type": "subscribe", "channel": String::from_utf8_lossy(&channel)}).to_string();
                control.instruct(&self.name.text(), message.as_bytes(), progress, now, scene.items);
            }
        }
        // What it sends back has no prefix to take off.
        self.extension = None;
    }

    /// Takes in a packet from the backend's side.
    pub fn origin_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        scene: &mut Scene<'_, '_>,
    ) {
        let Origin::Direct(direct) = &mut self.origin else {
            return self.over_http_packet(packet, from, seq, scene);
        };
        let told = direct.session.on_packet(packet, from, seq, scene.cx.now);
        if told.is_ok() {
            self.count_down(packet);
        }
        match told {
            Ok(Told::Alive) if self.phase == Phase::Claiming => self.claimed(packet, scene),
            Ok(_) if self.phase == Phase::Claiming => self.claim_failed(scene),
            Ok(Told::Data) if self.phase == Phase::Connecting => {
                self.origin.count(packet.ext.had.is_some());
                let reason = packet.reason.unwrap_or(b"Switching Protocols");
                self.accept(reason, packet.headers, scene);
            }
            Ok(Told::Data) => {
                let binary = packet.content_type == Some(b"binary");
                let body = Bytes::copy_from_slice(packet.body);
                self.on_origin_frame(Frame::Data { binary, more: packet.more, body }, scene);
            }
            Ok(Told::Control) => {
                let body = Bytes::copy_from_slice(packet.body);
                let frame = match packet.kind {
                    Kind::Ping => Frame::Ping(body),
                    Kind::Pong => Frame::Pong(body),
                    _ => {
                        self.origin.close_received();
                        Frame::Close(packet.code.map(|code| Status { code, reason: body }))
                    }
                };
                self.on_origin_frame(frame, scene);
            }
            Ok(Told::Alive) => self.grant_origin(0, scene),
            Ok(Told::HandOff(_)) => return self.origin_violated("a hand-off by the outbound process", scene),
            Ok(Told::Ended) => {
                let rejected = packet.kind == Kind::Error && packet.condition == Some(b"rejected");
                self.origin = Origin::None;
                if rejected && self.phase == Phase::Connecting {
                    let head = (packet.code.unwrap_or(502), packet.reason.unwrap_or_default(), packet.headers);
                    return self.reject(head, packet.body, scene);
                }
                return self.origin_failed(&failure(packet), scene);
            }
            Err(violation) => return self.origin_violated(violation, scene),
        }
        self.flush(scene);
    }

    /// A frame of the backend has come.
    pub(super) fn on_origin_frame(&mut self, frame: Frame, scene: &mut Scene<'_, '_>) {
        self.count(scene, |report| {
            report.server_content_bytes_received += statistics::length(frame.len());
            report.server_messages_received += frame.messages();
        });
        if let Frame::Close(_) = frame {
            self.expect_close(scene.cx.now);
        }
        let most = scene.cx.shared.config.max_message_size;
        let (owed, verdict) = match &mut self.extension {
            _ if self.detached => (frame.len(), Verdict::Drop),
            // What is held back is paid back with what follows.
            Some(extension) => (extension.held_back() + frame.len(), extension.judge(frame, most)),
            None => (frame.len(), Verdict::Pass(frame)),
        };
        match verdict {
            Verdict::Pass(frame) => {
                let stripped = owed - frame.len();
                self.grant_origin(stripped, scene);
                self.relay_framed(frame, owed - stripped, scene);
            }
            Verdict::Control(message) => {
                let (progress, is_new) = (self.progress(), self.is_unhandled());
                if let Some(control) = self.control.as_mut().filter(|_| is_new) {
                    control.instruct(&self.name.text(), &message, progress, scene.cx.now, scene.items);
                }
                self.note_change(is_new);
                self.grant_origin(owed, scene);
            }
            Verdict::HeldBack => {}
            Verdict::Kept | Verdict::Drop => self.grant_origin(owed, scene),
            Verdict::TooLong => self.fail(&ProxyError::ControlTooLarge(most), scene),
        }
    }

    fn origin_violated(&mut self, violation: impl ToString, scene: &mut Scene<'_, '_>) {
        self.drop_origin(scene);
        self.origin_failed(&ProxyError::OutboundViolation(violation.to_string()), scene);
    }

    /// The backend's side has given up, or was given up.
    pub(super) fn origin_failed(&mut self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
        let more = self.route.as_ref().is_some_and(|route| self.target + 1 < route.targets.len());
        match self.phase {
            Phase::Connecting if more && error.retry() == Retry::Safe => {
                self.warn(error, scene);
                self.target += 1;
                self.connect(scene);
            }
            Phase::Connecting => self.fail(error, scene),
            Phase::Claiming => self.claim_failed(scene),
            // The client has been told that it ends, or is the handler's business now.
            Phase::Open if self.detached || self.client_closing.sent => self.settle(scene),
            // Its close frame is on the way to the client.
            Phase::Open if self.close_by().is_some() && !self.down.is_empty() => {}
            // The outbound process has taken the connection with it.
            Phase::Open if matches!(error, ProxyError::OutboundLeft | ProxyError::OutboundFull) => {
                self.warn(error, scene);
                self.close(Some(Status::restarted()), scene);
            }
            Phase::Open => self.fail(error, scene),
            Phase::Over => {}
        }
    }

    /// Ends the session with the backend's side, if there is one.
    pub(super) fn drop_origin(&mut self, scene: &mut Scene<'_, '_>) {
        if let Origin::OverHttp(_) = self.origin {
            return self.part_over_http(scene);
        }
        let Origin::Direct(mut direct) = std::mem::replace(&mut self.origin, Origin::None) else { return };
        if direct.closing.is_done() && self.is_settled() {
            return;
        }
        let id = Id::indexed(origin_index(self.index), direct.serial);
        let shared = &mut scene.cx.shared;
        if let Some(to) = direct.session.send() {
            let ids = Ids::One(id.as_bytes(), Some(to.seq));
            let packet = Packet { from: &shared.instance, ids, kind: Kind::Cancel, ..Packet::default() };
            if !scene.cx.links.to_origin(shared.peers.name(to.to), &packet) {
                shared.cut.push(Cut { peer: to.to, id, side: Side::Origin });
            }
        }
    }

    /// Sends as much as the backend's side takes.
    pub(super) fn flush_up(&mut self, scene: &mut Scene<'_, '_>) {
        if self.phase != Phase::Open {
            return;
        }
        if let Origin::OverHttp(_) = self.origin {
            return self.flush_over_http(scene);
        }
        loop {
            let Origin::Direct(direct) = &mut self.origin else { return };
            if direct.closing.sent || direct.session.server().is_none() {
                return;
            }
            let Some(leaving) = self.up.next(direct.session.credits() as usize) else { return };
            let Some(to) = direct.session.send_body(leaving.frame.len()) else { return };
            direct.closing.sent |= matches!(leaving.frame, Frame::Close(_));
            self.count_sent_up(&leaving.frame, scene);
            if !self.send_origin(to, leaving.frame.packet(), scene) {
                return self.cut_origin(scene);
            }
            self.grant_client(leaving.owed, scene);
        }
    }

    pub(super) fn send_origin(&mut self, to: Outgoing, packet: Packet<'_>, scene: &mut Scene<'_, '_>) -> bool {
        let had = self.had();
        let Origin::Direct(direct) = &self.origin else { return true };
        let id = Id::indexed(origin_index(self.index), direct.serial);
        let shared = &scene.cx.shared;
        let ext = Ext { had, ..packet.ext };
        let packet = Packet { from: &shared.instance, ids: Ids::One(id.as_bytes(), Some(to.seq)), ext, ..packet };
        scene.cx.links.to_origin(shared.peers.name(to.to), &packet)
    }

    /// A packet to the outbound process was not taken.
    pub fn cut_origin(&mut self, scene: &mut Scene<'_, '_>) {
        if let Origin::OverHttp(_) = self.origin {
            return self.cut_request(scene);
        }
        if let Origin::Direct(direct) = &self.origin
            && let Some(peer) = direct.session.server()
        {
            let id = Id::indexed(origin_index(self.index), direct.serial);
            scene.cx.shared.cut.push(Cut { peer, id, side: Side::Origin });
        }
        self.origin = Origin::None;
        self.origin_failed(&ProxyError::OutboundFull, scene);
    }

    /// Counts bytes that have left for the client, and grants as many to the backend once that is worth a packet.
    pub(super) fn grant_origin(&mut self, bytes: usize, scene: &mut Scene<'_, '_>) {
        let Origin::Direct(direct) = &mut self.origin else { return };
        if direct.closing.received {
            return;
        }
        if let Grant::Now(to, credits) = direct.session.pass_on(bytes, scene.cx.now) {
            let packet = Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() };
            if !self.send_origin(to, packet, scene) {
                self.cut_origin(scene);
            }
        }
    }

    /// Whether its session is with this instance.
    pub fn is_at(&self, peer: PeerId) -> bool {
        match &self.origin {
            Origin::Direct(direct) => direct.session.server() == Some(peer),
            Origin::OverHttp(over_http) => over_http.server() == Some(peer),
            Origin::None | Origin::Test => false,
        }
    }

    /// The outbound process `peer` is gone.
    pub fn outbound_left(&mut self, peer: Option<PeerId>, scene: &mut Scene<'_, '_>) {
        let Origin::Direct(direct) = &mut self.origin else { return self.over_http_lost(peer, scene) };
        match direct.session.server() {
            None => direct.answer_by = direct.answer_by.min(scene.cx.now + super::super::DOUBT),
            server if server == peer => {
                self.origin = Origin::None;
                self.origin_failed(&ProxyError::OutboundLeft, scene);
            }
            Some(_) => {}
        }
    }

    pub(super) fn origin_timer(&mut self, scene: &mut Scene<'_, '_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        if let Origin::OverHttp(_) = self.origin {
            return self.over_http_timer(scene, keep_alive);
        }
        let index = origin_index(self.index);
        while let Origin::Direct(direct) = &mut self.origin {
            if !direct.session.is_answered() && scene.cx.now >= direct.answer_by {
                self.origin = Origin::None;
                return self.origin_failed(&ProxyError::NoOutbound, scene);
            }
            match direct.session.on_timer(scene.cx.now) {
                client::Due::Nothing => return,
                client::Due::KeepAlive(to) => {
                    keep_alive(KeepAlive::Origin { to, id: Id::indexed(index, direct.serial) });
                }
                client::Due::Expired => {
                    self.origin = Origin::None;
                    return self.origin_failed(&ProxyError::OutboundSilent, scene);
                }
                client::Due::Spent => return self.origin_violated("its session has no numbers left", scene),
            }
        }
    }
}
