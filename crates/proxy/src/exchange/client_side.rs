// SPDX-License-Identifier: AGPL-3.0-or-later
//! What goes to the client's instance and what comes from it.

use tnetstring::Item;
use zhttp::session::server::{Outcome as Told, Outgoing};
use zhttp::{Ext, Headers, Ids, Kind, Packet};

use super::{Exchange, Phase};
use crate::context::{Context, Note};
use crate::error::ProxyError;
use crate::response::cross_origin::Fitted;
use crate::statistics::{length, response_size};

/// Status, status text, headers.
pub(super) type Head<'a> = (u16, &'a [u8], Headers<'a>);

impl Exchange {
    /// Sends a packet, completed with addresses and number. Its body must be within the credits.
    pub(super) fn send(&mut self, packet: Packet<'_>, context: &mut Context<'_>) {
        let to = self.client.send_body(packet.body.len());
        self.send_numbered(to, packet, context);
    }

    /// Sends a packet whose address and number have been taken.
    pub(super) fn send_numbered(&mut self, to: Outgoing, packet: Packet<'_>, context: &mut Context<'_>) {
        if self.is_source() {
            return self.send_to_group(&packet, context);
        }
        let first = to.seq == 0;
        let packet = Packet {
            from: &context.shared.instance,
            ids: Ids::One(self.client.id_bytes(), Some(to.seq)),
            ext: Ext {
                multi: packet.ext.multi || (first && self.client.takes_multi()),
                // With an answer in it, nothing is sent again.
                replay: first && self.adopts && matches!(packet.kind, Kind::Credit | Kind::KeepAlive),
                ..packet.ext
            },
            user_data: self.user_data.as_ref().map(|(kind, payload)| Item { kind: *kind, payload }),
            ..packet
        };
        if !self.internal {
            context.shared.statistics.count(self.route_id(), context.now, |report| {
                let head = packet.code.map_or(0, |_| response_size(packet.reason.unwrap_or_default(), packet.headers));
                report.client_header_bytes_sent += head;
                report.client_content_bytes_sent += length(packet.body.len());
            });
        }
        let taken = self.way().send(context.shared.peers.name(to.to), &packet, context.links);
        self.refused.by_client |= !taken;
    }

    /// Passes a piece of the response on, made fit for scripts of other sites if the route wants that.
    pub(super) fn relay(&mut self, head: Option<Head<'_>>, body: &[u8], more: bool, context: &mut Context<'_>) {
        let Some(mut fitting) = self.fitting.take() else { return self.pass_on(head, body, more, context) };
        match fitting.fit(head, body, more) {
            None => {
                self.fitting = Some(fitting);
                self.pass_on(head, body, more, context);
            }
            Some(Fitted::Headers(missing)) => {
                let (code, reason, headers) = head.unwrap_or((200, b"", Headers::Absent));
                let all: Vec<(&[u8], &[u8])> =
                    headers.iter().chain(missing.iter().map(|(name, value)| (*name, &**value))).collect();
                self.pass_on(Some((code, reason, Headers::Pairs(&all))), body, more, context);
                drop(missing);
                self.fitting = Some(fitting);
            }
            Some(Fitted::Script { headers, body: script }) => {
                let pairs: Vec<(&[u8], Vec<u8>)> = headers;
                let owned: Vec<(Vec<u8>, Vec<u8>)> =
                    pairs.into_iter().map(|(name, value)| (name.to_vec(), value)).collect();
                self.fitting = Some(fitting);
                let pairs: Vec<(&[u8], &[u8])> =
                    owned.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
                let head = head.map(|_| (200, &b"OK"[..], Headers::Pairs(&pairs)));
                self.pass_on(head, &script, more, context);
            }
        }
    }

    /// Passes a piece of the response on, as far as the client's credits go; the rest waits. Ends the exchange with the
    /// last piece, unless something is to follow it.
    fn pass_on(&mut self, head: Option<Head<'_>>, body: &[u8], more: bool, context: &mut Context<'_>) {
        let (now, follows) = self.download.offer(body, !more, self.client.credits());
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
        while let Some((body, more)) = download.next(self.client.credits()) {
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
        let count = match &mut self.fitting {
            // A script is longer than what it is made of, so that is paid back when all of it has left.
            Some(fitting) if fitting.jsonp().is_some() => match self.download.is_waiting() {
                true => 0,
                false => std::mem::take(&mut fitting.owed),
            },
            _ => count,
        };
        self.grant_origin(count, context);
        if matches!(self.phase, Phase::Completing) {
            self.complete_hold(context);
        }
    }

    /// Takes in a packet from the client.
    pub fn client_packet(&mut self, packet: &Packet<'_>, seq: Option<u32>, context: &mut Context<'_>) {
        if self.is_abandoned() {
            return;
        }
        match self.client.on_packet(packet, seq, context.now) {
            Ok(Told::Data) => self.client_data(packet, context),
            Ok(Told::Alive) => self.flush(context),
            Ok(Told::Proceed) => self.call_accept(context),
            Ok(Told::Ended) => self.client_left(context),
            Ok(Told::Control | Told::Ignored) => {}
            Err(violation) => {
                let text = format!("ending a request whose frontend broke the protocol: {violation}");
                context.links.log(&Note::Warning { kind: "client-violation", text: &text });
                self.send(Packet { kind: Kind::Cancel, ..Packet::default() }, context);
                self.client_left(context);
            }
        }
    }

    fn client_data(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) {
        self.upload.receive(packet.body, packet.more);
        if !self.internal {
            self.count(context, |report| report.client_content_bytes_received += length(packet.body.len()));
        }
        match self.phase {
            Phase::Reading => self.with_request(|this, packet| this.read_ahead(packet, context)),
            Phase::Gathering => self.with_request(|this, packet| this.open_origin(packet, context)),
            Phase::Withholding => self.withhold(context),
            Phase::Calling => self.call_session(context),
            Phase::Collecting | Phase::Completing if self.upload.is_too_large() => {
                return self.fail(&ProxyError::TooLargeToHold, context);
            }
            Phase::Completing => self.complete_hold(context),
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
        if self.client.pass_on(self.upload.take_passed())
            && let Some(credits) = self.client.grant()
        {
            self.send(Packet { kind: Kind::Credit, credits: Some(credits), ..Packet::default() }, context);
        }
    }
}
