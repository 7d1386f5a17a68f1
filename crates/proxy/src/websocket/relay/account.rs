// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is told of a WebSocket: in the log, and to statistics.

use rpc::stats::{ConnKind, Report};
use rpc::uuid::Text;
use wire::request_id;
use zhttp::Packet;

use super::super::pipe::Frame;
use super::state::{Relay, Scene};
use crate::access_log::Line;
use crate::context::{Context, Note};
use crate::error::ProxyError;
use crate::request::forwarded;
use crate::request::headers::{Rules, target_name};
use crate::statistics;

impl Relay {
    pub(super) fn warn(&self, error: &ProxyError, scene: &mut Scene<'_, '_>) {
        let (uri, id) = self.with_request(|this, packet| {
            let id = request_id::of(packet.headers.iter()).map(|id| format!(" id={id}"));
            (this.client_uri(packet), id.unwrap_or_default())
        });
        let target = self.route.as_ref().and_then(|route| route.targets.get(self.target));
        let target = target.map(|target| format!(" -> {}", target_name(target))).unwrap_or_default();
        let text = format!("{}{target}: {error}{id}", uri.escape_ascii());
        scene.cx.links.log(&Note::Warning { kind: error.kind(), text: &text });
    }

    /// Counts a frame that leaves for the client, for statistics.
    pub fn count_sent(&self, frame: &Frame, cx: &mut Context<'_>) {
        self.count_in(cx, |report| {
            report.client_content_bytes_sent += statistics::length(frame.len());
            report.client_messages_sent += frame.messages();
        });
    }

    /// Counts a frame that leaves for the backend, for statistics.
    pub(super) fn count_sent_up(&self, frame: &Frame, scene: &mut Scene<'_, '_>) {
        self.count(scene, |report| {
            report.server_content_bytes_sent += statistics::length(frame.len());
            report.server_messages_sent += frame.messages();
        });
    }

    /// The client as statistics see it.
    pub fn with_arrival<R>(&self, rules: &Rules, act: impl FnOnce(statistics::Arrival<'_>) -> R) -> R {
        self.with_request(|this, packet| act(this.arrival(&this.name.text(), packet, rules)))
    }

    pub(super) fn arrival<'a>(
        &'a self,
        name: &'a Text,
        request: &Packet<'a>,
        rules: &Rules,
    ) -> statistics::Arrival<'a> {
        statistics::Arrival {
            id: name,
            kind: ConnKind::Ws,
            route: self.route_id(),
            peer_address: forwarded::logical_address(
                request.headers,
                rules.forwarded_for(self.trusted),
                request.peer_address,
            ),
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
        let name = self.name.text();
        let arrival = self.arrival(&name, request, &scene.cx.shared.config.rules);
        scene.cx.shared.statistics.begin(&arrival, scene.cx.now);
        self.count(scene, |report| {
            let uri = request.uri.unwrap_or_default();
            report.client_header_bytes_received += statistics::request_size(b"GET", uri, request.headers);
        });
    }

    /// Notes for statistics that a client of a predecessor is here.
    pub fn note_return(&self, request: &Packet<'_>, scene: &mut Scene<'_, '_>) {
        let name = self.name.text();
        let arrival =
            statistics::Arrival { again: true, ..self.arrival(&name, request, &scene.cx.shared.config.rules) };
        scene.cx.shared.statistics.begin(&arrival, scene.cx.now);
    }

    /// The route, if it has an id of its own.
    pub(super) fn route_id(&self) -> Option<&str> {
        self.route.as_ref().filter(|route| route.explicit_id).map(|route| route.id.as_str())
    }

    /// Counts what passes, for statistics.
    pub(super) fn count(&self, scene: &mut Scene<'_, '_>, add: impl FnOnce(&mut Report<'static>)) {
        self.count_in(scene.cx, add);
    }

    pub(super) fn count_in(&self, cx: &mut Context<'_>, add: impl FnOnce(&mut Report<'static>)) {
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
        let target = self.route.as_ref().and_then(|route| route.targets.get(self.target)).map(target_name);
        self.with_request(|this, packet| {
            let line = Line {
                request: &Packet { method: packet.method.or(Some(b"GET")), ..*packet },
                uri: &this.client_uri(packet),
                target: target.as_deref(),
                from: packet.peer_address.filter(|_| config.log_from),
                route: this.route_id(),
                outcome,
                duration: scene.cx.now.saturating_duration_since(this.client.opened()),
                retry: false,
                shared: None,
                user_agent: config.log_user_agent,
                id: request_id::of(packet.headers.iter()),
            };
            scene.cx.links.log(&Note::Request(&line));
        });
    }
}
