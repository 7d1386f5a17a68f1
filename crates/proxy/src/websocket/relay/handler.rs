// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a WebSocket and the handler tell each other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use routes::Route;
use rpc::ws_control::{Client, Item, Kind as ItemKind, Lane};
use zhttp::Id;
use zhttp::session::server::Outgoing;

use super::super::control::{Control, Introduction, Progress};
use super::super::had::Named;
use super::super::pipe::{Frame, Status};
use super::state::{Phase, Relay, Scene};
use crate::context::Way;
use crate::sockjs::framing;

impl Relay {
    pub(super) fn introduction<'a>(&self, uri: &'a [u8], route: &'a Route) -> Introduction<'a> {
        Introduction {
            uri,
            route: &route.id,
            separate_stats: route.explicit_id,
            channel_prefix: &route.prefix,
            trusted: route.targets.get(self.target).is_some_and(|target| target.trusted),
            debug: route.debug,
            lane: None,
        }
    }

    /// What the handler needs to push into the client's session. Frames of SockJS are ours to make.
    pub(super) fn second_lane(&self, scene: &Scene<'_, '_>) -> Option<(Client<'static>, Lane)> {
        let credits = self.lane.filter(|_| self.framing.is_none())?;
        let (peer, id) = self.client_key();
        let sender = scene.cx.shared.peers.name(peer).to_vec().into();
        let client = Client { sender, id: id.as_bytes().to_vec().into(), router_resp: self.client.by_router() };
        Some((client, Lane { credits }))
    }

    pub(super) fn progress(&self) -> Progress {
        let clear = self.down.has_left(self.down.end()).then(|| self.client.next_out());
        Progress { end: self.down.end(), clear }
    }

    /// Takes in an item of the handler; gives the number under which it is to be answered now.
    pub fn on_item<'i>(
        &mut self,
        item: &'i Item<'_>,
        named: Option<&Named>,
        jitter: Duration,
        scene: &mut Scene<'_, '_>,
    ) -> Option<&'i [u8]> {
        let number = item.req_id.as_deref();
        let Some(control) = &mut self.control else { return number };
        match item.kind {
            ItemKind::Ack => {
                if control.on_ack(number.unwrap_or_default()) {
                    self.note_change(true);
                }
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
                self.down.insert(frame, number.map(Into::into), named.cloned());
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
    pub fn take_turn(&mut self, bytes: usize, named: Option<&Named>, now: Instant) -> Option<(Outgoing, Way, Id)> {
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
        named.iter().for_each(|named| self.note_leaving(named));
        let way = self.way();
        Some((self.client.send_body(bytes), way, self.client.id()))
    }

    /// The handler is gone. Whether the WebSocket waits for a successor; else [`Relay::orphaned`] is to be called.
    pub fn handler_left(&mut self) -> bool {
        let Some(control) = self.control.as_mut().filter(|control| control.is_kept()) else { return false };
        control.handler_left();
        true
    }

    /// Tells a successor of the handler what the backend has told the handler.
    pub fn announce(&mut self, scene: &mut Scene<'_, '_>) {
        let (Phase::Open | Phase::Claiming, Some(route)) = (self.phase, self.route.clone()) else { return };
        let uri = self.with_request(|this, packet| this.client_uri(packet));
        let introduction = self.introduction(&uri, &route);
        if let Some(control) = &mut self.control {
            control.announce(&self.name.text(), &introduction, scene.cx.now, scene.items);
        }
    }

    /// Whether what the handler says now comes in order: it knows how far the client is.
    pub fn is_named(&self) -> bool {
        self.control.as_ref().is_none_or(Control::is_named)
    }

    /// A message of this number has come from the handler. `false` if it had come before.
    pub fn note_run(&mut self, run: u64) -> bool {
        self.control.as_mut().is_none_or(|control| control.note_run(run))
    }

    /// The handler is gone for good, and with it what the backend has told it. The client can only begin anew.
    pub fn orphaned(&mut self, spread: Duration, scene: &mut Scene<'_, '_>) -> bool {
        let concerns = self.control.as_ref().is_some_and(Control::is_known) && self.phase == Phase::Open;
        if concerns {
            self.late.get_or_insert_default().orphaned_at.get_or_insert(scene.cx.now + spread);
        }
        concerns
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
