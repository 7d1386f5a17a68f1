// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that come, go, or take packets again.

use std::time::Instant;

use zhttp::{Ids, Kind, Packet, PeerId};

use super::Engine;
use crate::context::{Links, Side};
use crate::exchange::Exchange;
use crate::websocket::table::Table as WebSockets;

impl Engine {
    /// An instance that had clients is gone.
    pub fn client_instance_left(&mut self, name: &[u8], now: Instant, links: &mut dyn Links) {
        let Some(peer) = self.shared.peers.find(name) else { return };
        self.with_all(now, links, |exchange, context| {
            if exchange.client_key().0 == peer {
                exchange.client_left(context);
            }
        });
        self.with_websockets(now, links, |websockets, context| websockets.client_instance_left(peer, context));
        self.forget_cut(peer);
    }

    /// An outbound process is gone; without a name, it is not known which.
    pub fn outbound_left(&mut self, name: &[u8], now: Instant, links: &mut dyn Links) {
        let peer = self.shared.peers.intern(name);
        self.shared.outbounds.retain(|outbound| Some(*outbound) != peer);
        self.with_all(now, links, |exchange, context| exchange.outbound_left(peer, context));
        self.with_websockets(now, links, |websockets, context| websockets.outbound_left(peer, context));
        if let Some(peer) = peer {
            self.departed.note(peer);
            self.forget_cut(peer);
        }
    }

    /// An outbound process has come.
    pub fn outbound_joined(&mut self, name: &[u8], now: Instant, links: &mut dyn Links) {
        let Some(peer) = self.shared.peers.intern(name) else { return };
        self.departed.remove(peer);
        self.shared.outbounds.push(peer);
        self.with_websockets(now, links, |websockets, context| websockets.outbound_joined(context));
    }

    /// A backend that speaks ZHTTP itself is gone.
    pub fn backend_left(&mut self, name: &[u8], now: Instant, links: &mut dyn Links) {
        let Some(peer) = self.shared.peers.intern(name) else { return };
        self.departed.note(peer);
        self.end_all_at(peer, now, links);
    }

    /// A backend that speaks ZHTTP itself has come.
    pub fn backend_joined(&mut self, name: &[u8]) {
        if let Some(peer) = self.shared.peers.find(name) {
            self.departed.remove(peer);
        }
    }

    /// Ends what processes have got by speaking after their end.
    pub(super) fn departed_timer(&mut self, now: Instant, links: &mut dyn Links) {
        for peer in self.departed.take_due(now) {
            self.end_all_at(peer, now, links);
        }
    }

    /// Ends all that this process has.
    fn end_all_at(&mut self, peer: PeerId, now: Instant, links: &mut dyn Links) {
        self.with_all(now, links, |exchange, context| {
            if exchange.is_at(peer) {
                exchange.outbound_left(Some(peer), context);
            }
        });
        self.with_websockets(now, links, |websockets, context| websockets.backend_left(peer, context));
        self.forget_cut(peer);
    }

    /// A handler is gone, and with it what it was asked by `inspect`.
    pub fn inspect_lost(&mut self, now: Instant, links: &mut dyn Links) {
        self.with_all(now, links, Exchange::inspect_lost);
    }

    /// A handler is gone, and with it what it was asked by `accept`.
    pub fn accept_lost(&mut self, now: Instant, links: &mut dyn Links) {
        self.with_all(now, links, Exchange::accept_lost);
        self.with_websockets(now, links, WebSockets::handler_left);
    }

    /// A handler has come, and all that its predecessor said has been taken in.
    pub fn handler_joined(&mut self, now: Instant, links: &mut dyn Links) {
        self.with_websockets(now, links, WebSockets::handler_joined);
    }

    /// An instance takes packets again: it hears which sessions have ended in the meantime.
    pub fn room(&mut self, name: &[u8], links: &mut dyn Links) {
        let Some(peer) = self.shared.peers.find(name) else { return };
        let shared = &mut self.shared;
        shared.cut.retain(|cut| {
            if cut.peer != peer {
                return true;
            }
            let ids = Ids::One(cut.id.as_bytes(), None);
            let packet = Packet { from: &shared.instance, ids, kind: Kind::Cancel, ..Packet::default() };
            let name = shared.peers.name(peer);
            // One that is not taken either is tried again the next time.
            match cut.side {
                Side::Client(way) => !way.send(name, &packet, links),
                Side::Origin => !links.to_origin(name, &packet),
            }
        });
    }

    fn forget_cut(&mut self, peer: PeerId) {
        self.shared.cut.retain(|cut| cut.peer != peer);
    }
}
