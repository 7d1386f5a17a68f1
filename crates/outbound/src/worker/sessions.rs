// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets from requesters: new sessions, and what comes later in them.

use transport::{Change, Incoming};
use wire::request_id;
use zhttp::session::server::{Outcome, Session};
use zhttp::{Ext, Id, Ids, Kind, Packet, PeerId};

use super::adopting::is_claim;
use super::{PACKETS_A_TURN, WINDOW, Worker};
use crate::failure::Failure;
use crate::http1::download::Download;
use crate::http1::exchange::Exchange;
use crate::http1::request::Request;

/// Says in the log that a request goes to a backend.
fn log(session: &Id, packet: &Packet<'_>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (method, uri) = (packet.method.unwrap_or_default(), packet.uri.unwrap_or_default());
        let shown = request_id::shown(uri);
        let id = request_id::of(packet.headers.iter()).map(tracing::field::display);
        tracing::debug!(%session, id, "request to a backend: {} {shown}", method.escape_ascii());
    }
}

impl Worker {
    /// First packets of sessions.
    pub(super) fn take_requests(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            let Some(message) = self.context.requesters.input.recv() else { return };
            match Packet::decode(&message) {
                Ok(packet) => self.open(&packet),
                Err(error) => self.context.warnings.warn(
                    "malformed",
                    self.context.now,
                    format_args!("request packet dropped: {error}"),
                ),
            }
        }
    }

    /// Later packets of sessions, each possibly for many; and requesters that leave, after the last of their packets.
    pub(super) fn take_packets(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            match self.context.requesters.stream.incoming() {
                None => return,
                Some(Incoming::Packet(_, message)) => self.take_packet(&message),
                Some(Incoming::Change(change)) => self.take_change(change, true),
            }
        }
    }

    fn take_packet(&mut self, message: &[u8]) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => {
                return self.context.warnings.warn(
                    "malformed",
                    self.context.now,
                    format_args!("packet dropped: {error}"),
                );
            }
        };
        if is_claim(&packet) {
            return self.claim(&packet);
        }
        // Who is not known has no sessions.
        let Some(peer) = self.context.requesters.peers.find(packet.from) else { return };
        for (id, seq) in packet.ids.iter().flatten() {
            let Some(id) = Id::new(id) else { continue };
            if let Some(&index) = self.sessions.get(&(peer, id)) {
                self.receive(index, &packet, seq);
            }
        }
    }

    /// Requesters that have come or gone, as far as their subscriptions tell.
    pub(super) fn take_changes(&mut self) {
        let changes: Vec<Change> = self.context.requesters.out.changes().collect();
        for change in changes {
            self.take_change(change, false);
        }
    }

    /// `by_router`: the way by which the requester hears of its responses.
    fn take_change(&mut self, change: Change, by_router: bool) {
        let (Change::Left(name, _) | Change::Joined(name) | Change::Room(name)) = &change;
        let Some(peer) = self.context.requesters.peers.find(name) else { return };
        match change {
            Change::Left(..) => self.orphan(peer, name, by_router),
            Change::Room(_) => self.go_on_for(peer, by_router),
            Change::Joined(_) => {}
        }
    }

    fn of_requester(&self, peer: PeerId, by_router: bool) -> Vec<usize> {
        let of_it =
            |exchange: &Exchange| (exchange.session.client(), exchange.session.by_router()) == (peer, by_router);
        self.exchanges.iter().filter(|(_, exchange)| of_it(exchange)).map(|(index, _)| index).collect()
    }

    /// A requester takes packets again, so what backends have for it is read on.
    fn go_on_for(&mut self, peer: PeerId, by_router: bool) {
        self.context.requesters.room(peer, by_router);
        for index in self.of_requester(peer, by_router) {
            self.advance(index);
        }
    }

    /// A requester has left: nobody waits for its responses any more.
    fn orphan(&mut self, peer: PeerId, name: &[u8], by_router: bool) {
        self.context.requesters.left(peer, by_router);
        let (mut cancelled, mut kept) = (0, 0);
        for index in self.of_requester(peer, by_router) {
            if self.keep_for_successor(index) {
                kept += 1;
                continue;
            }
            cancelled += 1;
            self.drop_exchange(index);
        }
        self.context.counters.orphaned += cancelled;
        if kept + cancelled > 0 {
            let name = name.escape_ascii();
            tracing::info!("{name} has left: {cancelled} of its requests are cancelled, {kept} wait for its successor");
        }
    }

    fn open(&mut self, packet: &Packet<'_>) {
        let now = self.context.now;
        let Some(client) = self.context.requesters.peers.intern(packet.from) else {
            return self.context.warnings.warn(
                "sender",
                now,
                "request packet dropped: it does not say who has sent it",
            );
        };
        let mut session = match Session::open(packet, client, WINDOW, now) {
            Ok(session) => session,
            Err(error) => {
                return self.context.warnings.warn("first", now, format_args!("request packet dropped: {error}"));
            }
        };
        let id = session.id();
        if self.sessions.contains_key(&(client, id)) {
            return self.context.warnings.warn(
                "duplicate",
                now,
                format_args!("request packet dropped: the id {id} is in use"),
            );
        }
        self.context.counters.requests += 1;
        if self.exchanges.len() >= self.limits.exchanges {
            return self.refuse(&mut session, &Failure::Full(self.limits.exchanges), packet);
        }
        let keys = &mut self.keys;
        let request = match Request::from_packet(packet, || keys.handshake()) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(&mut session, &refusal.into(), packet),
        };
        log(&id, packet);
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
        self.young.push_back((index, serial, self.grown_up_at()));
        if packet.more && !self.grant(index) {
            return;
        }
        self.connect(index);
    }

    /// Answers a session that is not performed.
    fn refuse(&mut self, session: &mut Session, failure: &Failure, packet: &Packet<'_>) {
        let (context, text) = (&mut self.context, failure.to_string());
        context.counters.failed += 1;
        let uri = packet.uri.unwrap_or_default();
        let shown = request_id::shown(uri);
        context.warnings.warn(failure.condition(), context.now, format_args!("request for {shown} refused: {text}"));
        let outgoing = session.send();
        let answer = Packet {
            ids: Ids::One(session.id_bytes(), Some(outgoing.seq)),
            kind: Kind::Error,
            condition: Some(failure.condition().as_bytes()),
            reason: Some(text.as_bytes()),
            user_data: packet.user_data,
            ..Packet::default()
        };
        let _ = context.requesters.send(outgoing, &answer);
    }

    /// Tells the client's side how far a WebSocket has come, if that is due. `false` if the exchange is over because of that.
    fn tell_how_far(&mut self, index: usize) -> bool {
        let kept = self.exchanges[index].kept.as_mut().filter(|kept| kept.is_due());
        let Some(had) = kept.map(|kept| kept.tell()) else { return true };
        self.send(index, Kind::KeepAlive, Packet { ext: Ext { had, ..Ext::default() }, ..Packet::default() })
    }

    fn receive(&mut self, index: usize, packet: &Packet<'_>, seq: Option<u32>) {
        let exchange = &mut self.exchanges[index];
        let outcome = exchange.session.on_packet(packet, seq, self.context.now);
        exchange.kept.iter_mut().for_each(|kept| kept.on_packet(packet));
        match outcome {
            Ok(Outcome::Ended) => return self.drop_exchange(index),
            Ok(Outcome::Data | Outcome::Control) if exchange.socket.is_some() => {
                if !self.push_frame(index, packet) || !self.tell_how_far(index) {
                    return;
                }
            }
            Ok(Outcome::Data) => {
                if let Err(error) = exchange.upload.push(packet.body, packet.more) {
                    return self.fail(index, &error.into());
                }
            }
            Ok(Outcome::Alive) => {}
            // Of WebSockets and hand-offs, and a request to a backend is neither.
            Ok(Outcome::Control | Outcome::Proceed | Outcome::Ignored) => return,
            Err(violation) => {
                let text = format_args!("session {} cancelled: {violation}", exchange.session.id());
                self.context.warnings.warn("violation", self.context.now, text);
                return self.cancel(index);
            }
        }
        self.advance(index);
    }
}
