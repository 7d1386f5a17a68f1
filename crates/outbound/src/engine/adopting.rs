// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSockets whose proxy has gone: they wait for its successor, which claims them by name and goes on.

use std::time::Duration;

use zhttp::budget::Budget;
use zhttp::session::server::Session;
use zhttp::{Ext, Ids, Kind, Packet};

use super::{Engine, Limits, Names};
use crate::context::Context;
use crate::websocket::kept::Kept;

/// What a successor is told that claims what is not there, or not any more.
const UNKNOWN: &[u8] = b"unknown-session";

/// WebSockets that can outlive their proxy.
pub(super) struct Adoptions {
    /// For how long; zero: none does.
    wait: Duration,
    /// For what is kept of them.
    memory: Budget,
    names: Names,
}

impl Adoptions {
    pub(super) fn new(limits: &Limits) -> Self {
        let memory = Budget::new(limits.recover_memory);
        Adoptions { wait: limits.recover_wait, memory, names: Names::default() }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.memory.used()
    }

    /// What is to be kept of a WebSocket that is asked for with this packet, if it has a name.
    pub(super) fn begin(&mut self, packet: &Packet<'_>, index: usize) -> Option<Box<Kept>> {
        let name = packet.ext.name.filter(|name| !self.wait.is_zero() && !self.names.contains_key(*name))?;
        self.names.insert(name.into(), index);
        Some(Box::new(Kept::new(name, self.memory.share())))
    }

    /// One is over.
    pub(super) fn forget(&mut self, kept: &Kept) {
        self.names.remove(&kept.name);
    }
}

/// Whether a packet claims a WebSocket.
pub(super) fn is_claim(packet: &Packet<'_>) -> bool {
    packet.ext.name.is_some() && packet.ext.had.is_some()
}

impl Engine {
    /// The requester of a WebSocket has gone. Whether it waits for a successor of that.
    pub(super) fn keep_for_successor(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let is_kept = self.linger(index, cx);
        self.exchanges[index].kept.iter_mut().for_each(|kept| kept.is_orphan = is_kept);
        is_kept
    }

    /// A WebSocket ends in a while, unless a successor of its requester claims it. `false` if none could go on with it.
    fn linger(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let (now, wait) = (cx.now, self.adoptions.wait);
        let exchange = &mut self.exchanges[index];
        let is_open = exchange.socket.as_ref().is_some_and(|socket| socket.is_open());
        let Some(kept) = exchange.kept.as_mut().filter(|kept| is_open && kept.is_whole()) else { return false };
        kept.until.get_or_insert(now + wait);
        self.watch(index);
        true
    }

    /// A proxy claims what its predecessor had.
    pub(super) fn claim(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let now = cx.now;
        let (Some(name), Some(had)) = (packet.ext.name, packet.ext.had) else { return };
        let Some(client) = self.requesters.peers.intern(packet.from) else { return };
        let found = self.adoptions.names.get(name).copied();
        let waiting = |index: usize| self.exchanges[index].socket.as_ref().map_or(0, |socket| socket.waiting());
        // What still waits for the backend takes its room in the window.
        let window = self.limits.window.saturating_sub(found.map_or(0, waiting) as u32);
        let mut session = match Session::open(packet, client, window, now) {
            Ok(session) if !self.sessions.contains_key(&(client, session.id())) => session,
            _ => {
                return cx.warn("claim", "a claim of a WebSocket is dropped: it is no first packet");
            }
        };
        let taken = found.and_then(|index| {
            let exchange = &mut self.exchanges[index];
            let closes = exchange.socket.as_ref().filter(|socket| socket.is_open())?.closes();
            Some((index, exchange.kept.as_mut()?.claim(had, closes)?))
        });
        let Some((index, (position, closed))) = taken else {
            let outgoing = session.send();
            let ids = Ids::One(session.id_bytes(), Some(outgoing.seq));
            let answer = Packet { ids, kind: Kind::Error, condition: Some(UNKNOWN), ..Packet::default() };
            let _ = self.requesters.send(outgoing, &answer, cx);
            return;
        };
        let exchange = &mut self.exchanges[index];
        self.sessions.remove(&(exchange.session.client(), exchange.session.id()));
        self.sessions.insert((client, session.id()), index);
        exchange.session = session;
        self.counters.adopted += 1;
        let ext = Ext { had: Some(position), closed, ..Ext::default() };
        let credits = exchange.session.grant();
        if self.send(index, Kind::KeepAlive, Packet { credits, ext, ..Packet::default() }, cx) {
            self.watch(index);
            self.advance(index, cx);
        }
    }

    /// Sends again what was lost with a predecessor of the requester, as far as credits go. `false` if more has to wait.
    pub(super) fn send_kept_again(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        loop {
            let exchange = &mut self.exchanges[index];
            let Some(kept) = exchange.kept.as_mut().filter(|kept| !kept.is_sent()) else { return true };
            let session = &mut exchange.session;
            let has_room = self.requesters.has_room(session.client(), session.by_router());
            let Some((packet, had)) = kept.next(session.credits() as usize).filter(|_| has_room) else { return false };
            let bytes = if packet.kind == Kind::Close { 0 } else { packet.body.len() };
            let outgoing = session.send_body(bytes);
            let ids = Ids::One(session.id_bytes(), Some(outgoing.seq));
            if !self.requesters.send(outgoing, &Packet { ids, ext: Ext { had, ..packet.ext }, ..packet }, cx) {
                self.lost(index, cx);
                return false;
            }
        }
    }

    /// Both sides of a WebSocket have closed, and all has been written: it is over once the client's side has had all, which is
    /// waited for if a successor of the proxy could need it.
    pub(super) fn socket_closed(&mut self, index: usize, cx: &mut Context<'_>) {
        let is_settled = self.exchanges[index].kept.as_ref().is_none_or(|kept| kept.is_settled());
        if is_settled || !self.linger(index, cx) {
            self.drop_exchange(index, cx);
        }
    }
}
