// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets of an exchange to its requester, and its end.

use zhttp::session::server::Outgoing;
use zhttp::{Ext, Ids, Kind, Packet};

use super::Engine;
use crate::context::Context;
use crate::failure::Failure;
use crate::http1::exchange::Phase;

impl Engine {
    /// Grants credits for the body of the request. `false` if the exchange is over because of that.
    pub(super) fn grant(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let exchange = &mut self.exchanges[index];
        // Nobody takes them until a successor of its requester has come.
        if exchange.is_orphan() {
            return true;
        }
        let Some(credits) = exchange.session.grant() else { return true };
        let ext = Ext { had: exchange.kept.as_mut().and_then(|kept| kept.tell()), ..Ext::default() };
        self.send(index, Kind::Credit, Packet { credits: Some(credits), ext, ..Packet::default() }, cx)
    }

    /// Sends a packet without body. `false` if it is lost, and the exchange with it.
    pub(super) fn send(&mut self, index: usize, kind: Kind, packet: Packet<'_>, cx: &mut Context<'_>) -> bool {
        let outgoing = self.exchanges[index].session.send();
        self.send_as(index, outgoing, kind, packet, cx)
    }

    /// The same with a number that the session has given already.
    pub(super) fn send_as(
        &mut self,
        index: usize,
        outgoing: Outgoing,
        kind: Kind,
        packet: Packet<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        let exchange = &self.exchanges[index];
        let ids = Ids::One(exchange.session.id_bytes(), Some(outgoing.seq));
        let packet = Packet { ids, kind, user_data: exchange.user_data(), ..packet };
        let sent = self.requesters.send(outgoing, &packet, cx);
        if !sent {
            self.lost(index, cx);
        }
        sent
    }

    /// A packet of the exchange did not leave, so the requester's count will not be right again.
    pub(super) fn lost(&mut self, index: usize, cx: &mut Context<'_>) {
        let session = &self.exchanges[index].session;
        self.requesters.note_cut(session.client(), session.by_router(), session.id());
        if self.keep_for_successor(index, cx) {
            return;
        }
        self.counters.orphaned += 1;
        cx.warn("lost", "request given up: its sender is gone or does not keep up");
        self.drop_exchange(index, cx);
    }

    /// Ends an exchange with an error. The text goes along for the requester's log.
    pub(super) fn fail(&mut self, index: usize, failure: &Failure, cx: &mut Context<'_>) {
        self.counters.failed += 1;
        let endpoint = &self.exchanges[index].endpoint;
        cx.warn(failure.condition(), format_args!("request to {endpoint} failed: {failure}"));
        self.let_go(index);
        let text = failure.to_string();
        let condition = Some(failure.condition().as_bytes());
        if self.send(index, Kind::Error, Packet { condition, reason: Some(text.as_bytes()), ..Packet::default() }, cx) {
            self.drop_exchange(index, cx);
        }
    }

    /// Ends an exchange because its session is broken.
    pub(super) fn cancel(&mut self, index: usize, cx: &mut Context<'_>) {
        self.let_go(index);
        if self.send(index, Kind::Cancel, Packet::default(), cx) {
            self.drop_exchange(index, cx);
        }
    }

    /// Ends an exchange whose response has been passed on, and keeps its connection if that is possible.
    pub(super) fn finish(&mut self, index: usize, cx: &mut Context<'_>) {
        let exchange = self.exchanges.remove(index);
        self.sessions.remove(&(exchange.session.client(), exchange.session.id()));
        match exchange.connection() {
            Some(number) if exchange.leaves_connection_usable() => self.connections.keep(number, cx),
            Some(number) => self.connections.close(number, cx),
            None => {}
        }
    }

    /// No successor of the requester could go on with the exchange.
    fn let_go(&mut self, index: usize) {
        if let Some(kept) = self.exchanges[index].kept.take() {
            self.adoptions.forget(&kept);
        }
    }

    /// Forgets an exchange and closes its connections.
    pub(super) fn drop_exchange(&mut self, index: usize, cx: &mut Context<'_>) {
        self.let_go(index);
        let exchange = self.exchanges.remove(index);
        self.sessions.remove(&(exchange.session.client(), exchange.session.id()));
        match exchange.phase {
            Phase::Resolving { .. } => {
                cx.actions.give_up(&exchange.endpoint.host, (index, exchange.serial));
            }
            Phase::Connecting(attempts) => attempts.running().for_each(|number| self.connections.close(number, cx)),
            // Half a request is of no use to the backend. A whole one may be, even if nobody waits for the answer.
            Phase::Open { connection: number, .. } if !exchange.upload.is_finished() => {
                self.connections.break_off(number, cx);
            }
            Phase::Open { connection: number, .. } => self.connections.close(number, cx),
        }
    }
}
