// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges of WebSockets that a successor of their proxy goes on with.

use zhttp::recovery::{self, Counted};
use zhttp::session::client::Outgoing;
use zhttp::{Ext, Kind, Packet};

use super::{Audience, Exchange};
use crate::uplink::Uplink;

impl Exchange {
    /// Whether it can be gone on with without a loss of what the client has sent.
    pub(super) fn keeps_underway(&self) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.sent.is_whole())
    }

    /// The server has taken all packets before this number.
    pub(super) fn forget_underway(&mut self, before: u32) {
        if let Some(underway) = &mut self.underway {
            underway.sent.forget_before(before);
        }
    }

    /// A packet has come, of the server or of its successor: what it says of positions. `false` if that can not be.
    pub(super) fn count(&mut self, packet: &Packet<'_>, is_successor: bool, up: &mut dyn Uplink) -> bool {
        let Some(underway) = &mut self.underway else { return true };
        let fits = underway.on_packet(packet, is_successor);
        if let had @ Some(_) = underway.due(packet)
            && let Some(to) = self.session.send()
        {
            self.send(
                to,
                Packet { kind: Kind::KeepAlive, ext: Ext { had, ..Ext::default() }, ..Packet::default() },
                up,
            );
        }
        fits
    }

    /// Its server has ended: the successor gives credits of its own if it is told exactly what it gets again.
    pub(super) fn become_orphan(&mut self, departure: u32) {
        self.session.orphan();
        self.kept.orphan = departure;
        if self.is_counted() {
            self.session.forget_credits();
        }
    }

    /// Sends a server that has taken the session up what its predecessor may not have.
    pub(super) fn send_underway(&mut self, up: &mut dyn Uplink) {
        if self.is_left() {
            // It may have left after the session was offered.
            return self.cancel(up);
        }
        let Some(mut underway) = self.underway.take() else { return };
        if underway.came.is_some() {
            self.underway = Some(underway);
            return self.go_on_sending(up);
        }
        underway.sent.send_again(|packet: Packet<'_>| {
            // They took their credits when they were sent first.
            let to @ Outgoing { seq, .. } = self.session.send()?;
            self.send(to, packet, up);
            Some(seq)
        });
        self.underway = Some(underway);
    }

    /// Sends more of that, as far as the credits go.
    pub(super) fn go_on_sending(&mut self, up: &mut dyn Uplink) {
        if !self.is_behind_again() || self.is_left() {
            return;
        }
        let Some(mut underway) = self.underway.take() else { return };
        while let Some(packet) = underway.sent.next(self.session.credits() as usize) {
            let bytes = if packet.kind == Kind::Close { 0 } else { packet.body.len() };
            let Some(to) = self.session.send_body(bytes) else { break };
            self.send(to, packet, up);
        }
        self.underway = Some(underway);
    }

    /// Whether what a server has not got of its predecessor is still to be sent.
    pub(super) fn is_behind_again(&self) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.is_behind())
    }

    /// What a successor must know of what is kept.
    pub(crate) fn unread(&self) -> Option<recovery::Unread> {
        let sent = &self.underway.as_ref()?.sent;
        let granted = u32::try_from(sent.credits()).unwrap_or(u32::MAX).saturating_add(self.session.granted());
        Some(recovery::Unread { packets: sent.len() as u32, granted })
    }

    /// What a successor must know of positions.
    pub(crate) fn counted(&self) -> Option<Counted> {
        self.underway.as_ref()?.counted()
    }

    /// Whether both ends count what passes.
    pub(crate) fn is_counted(&self) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.came.is_some())
    }

    /// Whether its client is gone without a close, and its server is to be told so.
    pub(crate) fn is_left(&self) -> bool {
        self.audience == Audience::Left { closed: false }
    }

    /// The client is gone; `false` if that does not have to be kept for the server.
    pub(super) fn leave(&mut self, closed: bool) -> bool {
        let stays = self.client().is_some() && self.underway.is_some();
        if stays {
            self.audience = Audience::Left { closed };
        }
        stays
    }
}
