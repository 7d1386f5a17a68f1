// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets from requesters: new sessions, and what comes later in them.

use wire::request_id;
use zhttp::session::server::{Outcome, Session};
use zhttp::{Ext, Id, Ids, Kind, Packet, PeerId};

use super::Engine;
use super::adopting::is_claim;
use crate::context::{Context, Note};
use crate::failure::Failure;
use crate::http1::download::Download;
use crate::http1::exchange::Exchange;
use crate::http1::request::Request;

impl Engine {
    /// The first packet of a session.
    pub fn request(&mut self, message: &[u8], cx: &mut Context<'_>) {
        match Packet::decode(message) {
            Ok(packet) => self.open(&packet, cx),
            Err(error) => cx.warn("malformed", format_args!("request packet dropped: {error}")),
        }
    }

    /// A later packet of sessions, possibly for many.
    pub fn packet(&mut self, message: &[u8], cx: &mut Context<'_>) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => return cx.warn("malformed", format_args!("packet dropped: {error}")),
        };
        if is_claim(&packet) {
            return self.claim(&packet, cx);
        }
        // Who is not known has no sessions.
        let Some(peer) = self.requesters.peers.find(packet.from) else { return };
        for (id, seq) in packet.ids.iter().flatten() {
            let Some(id) = Id::new(id) else { continue };
            if let Some(&index) = self.sessions.get(&(peer, id)) {
                self.receive(index, &packet, seq, cx);
            }
        }
    }

    fn of_requester(&self, peer: PeerId, by_router: bool) -> Vec<usize> {
        let of_it =
            |exchange: &Exchange| (exchange.session.client(), exchange.session.by_router()) == (peer, by_router);
        self.exchanges.iter().filter(|(_, exchange)| of_it(exchange)).map(|(index, _)| index).collect()
    }

    /// A requester takes packets again by the ROUTER or the PUB socket, so what backends have for it is read on.
    pub fn requester_has_room(&mut self, name: &[u8], by_router: bool, cx: &mut Context<'_>) {
        let Some(peer) = self.requesters.peers.find(name) else { return };
        self.requesters.room(peer, by_router, cx);
        for index in self.of_requester(peer, by_router) {
            self.advance(index, cx);
        }
    }

    /// A requester has left the ROUTER or the PUB socket: nobody waits for what it has asked for there.
    pub fn requester_left(&mut self, name: &[u8], by_router: bool, cx: &mut Context<'_>) {
        let Some(peer) = self.requesters.peers.find(name) else { return };
        self.requesters.left(peer, by_router);
        let (mut cancelled, mut kept) = (0, 0);
        for index in self.of_requester(peer, by_router) {
            if self.keep_for_successor(index, cx) {
                kept += 1;
                continue;
            }
            cancelled += 1;
            self.drop_exchange(index, cx);
        }
        self.counters.orphaned += cancelled;
        if kept + cancelled > 0 {
            cx.actions.log(&Note::RequesterLeft { name, cancelled, kept });
        }
    }

    fn open(&mut self, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let now = cx.now;
        let Some(client) = self.requesters.peers.intern(packet.from) else {
            return cx.warn("sender", "request packet dropped: it does not say who has sent it");
        };
        let mut session = match Session::open(packet, client, self.limits.window, now) {
            Ok(session) => session,
            Err(error) => return cx.warn("first", format_args!("request packet dropped: {error}")),
        };
        let id = session.id();
        if self.sessions.contains_key(&(client, id)) {
            return cx.warn("duplicate", format_args!("request packet dropped: the id {id} is in use"));
        }
        self.counters.requests += 1;
        if self.exchanges.len() >= self.limits.exchanges {
            return self.refuse(&mut session, &Failure::Full(self.limits.exchanges), packet, cx);
        }
        let keys = &mut self.keys;
        let request = match Request::from_packet(packet, || keys.handshake()) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(&mut session, &refusal.into(), packet, cx),
        };
        cx.actions.log(&Note::Request { session: id, packet });
        self.serials += 1;
        let serial = self.serials;
        let download = match request.websocket {
            Some(_) => Download::of_handshake(self.limits.head),
            None => Download::new(request.is_head, self.limits.head),
        };
        let mut exchange = Exchange::new(session, serial, packet, request, download, self.limits.timeouts, now);
        if exchange.socket.is_some() {
            exchange.kept = self.adoptions.begin(packet, self.exchanges.vacant_key());
        }
        let index = self.exchanges.insert(exchange);
        self.sessions.insert((client, id), index);
        self.young.push_back((index, serial, Self::grown_up_at(now)));
        if packet.more && !self.grant(index, cx) {
            return;
        }
        self.connect(index, cx);
    }

    /// Answers a session that is not performed.
    fn refuse(&mut self, session: &mut Session, failure: &Failure, packet: &Packet<'_>, cx: &mut Context<'_>) {
        let text = failure.to_string();
        self.counters.failed += 1;
        let uri = packet.uri.unwrap_or_default();
        let shown = request_id::shown(uri);
        cx.warn(failure.condition(), format_args!("request for {shown} refused: {text}"));
        let outgoing = session.send();
        let answer = Packet {
            ids: Ids::One(session.id_bytes(), Some(outgoing.seq)),
            kind: Kind::Error,
            condition: Some(failure.condition().as_bytes()),
            reason: Some(text.as_bytes()),
            user_data: packet.user_data,
            ..Packet::default()
        };
        let _ = self.requesters.send(outgoing, &answer, cx);
    }

    /// Tells the client's side how far a WebSocket has come, if that is due. `false` if the exchange is over because of that.
    fn tell_how_far(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let kept = self.exchanges[index].kept.as_mut().filter(|kept| kept.is_due());
        let Some(had) = kept.map(|kept| kept.tell()) else { return true };
        self.send(index, Kind::KeepAlive, Packet { ext: Ext { had, ..Ext::default() }, ..Packet::default() }, cx)
    }

    fn receive(&mut self, index: usize, packet: &Packet<'_>, seq: Option<u32>, cx: &mut Context<'_>) {
        let exchange = &mut self.exchanges[index];
        let outcome = exchange.session.on_packet(packet, seq, cx.now);
        exchange.kept.iter_mut().for_each(|kept| kept.on_packet(packet));
        match outcome {
            Ok(Outcome::Ended) => return self.drop_exchange(index, cx),
            Ok(Outcome::Data | Outcome::Control) if exchange.socket.is_some() => {
                if !self.push_frame(index, packet, cx) || !self.tell_how_far(index, cx) {
                    return;
                }
            }
            Ok(Outcome::Data) => {
                if let Err(error) = exchange.upload.push(packet.body, packet.more) {
                    return self.fail(index, &error.into(), cx);
                }
            }
            Ok(Outcome::Alive) => {}
            // Of WebSockets and hand-offs, and a request to a backend is neither.
            Ok(Outcome::Control | Outcome::Proceed | Outcome::Ignored) => return,
            Err(violation) => {
                let text = format_args!("session {} cancelled: {violation}", exchange.session.id());
                cx.warn("violation", text);
                return self.cancel(index, cx);
            }
        }
        self.advance(index, cx);
    }
}
