//! The way to the servers: proxy and handler.
//!
//! Packets of the connections leave here through PUSH (the first of a session) and ROUTER (all others).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tnetstring::Writer;
use transport::{Push, Router};
use zhttp::{Bulk, Ext, Id, Ids, Kind, Packet, PeerId, Peers, client};

use crate::connection::Uplink;

/// Sessions remembered only to tell their server that the client is gone.
const MAX_ORPHANS: usize = 100_000;

/// How often forgotten sessions are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The sending sockets, and what is collected for them in a turn.
pub(crate) struct Servers {
    pub(crate) instance: Vec<u8>,
    pub(crate) stream: Router,
    pub(crate) peers: Peers,
    requests: Push,
    writer: Writer,
    grants: Bulk<u32>,
    orphans: HashMap<Id, client::Session, RandomState>,
    swept: Instant,
    /// Packets that nobody took since they were last asked for.
    lost: u64,
}

impl Uplink for Servers {
    fn open(&mut self, packet: &Packet<'_>) {
        let packet = Packet { from: &self.instance, ..*packet };
        if self.requests.send(packet.encode(None, &mut self.writer)).is_err() {
            // No proxy has been there for long. The session ends by its timeout, as when the proxy does not answer.
            self.lost += 1;
        }
    }

    fn send(&mut self, to: PeerId, packet: &Packet<'_>) {
        let packet = Packet { from: &self.instance, ..*packet };
        if self.stream.send(self.peers.name(to), packet.encode(None, &mut self.writer)).is_err() {
            self.lost += 1;
        }
    }

    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32) {
        self.grants.push(to, credits, id, seq);
    }

    fn orphan(&mut self, id: Id, session: client::Session) {
        if self.orphans.len() < MAX_ORPHANS {
            self.orphans.insert(id, session);
        }
    }
}

impl Servers {
    /// Sends as `instance`, through sockets that are bound already.
    pub(crate) fn new(instance: &str, requests: Push, stream: Router, now: Instant) -> Self {
        Servers {
            instance: instance.as_bytes().to_vec(),
            stream,
            peers: Peers::default(),
            requests,
            writer: Writer::new(4096),
            grants: Bulk::default(),
            orphans: HashMap::default(),
            swept: now,
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

    /// A server speaks of a session whose client went away before the server was known: tells it.
    pub(crate) fn cancel_orphan(
        &mut self,
        kind: Kind,
        id: &[u8],
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) {
        if self.orphans.is_empty() {
            return;
        }
        let Some(id) = Id::new(id) else { return };
        let Some(mut session) = self.orphans.remove(&id) else { return };
        if kind.ends_session() || session.receive(kind, from, seq, now).is_err() {
            return;
        }
        if let Some((peer, seq)) = session.send() {
            let ids = Ids::One(id.as_bytes(), Some(seq));
            self.send(peer, &Packet { ids, kind: Kind::Cancel, ext: Ext::MULTI, ..Packet::default() });
        }
    }

    /// Forgets sessions whose servers have never spoken.
    pub(crate) fn forget_orphans(&mut self, now: Instant) {
        if !self.orphans.is_empty() && now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.orphans.retain(|_, session| !session.is_expired(now));
        }
    }

    /// Packets that nobody took since the last time.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
