// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is kept of a WebSocket for a successor of its proxy, beside the record.

use zhttp::budget::Share;
use zhttp::recovery::Counted;
use zhttp::retained::{Received, Retained};
use zhttp::{Kind, Packet};

/// See the module.
#[derive(Debug)]
pub struct Underway {
    /// What the client has sent, and the backend's side may not have.
    pub sent: Retained,
    /// What has come of the backend's, if its side counts as well: a backend that speaks WebSocket itself.
    pub came: Option<Came>,
}

/// See [`Underway::came`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// How much.
    pub received: Received,
    /// The middle of a message.
    pub is_within: bool,
}

impl Underway {
    /// Of one whose proxy accepts it with this packet.
    pub fn begin(packet: &Packet<'_>, memory: Share) -> Self {
        Underway { sent: Retained::new(memory), came: packet.ext.had.map(|_| Came::default()) }
    }

    /// A packet of the proxy has come. `false`: it claims that the backend's side has had what it can not have had.
    pub fn on_packet(&mut self, packet: &Packet<'_>, is_successor: bool) -> bool {
        let Some(came) = &mut self.came else { return true };
        if let Some(at) = packet.ext.at {
            came.received.reach(at);
            if packet.kind == Kind::Data {
                came.is_within = packet.more;
            }
        }
        match packet.ext.had {
            Some(had) if is_successor => self.sent.rewind(had),
            Some(had) => {
                self.sent.forget_to(had);
                true
            }
            // One that says nothing does not go on.
            None => true,
        }
    }

    /// What the backend's side is to be told now, if anything. It waits for that when it has closed.
    pub fn due(&mut self, packet: &Packet<'_>) -> Option<u64> {
        let came = self.came.as_mut()?;
        let closes = packet.kind == Kind::Close && packet.ext.at.is_some();
        if closes || came.received.is_due() { came.received.tell() } else { None }
    }

    /// What it is told with a packet that is sent anyway.
    pub fn tell(&mut self) -> Option<u64> {
        self.came.as_mut()?.received.tell()
    }

    /// Whether packets are still to be sent again before any others: the successor gives credits for them.
    pub fn is_behind(&self) -> bool {
        self.came.is_some() && !self.sent.is_sent()
    }

    /// What a successor must know.
    pub fn counted(&self) -> Option<Counted> {
        let came = self.came?;
        let (from, to) = self.sent.span();
        Some(Counted { at: came.received.position(), is_within: came.is_within, from, to })
    }
}

#[cfg(test)]
mod tests {
    use zhttp::Ext;
    use zhttp::budget::Budget;

    use super::*;

    fn begun(had: Option<u64>) -> Underway {
        Underway::begin(&with(Ext { had, ..Ext::default() }), Budget::new(1000).share())
    }

    fn with(ext: Ext<'_>) -> Packet<'_> {
        Packet { ext, ..Packet::default() }
    }

    #[test]
    fn positions_move_with_what_comes_and_with_what_the_backends_side_says() {
        let mut underway = begun(Some(0));
        underway.sent.add(0, &Packet { body: b"abc", ..Packet::default() });
        let part = Packet { more: true, body: b"x", ..with(Ext { at: Some(3), had: Some(1), ..Ext::default() }) };
        assert!(underway.on_packet(&part, false));
        assert_eq!(underway.counted(), Some(Counted { at: 3, is_within: true, from: 1, to: 4 }));
        // What is not of the backend leaves its message as it is.
        assert!(underway.on_packet(&Packet { kind: Kind::Ping, ..with(Ext { at: Some(4), ..Ext::default() }) }, false));
        assert!(underway.on_packet(&Packet { body: b"y", ..Packet::default() }, false));
        assert_eq!(underway.counted().map(|counted| (counted.at, counted.is_within)), Some((4, true)));
        assert_eq!((underway.tell(), underway.tell()), (Some(4), None));
        let close = Packet { kind: Kind::Close, ..with(Ext { at: Some(5), ..Ext::default() }) };
        assert!(underway.on_packet(&close, false));
        assert_eq!((underway.due(&close), underway.due(&close)), (Some(5), None));
    }

    #[test]
    fn a_successor_gets_all_again_that_it_does_not_know_to_have_come() {
        let mut underway = begun(Some(0));
        underway.sent.add(0, &Packet { body: b"abc", ..Packet::default() });
        assert!(!underway.is_behind() && !underway.on_packet(&with(Ext { had: Some(9), ..Ext::default() }), true));
        assert!(underway.on_packet(&with(Ext { had: Some(2), ..Ext::default() }), true));
        assert!(underway.is_behind());
        assert_eq!(underway.sent.next(9).unwrap().body, b"c");
        assert!(!underway.is_behind());
    }

    #[test]
    fn where_the_backend_is_asked_by_requests_nothing_is_counted() {
        let mut underway = begun(None);
        assert!(underway.on_packet(&with(Ext { at: Some(3), had: Some(9), ..Ext::default() }), true));
        assert_eq!((underway.counted(), underway.tell(), underway.is_behind()), (None, None, false));
    }
}
