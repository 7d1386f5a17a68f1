// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a WebSocket begins: its route, its target, and what its client is answered.

use std::sync::Arc;

use routes::{ById, Protocol, Route, Table as Routes};
use zhttp::recovery::PROXY;
use zhttp::{Ext, Headers, Kind, Packet, Record};

use super::super::control::Control;
use super::super::control::Introduction;
use super::super::extension::Extension;
use super::state::{Phase, Relay, Scene};
use crate::access_log::Outcome;
use crate::error::ProxyError;
use crate::request::forwarded;
use crate::request::uri::Uri;
use crate::sockjs::framing::Framing;
use crate::sockjs::page;
use crate::sockjs::place::Place;
use crate::statistics;

impl Relay {
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

    /// A backend has accepted the WebSocket.
    pub(super) fn accept(&mut self, reason: &[u8], headers: Headers<'_>, scene: &mut Scene<'_, '_>) {
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
    pub(super) fn reject(&mut self, head: (u16, &[u8], Headers<'_>), body: &[u8], scene: &mut Scene<'_, '_>) {
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
    pub(super) fn fail(&mut self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
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
}
