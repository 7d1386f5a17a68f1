//! What goes to the client's instance and what comes from it.

use tnetstring::Item;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::{Exchange, Phase};
use crate::access_log::Outcome;
use crate::answer::Answer;
use crate::desk::Turn;

/// Status, status text, headers.
pub(super) type Head<'a> = (u16, &'a [u8], Headers<'a>);

impl Exchange {
    /// Sends a packet, completed with addresses and number. Its body must be within the credits.
    pub(super) fn send(&mut self, packet: Packet<'_>, turn: &mut Turn<'_>) {
        let first = !self.client.has_spoken();
        let seq = self.client.send_body(packet.body.len());
        let packet = Packet {
            from: &turn.desk.instance,
            ids: Ids::One(self.client.id.as_bytes(), Some(seq)),
            ext: Ext { multi: packet.ext.multi || (first && self.multi), ..packet.ext },
            user_data: self.user_data.as_ref().map(|(kind, payload)| Item { kind: *kind, payload }),
            ..packet
        };
        turn.out.to_client(turn.desk.peers.name(self.client.client), self.client.by_router, &packet);
    }

    /// Passes a piece of the response on, as far as the client's credits go; the rest waits. Ends the exchange with the
    /// last piece, unless something is to follow it.
    pub(super) fn relay(&mut self, head: Option<Head<'_>>, body: &[u8], more: bool, turn: &mut Turn<'_>) {
        let (now, follows) = self.download.offer(body, !more, self.client.credits);
        if head.is_some() || now > 0 || !follows {
            let mut packet = Packet { body: &body[..now], more: follows, ..Packet::default() };
            if let Some((code, reason, headers)) = head {
                self.download.code = Some(code);
                // An empty list says that there are none, as receivers expect beside a status.
                let headers = if headers == Headers::Absent { Headers::Pairs(&[]) } else { headers };
                packet = Packet { code: Some(code), reason: Some(reason), headers, ..packet };
            }
            self.send(packet, turn);
        }
        self.passed_on(now, turn);
    }

    /// Sends what waited for credits.
    fn flush(&mut self, turn: &mut Turn<'_>) {
        if self.is_abandoned() {
            return;
        }
        let mut total = 0;
        // The download is taken out so that its bytes can be lent to the packet.
        let mut download = std::mem::take(&mut self.download);
        while let Some((body, more)) = download.next(self.client.credits) {
            let count = body.len();
            self.send(Packet { body, more, ..Packet::default() }, turn);
            download.sent(count, more);
            total += count;
        }
        self.download = download;
        self.passed_on(total, turn);
    }

    /// After `count` body bytes have left for the client: the backend may send as many again.
    fn passed_on(&mut self, count: usize, turn: &mut Turn<'_>) {
        if self.download.is_finished() {
            return self.end(self.responded());
        }
        self.grant_origin(count, turn);
        if matches!(self.phase, Phase::Settling(_)) {
            self.settle(turn);
        }
    }

    /// Takes in a packet from the client.
    pub fn client_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, turn: &mut Turn<'_>) {
        if self.is_abandoned() || matches!(self.phase, Phase::Accepting(..)) {
            return;
        }
        if packet.kind.ends_session() {
            return self.client_left(turn);
        }
        if self.client.receive(packet.kind, seq, packet.credits, turn.now).is_err() {
            return self.break_off(turn);
        }
        match packet.kind {
            Kind::Data => self.client_data(packet, turn),
            Kind::Credit => self.flush(turn),
            Kind::HandoffProceed if matches!(self.phase, Phase::HandingOver(_)) => self.call_accept(turn),
            // Everything else keeps the session alive and means nothing here.
            _ => {}
        }
    }

    fn client_data(&mut self, packet: &Packet<'_>, turn: &mut Turn<'_>) {
        if self.upload.receive(packet.body, packet.more).is_err() {
            return self.break_off(turn);
        }
        match &self.phase {
            Phase::Reading => self.with_request(|this, packet| this.ask_when_ready(packet, turn)),
            Phase::Withholding => self.withhold(turn),
            Phase::Collecting(_) | Phase::Settling(_) if self.upload.is_too_large() => {
                return self.answer(&Answer::too_large_to_hold(), turn);
            }
            Phase::Settling(_) => self.settle(turn),
            _ => self.pump(turn),
        }
        self.grant_client(turn);
        if packet.credits.is_some() {
            self.flush(turn);
        }
    }

    /// Gives the client credits for what has left.
    pub(super) fn grant_client(&mut self, turn: &mut Turn<'_>) {
        if self.is_abandoned() {
            return;
        }
        if let Some(credits) = self.upload.take_credits() {
            self.send(Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, turn);
        }
    }

    /// The client's instance has broken the rules.
    fn break_off(&mut self, turn: &mut Turn<'_>) {
        self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, turn);
        self.client_left(turn);
        self.outcome = Some(Outcome::Failed);
    }
}
