// SPDX-License-Identifier: AGPL-3.0-or-later
//! Asks frontends for what they have kept of a predecessor, and hears them and the proxy.

use std::time::Instant;

use rpc::ws_control;
use transport::Change;
use zhttp::inquiry::News;

use super::Worker;
use crate::context::{Actions as _, Context};
use crate::engine::recovering::{Recovering, Told};

/// How many frontends are to be asked at these addresses. Only of those on this machine the end of a link is known.
pub(super) fn frontends(specs: &[String]) -> usize {
    let local = specs.iter().all(|spec| spec.starts_with("ipc:"));
    if local { specs.len() } else { 0 }
}

impl Worker {
    /// A frontend has come or gone, or says that it can be asked. Whether that was all that the change says.
    pub(super) fn note_for_recovery(&mut self, change: &Change, by_router: bool) -> bool {
        let (name, joins) = change.parts();
        let News { instance, is_topic, change } = News::of(name, joins, by_router);
        let Some(frontend) = self.outputs.peers.intern(instance) else { return is_topic };
        if let Some(change) = change
            && self.recovering.on_change(frontend, change)
            && let Err(error) = self.outputs.stream.send(instance, &Recovering::question())
        {
            let text = format_args!("a frontend can not be asked for what it has kept: {error}");
            self.outputs.warnings.warn("recover", self.outputs.now, text);
        }
        is_topic
    }

    /// A frontend tells what it has kept.
    pub(super) fn on_recovery(&mut self, from: &[u8], message: &[u8], now: Instant) {
        let Some(frontend) = self.outputs.peers.find(from) else { return };
        match Told::read(message, &mut self.outputs.peers) {
            Ok(told) => {
                let trusted = self.arrears.arrears.trusts(from);
                let cx = &mut Context::new(now, &mut self.outputs);
                if self.recovering.on_told(frontend, trusted, told, &mut self.engine, cx) {
                    self.arrears.arrears.on_heard(from);
                }
            }
            Err(error) => {
                let text = format_args!("what a frontend has kept can not be read: {error}");
                self.outputs.warnings.warn("recovery", now, text);
            }
        }
    }

    /// The proxy may have ended. What no proxy has got yet about WebSockets is not for its successor, who does not know them yet.
    pub(super) fn look_for_proxy(&mut self, now: Instant) {
        if self.outputs.has_proxy_left() && self.engine.goes_on_without_proxy() {
            self.engine.flush(&mut Context::new(now, &mut self.outputs));
            self.outputs.drop_control();
            self.engine.proxy_left();
        }
    }

    /// The proxy says which messages its WebSockets may have, in front of all WebSockets.
    pub(super) fn note_marks(&mut self, packet: &ws_control::Packet<'_>, now: Instant) {
        if let Some(proxy) = packet.from.as_deref().and_then(|from| self.outputs.peers.intern(from)) {
            self.engine.note_sent_to_sockets(proxy, &packet.marks, now);
        }
    }

    /// The proxy has named all its WebSockets.
    pub(super) fn on_all_named(&mut self, now: Instant) {
        if self.recovering.on_all_named(&mut self.engine, &mut Context::new(now, &mut self.outputs)) {
            let answer = ws_control::Packet { takes_up: true, ..ws_control::Packet::default() };
            self.outputs.control(&answer);
        }
    }

    /// Begins to publish when all frontends have been heard, or it has taken too long.
    pub(super) fn end_recovery(&mut self, now: Instant) {
        let has_proxy = self.outputs.has_proxy();
        if self.recovering.end(has_proxy, &mut self.engine, &mut Context::new(now, &mut self.outputs)) {
            if self.recovering.note_heard(&mut self.arrears.arrears, &self.outputs.peers) {
                self.write_arrears(now);
            }
            [super::ACCEPT, super::COMMAND].into_iter().for_each(|socket| self.reactor.pause(socket, false));
        }
    }
}
