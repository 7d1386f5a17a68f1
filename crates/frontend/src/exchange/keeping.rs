// SPDX-License-Identifier: AGPL-3.0-or-later
//! Exchanges of WebSockets that a successor of their proxy goes on with.

use zhttp::Packet;
use zhttp::recovery;
use zhttp::session::client::Outgoing;

use super::{Audience, Exchange};
use crate::uplink::Uplink;

impl Exchange {
    /// Whether it can be gone on with without a loss of what the client has sent.
    pub(super) fn keeps_unread(&self) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.is_whole())
    }

    /// The server has taken all packets before this number.
    pub(super) fn forget_unread(&mut self, before: u32) {
        if let Some(unread) = &mut self.unread {
            unread.forget_before(before);
        }
    }

    /// Sends a server that has taken the session up what its predecessor may not have.
    pub(super) fn send_unread(&mut self, up: &mut dyn Uplink) {
        if self.is_left() {
            return;
        }
        let Some(mut unread) = self.unread.take() else { return };
        unread.send_again(|packet: Packet<'_>| {
            // They took their credits when they were sent first.
            let to @ Outgoing { seq, .. } = self.session.send()?;
            self.send(to, packet, up);
            Some(seq)
        });
        self.unread = Some(unread);
    }

    /// What a successor must know of that.
    pub(crate) fn unread(&self) -> Option<recovery::Unread> {
        let unread = self.unread.as_ref()?;
        let granted = u32::try_from(unread.credits()).unwrap_or(u32::MAX).saturating_add(self.session.granted());
        Some(recovery::Unread { packets: unread.len() as u32, granted })
    }

    /// Whether its client is gone without a close, and its server is to be told so.
    pub(crate) fn is_left(&self) -> bool {
        self.audience == Audience::Left { closed: false }
    }

    /// The client is gone; `false` if that does not have to be kept for the server.
    pub(super) fn leave(&mut self, closed: bool) -> bool {
        let stays = self.client().is_some() && self.unread.is_some();
        if stays {
            self.audience = Audience::Left { closed };
        }
        stays
    }
}
