// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sending sockets: PUSH for the first packet of a session, ROUTER for all others.

use tnetstring::Writer;
use transport::{Push, Router};
use wire::request_id;
use zhttp::{Bulk, Ext, Id, Kind, Packet, PeerId, Peers};

use super::Uplink;
use crate::transplant::relay::{Relay, Up};

/// The sending sockets, and what is collected for them in a turn.
pub(crate) struct Links {
    pub(crate) instance: Vec<u8>,
    pub(crate) stream: Router,
    pub(crate) peers: Peers,
    pub(crate) requests: Push,
    /// There once a successor has the sockets: the way to it.
    pub(crate) relay: Option<Relay>,
    writer: Writer,
    grants: Bulk<u32>,
    refused: Vec<Refused>,
}

/// A session that a packet was not taken of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) id: Id,
    /// The server that it was for, if that was known.
    pub(crate) server: Option<PeerId>,
}

impl Uplink for Links {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        log(packet);
        let signed = Packet { from: &self.instance, ..*packet };
        let encoded = signed.encode(None, &mut self.writer);
        match &mut self.relay {
            Some(relay) => relay.send(&Up::Open(encoded.to_vec())),
            None if self.requests.send(encoded).is_err() => self.refuse(packet, None),
            None => {}
        }
        self.writer.as_slice()
    }

    fn is_connected(&self) -> bool {
        self.has_proxy()
    }

    fn send(&mut self, to: PeerId, packet: &Packet<'_>) {
        // Grants have their numbers already, so they must not come behind a later packet of their session.
        self.send_grants();
        let signed = Packet { from: &self.instance, ..*packet };
        let (name, encoded) = (self.peers.name(to), signed.encode(None, &mut self.writer));
        match &mut self.relay {
            Some(relay) => relay.send(&Up::Send(name.to_vec(), encoded.to_vec())),
            None if self.stream.send(name, encoded).is_err() => self.refuse(packet, Some(to)),
            None => {}
        }
    }

    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32) {
        self.grants.push(to, credits, id, seq);
    }
}

/// Says in the log that a request goes to a proxy.
fn log(packet: &Packet<'_>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (method, uri) = (packet.method.unwrap_or_default(), packet.uri.unwrap_or_default());
        let id = request_id::of(packet.headers.iter()).map(tracing::field::display);
        let session = packet.ids.iter().flatten().next().map(|(session, _)| session.escape_ascii());
        tracing::debug!(
            session = session.map(tracing::field::display),
            id,
            "request to a proxy: {} {}",
            method.escape_ascii(),
            request_id::shown(uri)
        );
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
            relay: None,
            writer: Writer::new(4096),
            grants: Bulk::default(),
            refused: Vec::new(),
        }
    }

    /// Whether a proxy is there.
    pub(crate) fn has_proxy(&self) -> bool {
        self.relay.is_some() || self.requests.has_peer()
    }

    /// Whether a proxy takes a request now.
    pub(crate) fn takes_requests(&self) -> bool {
        self.relay.is_some() || self.requests.is_writable()
    }

    /// Bytes that wait for proxies and handlers.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.requests.load().bytes + self.stream.load().bytes
    }

    /// Links to proxies that have ended so far.
    pub(crate) fn proxies_left(&self) -> u64 {
        self.requests.counters().left
    }

    /// Takes back the requests that no proxy has got anything of.
    pub(crate) fn take_unsent(&self) -> Vec<Vec<u8>> {
        self.requests.take_unsent()
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

    /// Sends what is no packet of a session; whether it is taken.
    pub(crate) fn send_raw(&mut self, to: PeerId, packet: &[u8]) -> bool {
        self.stream.send(self.peers.name(to), packet).is_ok()
    }

    /// Sends a packet without content for many sessions.
    pub(crate) fn send_bulk(&mut self, kind: Kind, mut sessions: Bulk<()>) {
        sessions.drain(|peer, (), ids| {
            self.send(peer, &Packet { ids, kind, ext: Ext::MULTI, ..Packet::default() });
        });
    }

    /// The successor could not send a packet.
    pub(crate) fn on_refused(&mut self, packet: &[u8]) {
        if let Ok(packet) = Packet::decode(packet) {
            self.refuse(&packet, None);
        }
    }

    fn refuse(&mut self, packet: &Packet<'_>, server: Option<PeerId>) {
        if !packet.kind.ends_session() {
            let ids = packet.ids.iter().filter_map(|id| Id::new(id.ok()?.0));
            self.refused.extend(ids.map(|id| Refused { id, server }));
        }
    }

    /// Sessions that a packet was refused for since the last time: nobody is there to take it, or too much waits for
    /// him already. Numbers of a session have no gaps, so it can not go on.
    pub(crate) fn take_refused(&mut self) -> Vec<Refused> {
        std::mem::take(&mut self.refused)
    }
}
