// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is kept of a WebSocket so that it outlives the proxy that has asked for it.

use std::time::Instant;

use zhttp::Packet;
use zhttp::budget::Share;
use zhttp::retained::{Received, Retained};

/// The backend has closed, and the client's side has had that.
const BACKEND_CLOSED: u8 = 1;
/// The client has closed.
const CLIENT_CLOSED: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Kept {
    /// By this name a successor of the proxy claims it.
    pub name: Box<[u8]>,
    /// Its requester has gone, and nobody hears of it.
    pub is_orphan: bool,
    /// When it ends, unless it is claimed: it has no requester, or both sides have closed.
    pub until: Option<Instant>,
    /// What the backend has sent and the client's side may not have.
    sent: Retained,
    /// What has come of the client's.
    came: Received,
}

impl Kept {
    /// One that has just been asked for.
    pub fn new(name: &[u8], memory: Share) -> Self {
        Kept {
            name: name.into(),
            is_orphan: false,
            until: None,
            sent: Retained::new(memory),
            came: Received::default(),
        }
    }

    /// Whether a successor could go on with it.
    pub fn is_whole(&self) -> bool {
        self.sent.is_whole()
    }

    /// A packet of the requester has come, whatever it is.
    pub fn on_packet(&mut self, packet: &Packet<'_>) {
        if let Some(position) = packet.ext.had {
            self.sent.forget_to(position);
        }
    }

    /// Something of the client's has come.
    pub fn take(&mut self, packet: &Packet<'_>) {
        self.came.take(packet);
    }

    /// Something of the backend's is about to be sent. Gives what is to be said of the client's.
    pub fn note(&mut self, packet: &Packet<'_>) -> Option<u64> {
        self.sent.add(0, packet);
        self.came.tell()
    }

    /// What is to be said of the client's, with a packet that is sent anyway.
    pub fn tell(&mut self) -> Option<u64> {
        self.came.tell()
    }

    /// Whether the client's side is to be told at once how far it has come.
    pub fn is_due(&self) -> bool {
        self.came.is_due()
    }

    /// Whether the client's side has all, or can not get it any more.
    pub fn is_settled(&self) -> bool {
        self.sent.is_empty()
    }

    /// A successor of the requester claims it, whose client has had all of the backend's in front of this position. Gives how far the
    /// client's has come, and which closes are past; none if it can not be gone on with.
    pub fn claim(&mut self, had: u64, (backend_closed, client_closed): (bool, bool)) -> Option<(u64, u8)> {
        if !self.sent.rewind(had) {
            return None;
        }
        (self.is_orphan, self.until) = (false, None);
        self.came = Received::at(self.came.position());
        // One that the client's side has not had is sent again.
        let backend = if backend_closed && self.sent.is_empty() { BACKEND_CLOSED } else { 0 };
        Some((self.came.position(), backend | if client_closed { CLIENT_CLOSED } else { 0 }))
    }

    /// Whether nothing is left to be sent again.
    pub fn is_sent(&self) -> bool {
        self.sent.is_sent()
    }

    /// What is to be sent again, as far as the credits go, and what is to be said of the client's.
    pub fn next(&mut self, credits: usize) -> Option<(Packet<'_>, Option<u64>)> {
        let had = self.came.tell();
        self.sent.next(credits).map(|packet| (packet, had))
    }
}

#[cfg(test)]
mod tests {
    use zhttp::budget::Budget;
    use zhttp::{Ext, Kind};

    use super::*;

    fn kept() -> Kept {
        Kept::new(b"c", Budget::new(1000).share())
    }

    fn data(body: &[u8]) -> Packet<'_> {
        Packet { content_type: Some(b"text"), body, ..Packet::default() }
    }

    fn had(position: u64) -> Packet<'static> {
        Packet { kind: Kind::KeepAlive, ext: Ext { had: Some(position), ..Ext::default() }, ..Packet::default() }
    }

    #[test]
    fn a_successor_gets_what_its_client_has_not_had_and_hears_how_far_the_clients_has_come() {
        let mut kept = kept();
        kept.take(&data(b"up"));
        assert_eq!((kept.note(&data(b"one")), kept.note(&data(b"two"))), (Some(3), None));
        kept.on_packet(&had(4));
        assert_eq!(kept.claim(5, (false, false)), Some((3, 0)));
        assert_eq!(kept.next(9), Some((data(b"wo"), None)));
        assert!(kept.is_sent() && !kept.is_settled() && kept.next(9).is_none());
        kept.on_packet(&had(8));
        assert!(kept.is_settled());
    }

    #[test]
    fn a_close_that_the_client_has_not_had_is_sent_again_and_one_that_it_has_had_is_named() {
        let close = Packet { kind: Kind::Close, ..Packet::default() };
        let mut kept = kept();
        kept.note(&close);
        assert_eq!(kept.claim(0, (true, true)), Some((0, CLIENT_CLOSED)));
        assert_eq!(kept.next(0).unwrap().0.kind, Kind::Close);
        assert_eq!(kept.claim(1, (true, false)), Some((0, BACKEND_CLOSED)));
        assert!(kept.is_settled());
    }

    #[test]
    fn what_is_not_there_any_more_or_was_too_much_can_not_be_claimed() {
        let mut kept = kept();
        kept.note(&data(b"one"));
        kept.on_packet(&had(2));
        assert_eq!((kept.claim(1, (false, false)), kept.claim(5, (false, false))), (None, None));
        kept.note(&data(&[0; 1000]));
        assert!(!kept.is_whole());
        assert_eq!(kept.claim(2, (false, false)), None);
    }
}
