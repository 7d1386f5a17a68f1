//! The sending sockets: PUSH for the first packet of a session, ROUTER for all others.

use tnetstring::Writer;
use transport::{Push, Router};
use zhttp::{Bulk, Ext, Id, Kind, Packet, PeerId, Peers};

use super::Uplink;

/// The sending sockets, and what is collected for them in a turn.
pub(crate) struct Links {
    pub(crate) instance: Vec<u8>,
    pub(crate) stream: Router,
    pub(crate) peers: Peers,
    requests: Push,
    writer: Writer,
    grants: Bulk<u32>,
    /// Packets that nobody took since they were last asked for.
    lost: u64,
}

impl Uplink for Links {
    fn open(&mut self, packet: &Packet<'_>) {
        let packet = Packet { from: &self.instance, ..*packet };
        if self.requests.send(packet.encode(None, &mut self.writer)).is_err() {
            // No proxy has been there for long. The session ends by its timeout, as when the proxy does not answer.
            self.lost += 1;
        }
    }

    fn send(&mut self, to: PeerId, packet: &Packet<'_>) {
        // Grants have their numbers already, so they must not come behind a later packet of their session.
        self.send_grants();
        let packet = Packet { from: &self.instance, ..*packet };
        if self.stream.send(self.peers.name(to), packet.encode(None, &mut self.writer)).is_err() {
            self.lost += 1;
        }
    }

    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32) {
        self.grants.push(to, credits, id, seq);
    }
}

impl Links {
    /// Sends as `instance`, through sockets that are bound already.
    pub(crate) fn new(instance: &str, requests: Push, stream: Router) -> Self {
        Links {
            instance: instance.as_bytes().to_vec(),
            stream,
            peers: Peers::default(),
            requests,
            writer: Writer::new(4096),
            grants: Bulk::default(),
            lost: 0,
        }
    }

    /// Sends the credits granted in this turn, many sessions a packet.
    pub(crate) fn send_grants(&mut self) {
        if self.grants.is_empty() {
            return;
        }
        let mut grants = std::mem::take(&mut self.grants);
        grants.drain(|peer, credits, ids| {
            let packet =
                Packet { ids, kind: Kind::Credit, credits: Some(credits), ext: Ext::MULTI, ..Packet::default() };
            self.send(peer, &packet);
        });
        self.grants = grants;
    }

    /// Sends a packet without content for many sessions.
    pub(crate) fn send_bulk(&mut self, kind: Kind, mut sessions: Bulk<()>) {
        sessions.drain(|peer, (), ids| {
            self.send(peer, &Packet { ids, kind, ext: Ext::MULTI, ..Packet::default() });
        });
    }

    /// Packets that nobody took since the last time.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
