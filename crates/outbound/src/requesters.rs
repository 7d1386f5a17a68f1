//! The ZeroMQ sockets towards those who send requests.

use settings::specs::OutboundSpecs;
use tnetstring::Writer;
use transport::{Context, Error, Options, Publisher, Pull, Reactor, Router};
use zhttp::session::server::Outgoing;
use zhttp::{Bulk, Ext, Kind, Packet, PeerId, Peers};

/// Numbers of the sockets in the reactor.
pub(crate) const INPUT: usize = 0;
pub(crate) const STREAM: usize = 1;
pub(crate) const OUT: usize = 2;

/// Sessions that await the same packet, by the way it takes (`true`: ROUTER).
pub(crate) type Group = Bulk<bool>;

/// The sockets, and the names of those who use them.
pub(crate) struct Requesters {
    instance: Vec<u8>,
    pub(crate) input: Pull,
    pub(crate) stream: Router,
    pub(crate) out: Publisher,
    pub(crate) peers: Peers,
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

    /// Sends one packet for each group of sessions.
    pub(crate) fn send_group(&mut self, group: &mut Group, kind: Kind) {
        group.drain(|peer, by_router, ids| {
            // If it is lost, its sessions end by the silence.
            let _ = self.send_by(peer, by_router, &Packet { ids, kind, ..Packet::default() });
        });
    }

    fn send_by(&mut self, peer: PeerId, by_router: bool, packet: &Packet<'_>) -> bool {
        let to = self.peers.name(peer);
        let packet = Packet { from: &self.instance, ext: Ext::MULTI, ..*packet };
        let sent = match by_router {
            true => self.stream.send(to, packet.encode(None, &mut self.writer)),
            false => self.out.send(to, packet.encode(Some(to), &mut self.writer)),
        };
        sent.is_ok()
    }
}
