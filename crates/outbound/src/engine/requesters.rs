// SPDX-License-Identifier: AGPL-3.0-or-later
//! Those who send requests: their names, whose queue is full, and which of their sessions they do not know to be over.

use zhttp::session::server::Outgoing;
use zhttp::{Bulk, Ext, Id, Ids, Kind, Packet, PeerId, Peers};

use crate::context::{Context, Sent};

/// Sessions that await the same packet, by the way it takes (`true`: ROUTER).
pub(super) type Group = Bulk<bool>;

/// Sessions given up that a requester with a full queue is still to hear of; those beyond end by the silence.
const MAX_CUT: usize = 100_000;

/// See the module.
pub(super) struct Requesters {
    instance: Vec<u8>,
    pub(super) peers: Peers,
    /// Requesters whose queue is full, by the way they are sent to.
    full: Vec<(PeerId, bool)>,
    /// Their sessions that were given up.
    cut: Vec<(PeerId, bool, Id)>,
}

impl Requesters {
    /// None yet; `instance` is what we are called.
    pub(super) fn new(instance: &str) -> Self {
        let instance = instance.as_bytes().to_vec();
        Requesters { instance, peers: Peers::default(), full: Vec::new(), cut: Vec::new() }
    }

    /// Sends a packet of a session. `false` if it is lost: the requester is gone, or does not keep up.
    #[must_use]
    pub(super) fn send(&mut self, outgoing: Outgoing, packet: &Packet<'_>, cx: &mut Context<'_>) -> bool {
        self.send_by(outgoing.to, outgoing.by_router, packet, cx)
    }

    /// Sends one packet for each group of sessions. Gives the sessions whose packet is lost.
    #[must_use]
    pub(super) fn send_group(&mut self, group: &mut Group, kind: Kind, cx: &mut Context<'_>) -> Vec<(PeerId, Id)> {
        let mut lost = Vec::new();
        group.drain(|peer, by_router, ids| {
            if !self.send_by(peer, by_router, &Packet { ids, kind, ..Packet::default() }, cx) {
                lost.extend(ids.iter().flatten().filter_map(|(id, _)| Some((peer, Id::new(id)?))));
            }
        });
        lost
    }

    /// Whether packets for a requester would be taken. While they would not, nothing is read for it from backends.
    pub(super) fn has_room(&self, peer: PeerId, by_router: bool) -> bool {
        self.full.is_empty() || !self.full.contains(&(peer, by_router))
    }

    /// Notes a session that was given up, so that its requester hears of it as soon as it takes packets again.
    pub(super) fn note_cut(&mut self, peer: PeerId, by_router: bool, id: Id) {
        if !self.has_room(peer, by_router) && self.cut.len() < MAX_CUT {
            self.cut.push((peer, by_router, id));
        }
    }

    /// A requester has room again: it hears which of its sessions were given up.
    pub(super) fn room(&mut self, peer: PeerId, by_router: bool, cx: &mut Context<'_>) {
        self.full.retain(|full| *full != (peer, by_router));
        let (told, others) =
            std::mem::take(&mut self.cut).into_iter().partition(|cut| (cut.0, cut.1) == (peer, by_router));
        self.cut = others;
        let told: Vec<(PeerId, bool, Id)> = told;
        for (_, _, id) in told {
            let ids = Ids::One(id.as_bytes(), None);
            if !self.send_by(peer, by_router, &Packet { ids, kind: Kind::Cancel, ..Packet::default() }, cx) {
                self.note_cut(peer, by_router, id);
            }
        }
    }

    /// A requester has left.
    pub(super) fn left(&mut self, peer: PeerId, by_router: bool) {
        self.full.retain(|full| *full != (peer, by_router));
        self.cut.retain(|cut| (cut.0, cut.1) != (peer, by_router));
    }

    fn send_by(&mut self, peer: PeerId, by_router: bool, packet: &Packet<'_>, cx: &mut Context<'_>) -> bool {
        let ext = Ext { multi: true, ..packet.ext };
        let packet = Packet { from: &self.instance, ext, ..*packet };
        let sent = cx.actions.send(self.peers.name(peer), by_router, &packet);
        if matches!(sent, Sent::Full | Sent::Refused) && self.has_room(peer, by_router) {
            self.full.push((peer, by_router));
        }
        matches!(sent, Sent::Taken | Sent::Full)
    }
}
