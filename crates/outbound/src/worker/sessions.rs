//! Packets from requesters: new sessions, and what comes later in them.

use transport::Change;
use zhttp::{Id, Ids, Kind, Packet, server};

use super::{PACKETS_A_TURN, Worker};
use crate::http1::download::Download;
use crate::http1::exchange::Exchange;
use crate::http1::request::Request;

impl Worker {
    /// First packets of sessions.
    pub(super) fn take_requests(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            let Some(message) = self.requesters.input.recv() else { return };
            match Packet::decode(&message) {
                Ok(packet) => self.open(&packet),
                Err(error) => {
                    self.warnings.warn("malformed", self.now, format_args!("request packet dropped: {error}"))
                }
            }
        }
    }

    /// Later packets of sessions, each possibly for many.
    pub(super) fn take_packets(&mut self) {
        for _ in 0..PACKETS_A_TURN {
            let Some((_, message)) = self.requesters.stream.recv() else { return };
            let packet = match Packet::decode(&message) {
                Ok(packet) => packet,
                Err(error) => {
                    self.warnings.warn("malformed", self.now, format_args!("packet dropped: {error}"));
                    continue;
                }
            };
            // Who is not known has no sessions.
            let Some(peer) = self.requesters.peers.find(packet.from) else { continue };
            for (id, seq) in packet.ids.iter().flatten() {
                let Some(id) = Id::new(id) else { continue };
                if let Some(&index) = self.sessions.get(&(peer, id)) {
                    self.receive(index, &packet, seq);
                }
            }
        }
    }

    /// Requesters that have come or gone.
    pub(super) fn take_changes(&mut self) {
        let changes: Vec<Change> = self.requesters.out.changes().collect();
        for change in changes {
            let Change::Left(name, _) = change else { continue };
            let Some(peer) = self.requesters.peers.find(&name) else { continue };
            let orphans = |exchange: &Exchange| exchange.session.client == peer && !exchange.session.by_router;
            let orphans: Vec<usize> =
                self.exchanges.iter().filter(|(_, exchange)| orphans(exchange)).map(|(index, _)| index).collect();
            for index in orphans {
                self.drop_exchange(index);
            }
        }
    }

    fn open(&mut self, packet: &Packet<'_>) {
        let now = self.now;
        let Some(client) = self.requesters.peers.intern(packet.from) else {
            return self.warnings.warn("sender", now, "request packet dropped: it does not say who has sent it");
        };
        let mut session = match server::Session::open(packet, client, now) {
            Ok(session) => session,
            Err(error) => return self.warnings.warn("first", now, format_args!("request packet dropped: {error}")),
        };
        if self.sessions.contains_key(&(client, session.id)) {
            let id = session.id;
            return self.warnings.warn("duplicate", now, format_args!("request packet dropped: the id {id} is in use"));
        }
        if self.exchanges.len() >= self.limits.exchanges {
            let most = self.limits.exchanges;
            self.warnings.warn("full", now, format_args!("request refused: {most} are under way (client_maxconn)"));
            return self.refuse(&mut session, "undefined-condition", packet);
        }
        let request = match Request::from_packet(packet, self.limits.window) {
            Ok(request) => request,
            Err(refusal) => {
                let uri = packet.uri.unwrap_or_default().escape_ascii();
                self.warnings.warn("refused", now, format_args!("request for {uri} refused: {refusal}"));
                return self.refuse(&mut session, refusal.condition(), packet);
            }
        };
        self.serials += 1;
        let serial = self.serials;
        let download = Download::new(request.is_head, self.limits.head);
        let exchange = Exchange::new(session, serial, packet, request, download, now);
        let index = self.exchanges.insert(exchange);
        self.sessions.insert((client, session.id), index);
        self.young.push_back((index, serial, self.grown_up_at()));
        if packet.more && !self.grant(index) {
            return;
        }
        self.connect(index);
    }

    /// Answers a session that is not performed.
    fn refuse(&mut self, session: &mut server::Session, condition: &str, packet: &Packet<'_>) {
        let seq = session.send();
        let answer = Packet {
            ids: Ids::One(session.id.as_bytes(), Some(seq)),
            kind: Kind::Error,
            condition: Some(condition.as_bytes()),
            user_data: packet.user_data,
            ..Packet::default()
        };
        let _ = self.requesters.send(session, &answer, self.now);
    }

    fn receive(&mut self, index: usize, packet: &Packet<'_>, seq: Option<u32>) {
        let exchange = &mut self.exchanges[index];
        if let Err(violation) = exchange.session.receive(packet.kind, seq, packet.credits, self.now) {
            let id = exchange.session.id;
            self.warnings.warn("violation", self.now, format_args!("session {id} cancelled: {violation}"));
            return self.cancel(index);
        }
        match packet.kind {
            Kind::Error | Kind::Cancel => return self.drop_exchange(index),
            Kind::Data => {
                if let Err(error) = exchange.upload.push(packet.body, packet.more) {
                    return self.fail(index, "bad-request", &error);
                }
            }
            Kind::Credit | Kind::KeepAlive => {}
            // Of no meaning in an HTTP session towards a backend; they count as signs of life.
            Kind::HandoffStart | Kind::HandoffProceed | Kind::Close | Kind::Ping | Kind::Pong => return,
        }
        self.advance(index);
    }
}
