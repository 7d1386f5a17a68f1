// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sessions that a packet was refused of, though a successor of their server could go on with them: either that server
//! has ended, which is told only behind all that came from it, or it does not keep up, and has missed the packet.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use zhttp::{Id, PeerId};

use crate::uplink::Refused;

/// So long at most after the first packet that a server does not take, its end is told: the transport breaks off a link
/// that takes nothing for 10 s.
const PATIENCE: Duration = Duration::from_secs(11);

/// See the module. No more than there are sessions: one that has ended meanwhile is forgotten when its time has come.
#[derive(Default)]
pub(super) struct Doubtful {
    sessions: HashMap<Id, (Option<PeerId>, Instant)>,
    /// None is due before, so that they are not looked through each turn.
    next: Option<Instant>,
}

impl Doubtful {
    pub(super) fn add(&mut self, refused: Refused, now: Instant) {
        let due = now + PATIENCE;
        let entry = self.sessions.entry(refused.id).or_insert((refused.server, due));
        if entry.0 != refused.server {
            *entry = (refused.server, due);
        }
        self.next.get_or_insert(due);
    }

    /// A server takes packets again, so it has not ended, and its sessions have missed some.
    pub(super) fn on_room(&mut self, server: PeerId, now: Instant) {
        let of_it = self.sessions.values_mut().filter(|(of, _)| *of == Some(server));
        of_it.for_each(|(_, due)| *due = now);
        self.next = self.next.map(|_| now);
    }

    /// The sessions whose time has come. Those of them that still have the same server are to be ended.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Refused> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let due = self.sessions.extract_if(|_, (_, due)| *due <= now);
        let due = due.map(|(id, (server, _))| Refused { id, server }).collect();
        self.next = self.sessions.values().map(|(_, due)| *due).min();
        due
    }
}

#[cfg(test)]
mod tests {
    use zhttp::Peers;

    use super::*;

    #[test]
    fn a_session_has_as_long_as_the_end_of_its_server_may_take_to_be_told() {
        let mut peers = Peers::default();
        let (dead, slow) = (peers.intern(b"dead"), peers.intern(b"slow"));
        let refused = |id: u32, server| Refused { id: Id::indexed(id, 0), server };
        let start = Instant::now();
        let mut doubtful = Doubtful::default();
        doubtful.add(refused(1, dead), start);
        doubtful.add(refused(2, slow), start);
        // What follows is refused as well, and gives no more time.
        doubtful.add(refused(1, dead), start + Duration::from_secs(5));
        assert!(doubtful.take_due(start + Duration::from_secs(10)).is_empty());
        doubtful.on_room(slow.unwrap(), start + Duration::from_secs(10));
        let due = |doubtful: &mut Doubtful, seconds| -> Vec<Id> {
            let due = doubtful.take_due(start + Duration::from_secs(seconds));
            due.into_iter().map(|refused| refused.id).collect()
        };
        assert_eq!(due(&mut doubtful, 10), [Id::indexed(2, 0)]);
        assert_eq!(due(&mut doubtful, 11), [Id::indexed(1, 0)]);
        assert_eq!(due(&mut doubtful, 100), []);
        // The next server of a session that has gone on is another matter.
        doubtful.add(refused(1, dead), start);
        doubtful.add(refused(1, slow), start + Duration::from_secs(5));
        assert_eq!(due(&mut doubtful, 11), []);
        assert_eq!(due(&mut doubtful, 16), [Id::indexed(1, 0)]);
    }
}
