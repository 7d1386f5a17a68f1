// SPDX-License-Identifier: AGPL-3.0-or-later
//! The ZeroMQ sockets towards those who send requests.

use settings::specs::OutboundSpecs;
use tnetstring::Writer;
use transport::error::{SendError, Taken};
use transport::{Context, Error, Options, Publisher, Pull, Reactor, Router};
use zhttp::session::server::Outgoing;
use zhttp::{Bulk, Ext, Id, Ids, Kind, Packet, PeerId, Peers};

/// Numbers of the sockets in the reactor.
pub(crate) const INPUT: usize = 0;
pub(crate) const STREAM: usize = 1;
pub(crate) const OUT: usize = 2;

/// Sessions that await the same packet, by the way it takes (`true`: ROUTER).
pub(crate) type Group = Bulk<bool>;

/// Sessions given up that a requester with a full queue is still to hear of; those beyond end by the silence.
const MAX_CUT: usize = 100_000;

/// The sockets, and the names of those who use them.
pub(crate) struct Requesters {
    instance: Vec<u8>,
    pub(crate) input: Pull,
    pub(crate) stream: Router,
    pub(crate) out: Publisher,
    pub(crate) peers: Peers,
    /// Requesters whose queue is full, by the way they are sent to.
    full: Vec<(PeerId, bool)>,
    /// Their sessions that were given up.
    cut: Vec<(PeerId, bool, Id)>,
    writer: Writer,
}

impl Requesters {
    /// Binds the sockets and adds them to the reactor.
    pub(crate) fn bind(
        reactor: &mut Reactor,
        instance: &str,
        specs: &OutboundSpecs,
        options: Options,
    ) -> Result<Self, Error> {
        let context = Context::new();
        let options = options.named(instance);
        let requesters = Requesters {
            instance: instance.as_bytes().to_vec(),
            input: Pull::bind(&context, &specs.input, &options)?,
            stream: Router::bind(&context, &specs.in_stream, &options)?,
            out: Publisher::bind(&context, &specs.out, &options)?,
            peers: Peers::default(),
            full: Vec::new(),
            cut: Vec::new(),
            writer: Writer::new(4096),
        };
        reactor.add(INPUT, &requesters.input)?;
        reactor.add(STREAM, &requesters.stream)?;
        reactor.add(OUT, &requesters.out)?;
        Ok(requesters)
    }

    /// Sends a packet of a session. `false` if it is lost: the requester is gone, or does not keep up.
    #[must_use]
    pub(crate) fn send(&mut self, outgoing: Outgoing, packet: &Packet<'_>) -> bool {
        self.send_by(outgoing.to, outgoing.by_router, packet)
    }

    /// Sends one packet for each group of sessions. Gives the sessions whose packet is lost.
    #[must_use]
    pub(crate) fn send_group(&mut self, group: &mut Group, kind: Kind) -> Vec<(PeerId, Id)> {
        let mut lost = Vec::new();
        group.drain(|peer, by_router, ids| {
            if !self.send_by(peer, by_router, &Packet { ids, kind, ..Packet::default() }) {
                lost.extend(ids.iter().flatten().filter_map(|(id, _)| Some((peer, Id::new(id)?))));
            }
        });
        lost
    }

    /// Whether packets for a requester would be taken. While they would not, nothing is read for it from backends.
    pub(crate) fn has_room(&self, peer: PeerId, by_router: bool) -> bool {
        self.full.is_empty() || !self.full.contains(&(peer, by_router))
    }

    /// Notes a session that was given up, so that its requester hears of it as soon as it takes packets again.
    pub(crate) fn note_cut(&mut self, peer: PeerId, by_router: bool, id: Id) {
        if !self.has_room(peer, by_router) && self.cut.len() < MAX_CUT {
            self.cut.push((peer, by_router, id));
        }
    }

    /// A requester has room again: it hears which of its sessions were given up.
    pub(crate) fn room(&mut self, peer: PeerId, by_router: bool) {
        self.full.retain(|full| *full != (peer, by_router));
        let (told, others) =
            std::mem::take(&mut self.cut).into_iter().partition(|cut| (cut.0, cut.1) == (peer, by_router));
        self.cut = others;
        let told: Vec<(PeerId, bool, Id)> = told;
        for (_, _, id) in told {
            let ids = Ids::One(id.as_bytes(), None);
            if !self.send_by(peer, by_router, &Packet { ids, kind: Kind::Cancel, ..Packet::default() }) {
                self.note_cut(peer, by_router, id);
            }
        }
    }

    /// A requester has left.
    pub(crate) fn left(&mut self, peer: PeerId, by_router: bool) {
        self.full.retain(|full| *full != (peer, by_router));
        self.cut.retain(|cut| (cut.0, cut.1) != (peer, by_router));
    }

    fn send_by(&mut self, peer: PeerId, by_router: bool, packet: &Packet<'_>) -> bool {
        let to = self.peers.name(peer);
        let ext = Ext { multi: true, ..packet.ext };
        let packet = Packet { from: &self.instance, ext, ..*packet };
        let sent = match by_router {
            true => self.stream.send(to, packet.encode(None, &mut self.writer)),
            false => self.out.send(to, packet.encode(Some(to), &mut self.writer)),
        };
        if matches!(sent, Ok(Taken::Full) | Err(SendError::Full)) && self.has_room(peer, by_router) {
            self.full.push((peer, by_router));
        }
        sent.is_ok()
    }
}
