// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages that can not be handed over yet, in a queue of their own for each peer, so that none waits for another's.
//!
//! The peer is absent: when processes start, they connect to each other one by one within some 100 ms, and an answer may
//! have to go out by a socket whose peer comes a little later than the question did. Or, where libzmq does the I/O, it
//! has no room for the peer. Pure: the time comes from the caller.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::counters::Load;

/// Peers for which messages wait at a time.
const MAX_PEERS: usize = 100;

/// The parts of a message.
pub(crate) type Parts = Vec<Vec<u8>>;

/// How much may wait for one peer, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) patience: Duration,
}

/// A peer that has been waited for in vain, for people.
pub(crate) struct Absent<'a> {
    pub(crate) address: &'a str,
    pub(crate) name: &'a [u8],
    pub(crate) messages: usize,
}

impl fmt::Display for Absent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Absent { address, name, messages } = self;
        write!(
            f,
            "{address}: {messages} messages for the ZeroMQ peer {} are lost: it is not there",
            name.escape_ascii()
        )
    }
}

/// Queues by the names of peers.
pub(crate) struct Waiting {
    limits: Limits,
    queues: BTreeMap<Bytes, Queue>,
    load: Load,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    load: Load,
}

struct Message {
    parts: Parts,
    bytes: usize,
    /// When it came; none until the time was told.
    since: Option<Instant>,
}

impl Waiting {
    pub(crate) fn new(limits: Limits) -> Self {
        Waiting { limits, queues: BTreeMap::new(), load: Load::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether something waits for the peer.
    pub(crate) fn holds(&self, peer: &[u8]) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(peer)
    }

    /// What waits for all peers.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// What waits for one.
    pub(crate) fn load_of(&self, peer: &[u8]) -> Load {
        self.queues.get(peer).map_or(Load::default(), |queue| queue.load)
    }

    /// Whether another message for the peer may wait.
    pub(crate) fn has_room(&self, peer: &[u8]) -> bool {
        match self.queues.get(peer) {
            Some(Queue { load, .. }) => load.messages < self.limits.messages && load.bytes < self.limits.bytes,
            None => self.queues.len() < MAX_PEERS,
        }
    }

    /// Whether less than half of what may wait for the peer does.
    pub(crate) fn has_much_room(&self, peer: &[u8]) -> bool {
        let Load { messages, bytes } = self.load_of(peer);
        messages <= self.limits.messages / 2 && bytes <= self.limits.bytes / 2
    }

    /// Adds a message; not if there is no room.
    pub(crate) fn push(&mut self, peer: &[u8], parts: &[&[u8]]) -> bool {
        if !self.has_room(peer) {
            return false;
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        let load = Load { messages: 1, bytes };
        let message = Message { parts: parts.iter().map(|part| part.to_vec()).collect(), bytes, since: None };
        self.load += load;
        match self.queues.get_mut(peer) {
            Some(queue) => {
                queue.load += load;
                queue.messages.push_back(message);
            }
            None => {
                let queue = Queue { load, messages: VecDeque::from([message]) };
                self.queues.insert(Bytes::copy_from_slice(peer), queue);
            }
        }
        true
    }

    /// What waits for each peer, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Bytes, Vec<Parts>)> {
        let messages = |queue: &Queue| queue.messages.iter().map(|message| message.parts.clone()).collect();
        self.queues.iter().map(move |(peer, queue)| (peer, messages(queue)))
    }

    /// Takes out what waits for a peer, in order.
    pub(crate) fn take(&mut self, peer: &[u8]) -> impl Iterator<Item = Parts> + use<> {
        let queue = self.queues.remove(peer).unwrap_or_default();
        self.load -= queue.load;
        queue.messages.into_iter().map(|message| message.parts)
    }

    /// Hands over what `taken` takes of each queue in order, until it refuses one.
    pub(crate) fn hand_over(&mut self, mut taken: impl FnMut(&[u8], &[&[u8]]) -> bool) {
        let load = &mut self.load;
        self.queues.retain(|peer, queue| {
            let mut some = false;
            while let Some(Message { parts, bytes, .. }) = queue.messages.front() {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                if !taken(peer, &parts) {
                    break;
                }
                let one = Load { messages: 1, bytes: *bytes };
                queue.load -= one;
                *load -= one;
                queue.messages.pop_front();
                some = true;
            }
            if some {
                // The peer takes something, so what follows has not been waited for in vain.
                queue.messages.iter_mut().for_each(|message| message.since = None);
            }
            !queue.messages.is_empty()
        });
    }

    /// Gives up what has waited too long, and returns whose it was and how many messages.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(Bytes, usize)> {
        let (mut gone, load, patience) = (Vec::new(), &mut self.load, self.limits.patience);
        self.queues.retain(|peer, queue| {
            let mut given_up = 0;
            // The time is told at least as often as the loop turns; those without one came since.
            queue.messages.iter_mut().rev().take_while(|m| m.since.is_none()).for_each(|m| m.since = Some(now));
            while let Some(Message { bytes, .. }) =
                queue.messages.front().filter(|m| m.since.is_some_and(|since| now >= since + patience))
            {
                let one = Load { messages: 1, bytes: *bytes };
                queue.load -= one;
                *load -= one;
                queue.messages.pop_front();
                given_up += 1;
            }
            if given_up > 0 {
                gone.push((peer.clone(), given_up));
            }
            !queue.messages.is_empty()
        });
        gone
    }

    /// When [`Waiting::expire`] has something to do; `now` if it has not been told the time of something yet.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let first =
            |queue: &Queue| queue.messages.front().map(|m| m.since.map_or(now, |since| since + self.limits.patience));
        self.queues.values().filter_map(first).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waiting() -> Waiting {
        Waiting::new(Limits { messages: 3, bytes: 100, patience: SECOND })
    }

    fn texts(parts: impl Iterator<Item = Parts>) -> Vec<String> {
        parts.map(|parts| String::from_utf8(parts.concat()).unwrap()).collect()
    }

    #[test]
    fn each_peer_has_a_queue_of_its_own_with_bounds_of_its_own() {
        let mut waiting = waiting();
        assert!(["1", "2", "3"].iter().all(|text| waiting.push(b"a", &[text.as_bytes()])));
        assert!(!waiting.push(b"a", &[b"4"]) && waiting.push(b"b", &[&[0; 200]]) && !waiting.push(b"b", &[b"2"]));
        assert_eq!(waiting.load(), Load { messages: 4, bytes: 203 });
        assert_eq!(texts(waiting.take(b"a")), ["1", "2", "3"]);
        assert_eq!((waiting.load_of(b"a"), waiting.load()), (Load::default(), Load { messages: 1, bytes: 200 }));
    }

    #[test]
    fn a_peer_that_takes_nothing_holds_up_no_other_and_order_is_kept() {
        let mut waiting = waiting();
        for text in ["1", "2"] {
            waiting.push(b"a", &[text.as_bytes()]);
            waiting.push(b"b", &[text.as_bytes()]);
        }
        let mut taken = Vec::new();
        waiting.hand_over(|peer, parts| {
            let takes = peer == b"b";
            if takes {
                taken.push(parts.concat());
            }
            takes
        });
        assert_eq!(taken, [b"1", b"2"]);
        assert!(waiting.holds(b"a") && !waiting.holds(b"b"));
    }

    #[test]
    fn what_waits_too_long_is_given_up_and_told() {
        let (mut waiting, now) = (waiting(), Instant::now());
        waiting.push(b"a", &[b"early"]);
        assert_eq!(waiting.next_due(now), Some(now));
        assert_eq!(waiting.expire(now), []);
        waiting.push(b"a", &[b"late"]);
        assert_eq!(waiting.expire(now + SECOND / 2), []);
        assert_eq!(waiting.next_due(now), Some(now + SECOND));
        assert_eq!(waiting.expire(now + SECOND), [("a".into(), 1)]);
        assert_eq!(texts(waiting.take(b"a")), ["late"]);
        assert!(waiting.is_empty() && waiting.load() == Load::default());
    }

    #[test]
    fn the_peers_for_whom_something_waits_are_bounded() {
        let mut waiting = waiting();
        let refused = (0..200u8).filter(|peer| !waiting.push(&[*peer], &[b"x"])).count();
        assert_eq!(refused, 100);
    }
}
