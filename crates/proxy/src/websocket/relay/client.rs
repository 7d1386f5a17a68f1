// SPDX-License-Identifier: AGPL-3.0-or-later
//! The client's side of a WebSocket.

use bytes::Bytes;
use rpc::ws_control::{Item, Kind as ItemKind};
use zhttp::session::server::{self, Outcome as Told, Outgoing};
use zhttp::{Ext, Ids, Kind, Packet, Run};

use super::super::control;
use super::super::had::{Named, run_items};
use super::super::pipe::{Frame, Status};
use super::side::Origin;
use super::state::{Frontend, Phase, Relay, Scene};
use crate::context::{Cut, Note, Side, Way};
use crate::error::ProxyError;
use crate::exchange::KeepAlive;
use crate::statistics;

impl Relay {
    /// Takes in a packet from the client.
    pub fn client_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, scene: &mut Scene<'_, '_>) {
        let told = self.client.on_packet(packet, seq, scene.cx.now);
        if told.is_ok() {
            self.count_up(packet, scene);
        }
        match told {
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

    pub(super) fn on_client_frame(&mut self, frame: Frame, scene: &mut Scene<'_, '_>) {
        let owed = frame.len();
        self.note_source();
        self.count(scene, |report| {
            report.client_content_bytes_received += statistics::length(owed);
            report.client_messages_received += frame.messages();
        });
        if let Frame::Close(_) = frame {
            self.client_closing.received = true;
            self.expect_close(scene.cx.now);
            if self.detached || self.origin.is_none() {
                // There is nobody else to answer it.
                return self.down.insert(frame, None, None);
            }
        }
        if self.detached || self.origin.is_none() {
            self.note_change(false);
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

    pub(super) fn relay_up(&mut self, frame: Frame, owed: usize) {
        match self.origin {
            Origin::Test => self.relay_down(frame, owed),
            _ => self.up.relay(frame, owed),
        }
    }

    /// Passes on a frame in the form that the client expects.
    pub(super) fn relay_framed(&mut self, frame: Frame, owed: usize, scene: &mut Scene<'_, '_>) {
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
    pub(super) fn relay_down(&mut self, frame: Frame, owed: usize) {
        let control = matches!(frame, Frame::Ping(_) | Frame::Pong(_));
        if control && self.frontend == Frontend::Plain && self.down.is_within_message() {
            return self.down.postpone(frame, owed);
        }
        let at = self.position();
        self.down.relay_at(frame, owed, at);
    }

    /// Sends what the credits of both sides allow, and sees whether all is over.
    pub fn flush(&mut self, scene: &mut Scene<'_, '_>) {
        self.flush_down(scene);
        self.end_slow(scene);
        self.flush_up(scene);
        self.settle(scene);
    }

    /// Gives up a client for which too much has waited for too long.
    pub(super) fn end_slow(&mut self, scene: &mut Scene<'_, '_>) {
        let weight = self.down.weight();
        if self.phase != Phase::Open || (self.late.is_none() && weight <= scene.limit.bytes) {
            return;
        }
        if self.late.get_or_insert_default().lag.is_too_much(weight, &scene.limit, scene.cx.now) {
            let waiting = self.down.waiting();
            let text = format!(
                "ending a WebSocket whose client reads too slowly: {waiting} bytes wait for it (session_queue_bytes)"
            );
            scene.cx.links.log(&Note::Warning { kind: "slow-client", text: &text });
            self.abort(scene);
        }
    }

    pub(super) fn flush_down(&mut self, scene: &mut Scene<'_, '_>) {
        while self.phase == Phase::Open
            && !self.client_closing.sent
            && let Some(leaving) = self.down.next(self.client.credits() as usize)
        {
            self.send_frame(&leaving.frame, leaving.named.as_ref(), leaving.at, scene);
            if let Some(control) = &mut self.control {
                control.on_sent(scene.cx.now);
                let (next, down) = (self.client.next_out(), &self.down);
                control.tell_barrier(&self.name.text(), next, |place| down.has_left(place), scene.items);
            }
            if let Some(number) = leaving.ack {
                let number = number.into_vec().into();
                scene.items.push(Item { req_id: Some(number), ..control::item(ItemKind::Ack, &self.name.text()) });
            }
            if let Origin::Test = self.origin {
                self.grant_client(leaving.owed, scene);
            } else {
                self.grant_origin(leaving.owed, scene);
            }
        }
    }

    fn send_frame(&mut self, frame: &Frame, named: Option<&Named>, at: u64, scene: &mut Scene<'_, '_>) {
        let mut packet = frame.packet();
        if let Frame::Close(_) = frame {
            self.client_closing.sent = true;
            if !self.is_counted() {
                self.note_change(true);
            }
            if self.client_told {
                return;
            }
        }
        self.count_sent(frame, scene.cx);
        let items;
        if let Some(named) = named.filter(|_| self.is_kept()) {
            self.note_leaving(named);
            items = run_items(named);
            packet.ext.run = Some(Run { number: named.run, items: &items });
        }
        packet.ext = self.counts(at, packet.ext);
        self.send(frame.len(), packet, scene);
    }

    /// Sends a packet with so many bytes of the client's credits.
    pub(super) fn send(&mut self, bytes: usize, packet: Packet<'_>, scene: &mut Scene<'_, '_>) {
        let to = self.client.send_body(bytes);
        self.send_numbered(to, packet, scene);
    }

    pub(super) fn send_numbered(&mut self, to: Outgoing, packet: Packet<'_>, scene: &mut Scene<'_, '_>) {
        let shared = &scene.cx.shared;
        let first = to.seq == 0;
        let packet = Packet {
            from: &shared.instance,
            ids: Ids::One(self.client.id_bytes(), Some(to.seq)),
            ext: Ext {
                multi: packet.ext.multi || (first && self.client.takes_multi()),
                // Until it is answered, another proxy may take the handshake.
                replay: first && self.frontend != Frontend::Plain && packet.kind == Kind::KeepAlive,
                ..packet.ext
            },
            user_data: self.user_data.as_deref().map(|(kind, payload)| tnetstring::Item { kind: *kind, payload }),
            ..packet
        };
        self.refused |= !self.way().send(shared.peers.name(to.to), &packet, scene.cx.links);
    }

    pub(super) fn way(&self) -> Way {
        Way { internal: false, by_router: self.client.by_router() }
    }

    /// Gives the client credits for what has left.
    pub(super) fn grant_client(&mut self, bytes: usize, scene: &mut Scene<'_, '_>) {
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

    pub(super) fn client_timer(&mut self, scene: &mut Scene<'_, '_>, keep_alive: &mut impl FnMut(KeepAlive)) {
        loop {
            match self.client.on_timer(scene.cx.now) {
                server::Due::Nothing => return,
                server::Due::KeepAlive(to) if self.client.takes_multi() && to.seq > 0 => {
                    keep_alive(KeepAlive::Client { to, way: self.way(), id: self.client.id() });
                }
                server::Due::KeepAlive(to) => {
                    self.send_numbered(to, Packet { kind: Kind::KeepAlive, ..Packet::default() }, scene);
                }
                server::Due::Expired => return self.client_left(scene),
                server::Due::Spent => return self.abort(scene),
            }
        }
    }
}
