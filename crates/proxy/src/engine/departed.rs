// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that are gone, and of which something may still come: who answers by PUB has another link than the one whose end tells
//! of its death. What it says last may give it a request that nobody else will answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use zhttp::PeerId;

/// How many of them are remembered. What they have said last comes before so many others have gone.
const MOST: usize = 32;
/// How long one that speaks after its end may be another one of the same name, whose arrival has not been told yet.
const DOUBT: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub(super) struct Departed {
    gone: VecDeque<PeerId>,
    /// Those that have spoken since.
    spoke: Vec<PeerId>,
    /// When nobody doubts any more that these are gone.
    due: Option<Instant>,
}

impl Departed {
    /// A process has gone.
    pub fn note(&mut self, peer: PeerId) {
        self.remove(peer);
        if self.gone.len() == MOST {
            self.gone.pop_front();
        }
        self.gone.push_back(peer);
    }

    /// It is back, or another one has its name.
    pub fn remove(&mut self, peer: PeerId) {
        self.gone.retain(|gone| *gone != peer);
    }

    /// A packet of this process has been taken in.
    pub fn heard(&mut self, peer: PeerId, now: Instant) {
        if self.gone.contains(&peer) && !self.spoke.contains(&peer) {
            self.spoke.push(peer);
            self.due.get_or_insert(now + DOUBT);
        }
    }

    /// When [`Departed::take_due`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Those that have spoken after their end: what they have got by that is lost.
    pub fn take_due(&mut self, now: Instant) -> Vec<PeerId> {
        if self.due.take_if(|due| *due <= now).is_none() {
            return Vec::new();
        }
        let mut spoke = std::mem::take(&mut self.spoke);
        spoke.retain(|peer| self.gone.contains(peer));
        spoke
    }
}

#[cfg(test)]
mod tests {
    use zhttp::Peers;

    use super::*;

    #[test]
    fn those_that_have_spoken_after_their_end_are_told_once_unless_they_are_back() {
        let (mut peers, mut departed, now) = (Peers::default(), Departed::default(), Instant::now());
        let [a, b, c] = [b"a", b"b", b"c"].map(|name| peers.intern(name).unwrap());
        departed.heard(a, now);
        assert_eq!(departed.next_due(), None, "it has not gone");
        for peer in [a, b, c] {
            departed.note(peer);
        }
        departed.heard(a, now);
        departed.heard(b, now + DOUBT / 2);
        departed.heard(a, now + DOUBT / 2);
        departed.remove(b);
        assert_eq!((departed.next_due(), departed.take_due(now + DOUBT / 2)), (Some(now + DOUBT), vec![]));
        assert_eq!((departed.take_due(now + DOUBT), departed.next_due()), (vec![a], None));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let (mut peers, mut departed, now) = (Peers::default(), Departed::default(), Instant::now());
        let all: Vec<_> = (0..=MOST).map(|number| peers.intern(number.to_string().as_bytes()).unwrap()).collect();
        for peer in &all {
            departed.note(*peer);
            departed.note(*peer);
        }
        all.iter().for_each(|peer| departed.heard(*peer, now));
        assert_eq!(departed.take_due(now + DOUBT), all[1..]);
    }
}
