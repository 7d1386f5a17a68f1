// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets from proxy and handler.

use std::time::Instant;

use transport::{Change, Incoming};
use zhttp::{Ext, Ids, Kind, Packet, PeerId};

use super::Worker;
use super::clients::note;
use crate::http1::SharedBody;
use crate::keep::offer;
use crate::uplink::Uplink;

/// Packets taken from one socket in a turn, so that clients are served in between.
const PACKETS_A_TURN: usize = 256;

impl Worker {
    pub(super) fn take_responses(&mut self, now: Instant) {
        for _ in 0..PACKETS_A_TURN {
            let Some(message) = self.responses.recv() else { return };
            // The socket subscribes to this prefix, so it is there.
            let packet = message.get(self.core.links.instance.len() + 1..).unwrap_or_default();
            self.take_packet(packet, false, now);
        }
    }

    pub(super) fn take_stream(&mut self, now: Instant) {
        for _ in 0..PACKETS_A_TURN {
            match self.core.links.stream.incoming() {
                Some(Incoming::Packet(peer, message)) if offer::is_question(&message) => {
                    self.on_question(&peer, &message, now);
                }
                Some(Incoming::Packet(_, message)) => {
                    if let Some(from) = self.take_packet(&message, true, now) {
                        self.departures.on_answer(from);
                    }
                }
                Some(Incoming::Change(Change::Left(peer, reason))) => self.on_left(&peer, reason, now),
                Some(Incoming::Change(Change::Room(peer))) => {
                    if let Some(peer) = self.core.links.peers.find(&peer) {
                        self.doubtful.on_room(peer, now);
                    }
                }
                Some(Incoming::Change(Change::Joined(_))) => {}
                None => return,
            }
        }
    }

    /// Gives a packet to the clients it is for; whom it came from, if that can be understood.
    pub(super) fn take_packet(&mut self, message: &[u8], by_router: bool, now: Instant) -> Option<PeerId> {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => {
                self.counters.malformed += 1;
                let text = format_args!("a packet from proxy or handler is skipped: {error}");
                self.warnings.warn("packet", now, text);
                return None;
            }
        };
        let from = self.core.links.peers.intern(packet.from);
        self.core.exchanges.note_run(&packet, from);
        let body = SharedBody::new(packet.body);
        let mut elsewhere = Vec::new();
        for id in packet.ids.iter() {
            let Ok((id, seq)) = id else { continue };
            match self.predecessors.owner(id) {
                Some(owner) => elsewhere.push((owner, (id, seq))),
                None => self.deliver(&packet, &body, id, from, seq, now),
            }
        }
        if !elsewhere.is_empty() {
            self.pass_down(&packet, &elsewhere, by_router);
        }
        from
    }

    fn deliver(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        id: &[u8],
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) {
        let Some(exchange) = self.core.exchanges.find(id) else {
            return self.refuse(packet, id, seq, from);
        };
        if from.is_some_and(|from| packet.ext.lane == 0 && exchange.is_of_another(from)) {
            // It does not know yet that another has the session: one of two to whom a server gave it that has ended.
            return self.refuse(packet, id, None, from);
        }
        let exchange_slot = exchange.slot();
        let Some(slot) = exchange.client().map(|slot| slot as usize) else {
            let core = &mut self.core;
            return core.exchanges.on_unheard(exchange_slot, packet, from, seq, now, &mut core.links);
        };
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.http.on_packet(packet, body, from, seq, &mut self.core.context(&mut client.output, now)) {
            Ok(refusal) => {
                note(refusal, client.http.address(), &mut self.counters, &mut self.warnings, now);
                self.core.exchanges.keep(id, packet, from, now);
            }
            Err(fault) => {
                self.counters.faults += 1;
                let (id, from) = (String::from_utf8_lossy(id), String::from_utf8_lossy(packet.from));
                self.warnings.warn("fault", now, format_args!("session {id} of {from} is ended: {fault}"));
            }
        }
        if !std::mem::replace(&mut client.dirty, true) {
            self.dirty.push(slot);
        }
        // What could not be read for want of credits, or because the connection was busy, may be read now.
        if client.readable && !std::mem::replace(&mut client.unread, true) {
            self.unread.push(slot);
        }
        if let Some(exchange) = self.core.exchanges.get(exchange_slot)
            && exchange.client().is_none()
            && let Some(due) = self.core.exchanges.next_due(exchange_slot)
        {
            self.exchange_timers.arm(exchange_slot, due);
        }
    }

    /// A packet for a session that is not known here, any more or at all: its server is told, or it would go on with it
    /// until its time-out.
    fn refuse(&mut self, packet: &Packet<'_>, id: &[u8], seq: Option<u32>, from: Option<PeerId>) {
        let ends = packet.kind.ends_session() || packet.kind == Kind::Data && !packet.more;
        if let Some(from) = from.filter(|_| !ends) {
            // The server's first packet: its client left while nobody had answered, so ours is the one after the request.
            let ids = Ids::One(id, (seq == Some(0)).then_some(1));
            self.core.links.send(from, &Packet { ids, kind: Kind::Cancel, ext: Ext::MULTI, ..Packet::default() });
        }
    }
}
