// SPDX-License-Identifier: AGPL-3.0-or-later
//! The backend's side of a WebSocket that goes over HTTP: sends the requests of the conversation, and passes its events on.

use bytes::Bytes;
use routes::Route;
use zhttp::session::client::{self, Grant, Outgoing};
use zhttp::{Ext, Headers, INITIAL_BODY, Id, Ids, Kind, Packet, PeerId};

use super::super::over_http::asking::{Asking, Bounds, Head, Step};
use super::super::over_http::queue::Overflow;
use super::super::over_http::{Ask, Conversation, Failure, Loss, MAX_REFUSAL, answer, request};
use super::super::pipe::Status;
use super::side::{Origin, OverHttp, origin_index};
use super::state::{Relay, Scene};
use crate::context::{Cut, Side};
use crate::error::{ProxyError, Retry};
use crate::exchange::{KeepAlive, failure, open};
use crate::handler::TIMEOUT;
use crate::request::headers::{Additions, origin_uri};
use crate::request::uri::{Scheme, Uri};
use crate::statistics::request_size;

/// While so much waits for the client, the backend is not asked for more. Nothing is dropped, so no setting is needed.
const BACKLOG: usize = 200_000;

impl Relay {
    /// Begins a conversation with the present target.
    pub(super) fn open_over_http(&mut self, one_event: bool, scene: &mut Scene<'_, '_>) {
        let conversation = Conversation::new(one_event, self.jitter());
        self.origin = Origin::OverHttp(Box::new(OverHttp::new(conversation)));
        self.ask(scene);
    }

    /// A product of the serial, so that connections of one moment differ.
    pub(super) fn jitter(&self) -> u64 {
        self.serial.wrapping_mul(0x9e37_79b9) >> 7
    }

    fn conversation(&mut self) -> Option<&mut OverHttp> {
        match &mut self.origin {
            Origin::OverHttp(over_http) => Some(over_http),
            _ => None,
        }
    }

    /// Passes on what the client has said.
    pub(super) fn flush_over_http(&mut self, scene: &mut Scene<'_, '_>) {
        while let Some(mut leaving) = self.up.next(usize::MAX) {
            self.count_sent_up(&leaving.frame, scene);
            let (free, source) = (self.take_off(&mut leaving.frame), self.source());
            self.grant_client(free, scene);
            let Some(over_http) = self.conversation() else { return };
            match over_http.conversation.push(leaving.frame, source) {
                Ok(()) => {}
                Err(failure @ Failure::Overflow(Overflow::Message)) => {
                    self.warn(&ProxyError::Events(failure.to_string()), scene);
                    // Nothing that waits can follow a message that has no end.
                    self.up = Default::default();
                    let reason = Bytes::from_static(b"message too large");
                    return self.close(Some(Status { code: 1009, reason }), scene);
                }
                Err(failure) => return self.fail(&ProxyError::Events(failure.to_string()), scene),
            }
        }
        self.ask(scene);
    }

    /// The backend must be asked again, as the handler wishes.
    pub fn refresh(&mut self, scene: &mut Scene<'_, '_>) {
        if let Some(over_http) = self.conversation() {
            over_http.conversation.refresh();
            self.ask(scene);
        }
    }

    /// Makes the next request if it is time for one.
    fn ask(&mut self, scene: &mut Scene<'_, '_>) {
        let slow = self.down.waiting() >= BACKLOG;
        let Some(over_http) = self.conversation() else { return };
        if let Some(ask) = over_http.conversation.next(slow) {
            self.send_ask(&ask, scene);
        }
    }

    fn send_ask(&mut self, ask: &Ask, scene: &mut Scene<'_, '_>) {
        let Some(route) = self.route.clone() else { return };
        let serial = scene.cx.shared.serial();
        let config = &scene.cx.shared.config;
        let bounds =
            Bounds { taken_within: TIMEOUT, answered_within: config.events_timeout, answer: config.max_message_size };
        let asking = Asking::start(serial, ask.body.clone(), bounds, scene.cx.now);
        let opened = self.with_request(|this, packet| this.open_request(ask, serial, packet, &route, scene));
        let Some(over_http) = self.conversation() else { return };
        over_http.asking = Some(Box::new(asking));
        if !opened {
            self.request_failed(&ProxyError::NoOutbound, scene);
        }
    }

    fn open_request(
        &self,
        ask: &Ask,
        serial: u64,
        request: &Packet<'_>,
        route: &Route,
        scene: &mut Scene<'_, '_>,
    ) -> bool {
        let Some(uri) = Uri::parse(request.uri.unwrap_or_default()) else { return false };
        let path = self.backend_path(route);
        let uri = Uri { path: path.as_deref().unwrap_or(uri.path), ..uri };
        let Some(target) = route.targets.get(self.target) else { return false };
        let Origin::OverHttp(over_http) = &self.origin else { return false };
        let shared = &mut scene.cx.shared;
        let token = shared.signatures.token_for_events(route, scene.cx.unix);
        let what = self.circumstances(request, &uri, route, target, &shared.config.rules, token);
        let additions = Additions::new(request.headers, &what);
        let mut headers = additions.headers(request.headers, &what);
        headers.retain(|(name, _)| request::stays(name));
        if route.grip {
            headers.push((b"Sec-WebSocket-Extensions", b"grip"));
        }
        // A backend of events believes nobody but us, so that even what a trusted client has signed is signed anew.
        headers.extend(token.map(|token| (&b"Grip-Sig"[..], token.as_bytes())));
        let length = ask.body.len().to_string();
        let replayed = ask.replayed.to_string();
        let uncertain = ask.uncertain.map(|bytes| bytes.to_string());
        headers.push((b"Accept", b"application/websocket-events"));
        let name = self.name.text();
        headers.push((b"Connection-Id", &name));
        headers.push((b"Content-Type", b"application/websocket-events"));
        headers.push((b"Content-Length", length.as_bytes()));
        if ask.replayed > 0 {
            headers.push((b"Content-Bytes-Replayed", replayed.as_bytes()));
        }
        if let Some(uncertain) = &uncertain {
            headers.push((b"Content-Bytes-Uncertain", uncertain.as_bytes()));
        }
        let meta = over_http.conversation.meta().iter();
        let meta: Vec<_> = meta.map(|(name, value)| ([b"Meta-", &name[..]].concat(), value)).collect();
        headers.extend(meta.iter().map(|(name, value)| (&name[..], &value[..])));
        let uri = Uri { scheme: Scheme::Http, ..uri };
        let target_uri = origin_uri(&uri, route, target);
        shared.statistics.count(self.route_id(), scene.cx.now, |report| {
            report.server_header_bytes_sent += request_size(b"POST", &target_uri, Headers::Pairs(&headers));
        });
        let id = Id::indexed(origin_index(self.index), serial);
        let packet = Packet {
            from: &shared.instance,
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: Ext { coded: true, ..Ext::MULTI },
            method: Some(b"POST"),
            uri: Some(&target_uri),
            headers: Headers::Pairs(&headers),
            more: !ask.body.is_empty(),
            stream: true,
            router_resp: shared.config.router_resp,
            credits: Some(INITIAL_BODY as u32),
            ..Packet::default()
        };
        open(target, packet, scene.cx.links)
    }

    /// Takes in a packet of the request under way.
    pub(super) fn over_http_packet(
        &mut self,
        packet: &Packet<'_>,
        from: Option<PeerId>,
        seq: Option<u32>,
        scene: &mut Scene<'_, '_>,
    ) {
        let Some(over_http) = self.conversation() else { return };
        let Some(asking) = &mut over_http.asking else { return };
        match asking.on_packet(packet, from, seq, scene.cx.now) {
            Ok(Step::Going(bytes)) => {
                if let Grant::Now(to, credits) = asking.session.pass_on(bytes, scene.cx.now) {
                    self.grant_request(to, credits, scene);
                }
                self.send_body(scene);
            }
            Ok(Step::Answered(head, body)) => {
                over_http.asking = None;
                self.answered(&head, body, scene);
                self.flush(scene);
            }
            Ok(Step::Ended) => {
                let error = failure(packet);
                self.request_failed(&error, scene);
            }
            Err(violation) => {
                self.cancel_request(scene);
                self.conversation_failed(&violation, scene);
            }
        }
    }

    /// Sends as much of the request's body as the outbound process takes.
    fn send_body(&mut self, scene: &mut Scene<'_, '_>) {
        loop {
            let Some(asking) = self.conversation().and_then(|over_http| over_http.asking.as_mut()) else { return };
            let Some((body, more)) = asking.next_piece() else { return };
            let Some(to) = asking.session.send_body(body.len()) else { return };
            if !self.send_request(to, Packet { body: &body, more, ..Packet::default() }, scene) {
                return self.cut_request(scene);
            }
        }
    }

    fn grant_request(&mut self, to: Outgoing, credits: u32, scene: &mut Scene<'_, '_>) {
        let packet = Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() };
        if !self.send_request(to, packet, scene) {
            self.cut_request(scene);
        }
    }

    fn request_id(&self) -> Option<Id> {
        let Origin::OverHttp(over_http) = &self.origin else { return None };
        over_http.asking.as_ref().map(|asking| Id::indexed(origin_index(self.index), asking.serial))
    }

    fn send_request(&self, to: Outgoing, packet: Packet<'_>, scene: &mut Scene<'_, '_>) -> bool {
        let Some(id) = self.request_id() else { return true };
        let shared = &scene.cx.shared;
        let packet = Packet { from: &shared.instance, ids: Ids::One(id.as_bytes(), Some(to.seq)), ..packet };
        scene.cx.links.to_origin(shared.peers.name(to.to), &packet)
    }

    /// Tells the outbound process that nobody waits for the answer any more.
    fn cancel_request(&mut self, scene: &mut Scene<'_, '_>) {
        let Some(id) = self.request_id() else { return };
        let Some(mut asking) = self.conversation().and_then(|over_http| over_http.asking.take()) else { return };
        if let Some(to) = asking.session.send() {
            let shared = &mut scene.cx.shared;
            let ids = Ids::One(id.as_bytes(), Some(to.seq));
            let packet = Packet { from: &shared.instance, ids, kind: Kind::Cancel, ..Packet::default() };
            if !scene.cx.links.to_origin(shared.peers.name(to.to), &packet) {
                shared.cut.push(Cut { peer: to.to, id, side: Side::Origin });
            }
        }
    }

    /// A packet of the request was not taken.
    pub(super) fn cut_request(&mut self, scene: &mut Scene<'_, '_>) {
        let server = self.conversation().and_then(|over_http| over_http.asking.as_ref()?.session.server());
        if let (Some(peer), Some(id)) = (server, self.request_id()) {
            scene.cx.shared.cut.push(Cut { peer, id, side: Side::Origin });
        }
        self.request_failed(&ProxyError::OutboundFull, scene);
    }

    /// An answer is there.
    fn answered(&mut self, head: &Head, body: Bytes, scene: &mut Scene<'_, '_>) {
        let Some(over_http) = self.conversation() else { return };
        let opening = over_http.conversation.is_opening();
        let answer = head.answer();
        let heard = over_http.conversation.on_answer(&answer, body.clone(), scene.cx.now);
        let closed = over_http.conversation.is_closed_by_backend();
        self.note_change(answer.interval.is_some() || !answer.meta.is_empty() || closed);
        if self.is_over() {
            return self.go_on_parting(scene);
        }
        self.grant_client(heard.accepted, scene);
        if heard.left_out > 0 {
            let text = format!("{} Set-Meta- headers are left out, since there are too many", heard.left_out);
            self.warn(&ProxyError::Events(text), scene);
        }
        if let Some(failure) = &heard.failure
            && opening
            && !(heard.opened && failure.is_after_opening())
        {
            return match failure {
                Failure::Refused if body.len() <= MAX_REFUSAL => {
                    self.origin = Origin::None;
                    self.reject((head.code, &head.reason, Headers::Pairs(&head.pairs())), &body, scene);
                }
                _ => self.conversation_failed(failure, scene),
            };
        }
        if heard.opened {
            let mut headers = head.pairs();
            headers.retain(|(name, _)| answer::is_for_client(name));
            self.accept(b"Switching Protocols", Headers::Pairs(&headers), scene);
        }
        for frame in heard.frames {
            self.on_origin_frame(frame, scene);
        }
        if let Some(failure) = heard.failure {
            self.flush_down(scene);
            self.conversation_failed(&failure, scene);
        }
    }

    fn conversation_failed(&mut self, failure: &dyn std::fmt::Display, scene: &mut Scene<'_, '_>) {
        self.origin = Origin::None;
        self.origin_failed(&ProxyError::Events(failure.to_string()), scene);
    }

    /// The request under way has failed, and its session is over.
    fn request_failed(&mut self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
        let now = scene.cx.now;
        let Some(over_http) = self.conversation() else { return };
        let handed_over = over_http.asking.take().is_none_or(|asking| asking.is_handed_over());
        let cut_off = matches!(error, ProxyError::OutboundLeft | ProxyError::OutboundFull | ProxyError::OutboundSilent);
        let lost = cut_off || matches!(error, ProxyError::Broken(_));
        // Where WebSockets go on with successors, events are delivered at least once.
        let at_least_once = !scene.cx.shared.config.recover_wait.is_zero();
        let loss = match (error, error.retry()) {
            (_, Retry::Safe) | (ProxyError::NoOutbound, _) => Loss::Request,
            _ if lost && !handed_over => Loss::Request,
            _ if cut_off && at_least_once => Loss::Answer,
            _ => Loss::Both,
        };
        if over_http.conversation.on_failure(loss, now) {
            if !self.is_over() {
                self.warn(error, scene);
            }
        } else if self.is_over() {
            self.go_on_parting(scene);
        } else {
            self.origin = Origin::None;
            self.origin_failed(error, scene);
        }
    }

    /// The client is gone: the backend is told, after the request under way.
    pub(super) fn part_over_http(&mut self, scene: &mut Scene<'_, '_>) {
        let may_part = scene.may_part;
        let Some(over_http) = self.conversation() else { return };
        over_http.conversation.part();
        if !may_part {
            return self.abandon_over_http(scene);
        }
        self.go_on_parting(scene);
    }

    /// Ends the conversation without a word.
    pub(super) fn abandon_over_http(&mut self, scene: &mut Scene<'_, '_>) {
        if let Origin::OverHttp(_) = self.origin {
            self.cancel_request(scene);
            self.origin = Origin::None;
        }
    }

    fn go_on_parting(&mut self, scene: &mut Scene<'_, '_>) {
        self.ask(scene);
        if self.conversation().is_some_and(|over_http| over_http.conversation.is_over()) {
            self.abandon_over_http(scene);
        }
    }

    /// The outbound process `peer` is gone.
    pub(super) fn over_http_lost(&mut self, peer: Option<PeerId>, scene: &mut Scene<'_, '_>) {
        let Some(asking) = self.conversation().and_then(|over_http| over_http.asking.as_mut()) else { return };
        match asking.session.server() {
            None => asking.taken_by = asking.taken_by.min(scene.cx.now + super::super::DOUBT),
            server if server == peer => self.request_failed(&ProxyError::OutboundLeft, scene),
            Some(_) => {}
        }
    }

    pub(super) fn over_http_timer(&mut self, scene: &mut Scene<'_, '_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let now = scene.cx.now;
        let Some(over_http) = self.conversation() else { return };
        over_http.conversation.on_timer(now);
        if let Some(ask) = over_http.conversation.repeat(now) {
            return self.send_ask(&ask, scene);
        }
        if let Some(id) = self.request_id() {
            self.request_timer(id, scene, keep_alive);
        }
        self.ask(scene);
    }

    fn request_timer(&mut self, id: Id, scene: &mut Scene<'_, '_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        let now = scene.cx.now;
        loop {
            let Some(asking) = self.conversation().and_then(|over_http| over_http.asking.as_mut()) else { return };
            if !asking.session.is_answered() && now >= asking.taken_by {
                return self.request_failed(&ProxyError::NoOutbound, scene);
            }
            if now >= asking.answer_by {
                let error = ProxyError::Broken("no answer to WebSocket events within 60 s".into());
                self.cancel_request(scene);
                return self.request_failed(&error, scene);
            }
            if asking.session.grant_due().is_some_and(|at| at <= now)
                && let Some((to, credits)) = asking.session.grant()
            {
                self.grant_request(to, credits, scene);
                continue;
            }
            match asking.session.on_timer(now) {
                client::Due::Nothing => return,
                client::Due::KeepAlive(to) => keep_alive(KeepAlive::Origin { to, id }),
                client::Due::Expired => return self.request_failed(&ProxyError::OutboundSilent, scene),
                client::Due::Spent => {
                    self.cancel_request(scene);
                    return self.conversation_failed(&"its session has no numbers left", scene);
                }
            }
        }
    }
}
