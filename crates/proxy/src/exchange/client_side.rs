//! What goes to the client's instance and what comes from it.

use tnetstring::Item;
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::{Exchange, Phase};
use crate::access_log::Outcome;
use crate::context::Context;
use crate::response::answer::Answer;

/// Status, status text, headers.
pub(super) type Head<'a> = (u16, &'a [u8], Headers<'a>);

impl Exchange {
    /// Sends a packet, completed with addresses and number. Its body must be within the credits.
    pub(super) fn send(&mut self, packet: Packet<'_>, context: &mut Context<'_>) {
        let first = !self.client.has_spoken();
        let seq = self.client.send_body(packet.body.len());
        let packet = Packet {
            from: &context.shared.instance,
            ids: Ids::One(self.client.id.as_bytes(), Some(seq)),
            ext: Ext { multi: packet.ext.multi || (first && self.multi), ..packet.ext },
            user_data: self.user_data.as_ref().map(|(kind, payload)| Item { kind: *kind, payload }),
            ..packet
        };
        context.out.to_client(context.shared.peers.name(self.client.client), self.client.by_router, &packet);
    }

    /// Passes a piece of the response on, as far as the client's credits go; the rest waits. Ends the exchange with the
    /// last piece, unless something is to follow it.
    pub(super) fn relay(&mut self, head: Option<Head<'_>>, body: &[u8], more: bool, context: &mut Context<'_>) {
        let (now, follows) = self.download.offer(body, !more, self.client.credits);
        if head.is_some() || now > 0 || !follows {
            let mut packet = Packet { body: &body[..now], more: follows, ..Packet::default() };
            if let Some((code, reason, headers)) = head {
                self.download.code = Some(code);
                // An empty list says that there are none, as receivers expect beside a status.
                let headers = if headers == Headers::Absent { Headers::Pairs(&[]) } else { headers };
                packet = Packet { code: Some(code), reason: Some(reason), headers, ..packet };
            }
            self.send(packet, context);
        }
        self.passed_on(now, context);
    }

    /// Sends what waited for credits.
    fn flush(&mut self, context: &mut Context<'_>) {
        if self.is_abandoned() {
            return;
        }
        let mut total = 0;
        // The download is taken out so that its bytes can be lent to the packet.
        let mut download = std::mem::take(&mut self.download);
        while let Some((body, more)) = download.next(self.client.credits) {
            let count = body.len();
            self.send(Packet { body, more, ..Packet::default() }, context);
            download.sent(count, more);
            total += count;
        }
        self.download = download;
        self.passed_on(total, context);
    }

    /// After `count` body bytes have left for the client: the backend may send as many again.
    fn passed_on(&mut self, count: usize, context: &mut Context<'_>) {
        if self.download.is_finished() {
            return self.end(self.responded());
        }
        self.grant_origin(count, context);
        if matches!(self.phase, Phase::Completing(_)) {
            self.complete_hold(context);
        }
    }

    /// Takes in a packet from the client.
    pub fn client_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, context: &mut Context<'_>) {
        if self.is_abandoned() || matches!(self.phase, Phase::Accepting(..)) {
            return;
        }
        if packet.kind.ends_session() {
            return self.client_left(context);
        }
        if self.client.receive(packet.kind, seq, packet.credits, context.now).is_err() {
            return self.break_off(context);
        }
        match packet.kind {
            Kind::Data => self.client_data(packet, context),
            Kind::Credit => self.flush(context),
            Kind::HandoffProceed if matches!(self.phase, Phase::HandingOver(_)) => self.call_accept(context),
            // Everything else keeps the session alive and means nothing here.
            _ => {}
        }
    }

    fn client_data(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        if self.upload.receive(packet.body, packet.more).is_err() {
            return self.break_off(context);
        }
        match &self.phase {
            Phase::Reading => self.with_request(|this, packet| this.read_ahead(packet, context)),
            Phase::Withholding => self.withhold(context),
            Phase::Collecting(_) | Phase::Completing(_) if self.upload.is_too_large() => {
                return self.answer(&Answer::too_large_to_hold(), context);
            }
            Phase::Completing(_) => self.complete_hold(context),
            _ => self.pump(context),
        }
        self.grant_client(context);
        if packet.credits.is_some() {
            self.flush(context);
        }
    }

    /// Gives the client credits for what has left.
    pub(super) fn grant_client(&mut self, context: &mut Context<'_>) {
        if self.is_abandoned() {
            return;
        }
        if let Some(credits) = self.upload.take_credits() {
            self.send(Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, context);
        }
    }

    /// The client's instance has broken the rules.
    fn break_off(&mut self, context: &mut Context<'_>) {
        self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
        self.client_left(context);
        self.outcome = Some(Outcome::Failed);
    }
}
