// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who has subscribed to what: from the beginning of a message to the peers that want it.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Peers, by slot, under the prefixes that they have subscribed to.
#[derive(Default)]
pub(crate) struct Subscribers {
    by_prefix: HashMap<Bytes, Vec<usize>>,
    /// How many prefixes have each length: a message is looked up by its beginnings of these lengths only. Instances
    /// have names of about one length, so that is one look-up.
    lengths: BTreeMap<usize, usize>,
}

impl Subscribers {
    /// A peer subscribes to a prefix; whether it is the first to do so.
    pub(crate) fn add(&mut self, prefix: Bytes, slot: usize) -> bool {
        let len = prefix.len();
        let slots = self.by_prefix.entry(prefix).or_default();
        slots.push(slot);
        let first = slots.len() == 1;
        if first {
            *self.lengths.entry(len).or_default() += 1;
        }
        first
    }

    /// A peer ends its subscription; whether nobody is left.
    pub(crate) fn remove(&mut self, prefix: &[u8], slot: usize) -> bool {
        let Some(slots) = self.by_prefix.get_mut(prefix) else { return false };
        slots.retain(|other| *other != slot);
        if !slots.is_empty() {
            return false;
        }
        self.by_prefix.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
        true
    }

    /// Whether nobody has subscribed to anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// Who has subscribed to exactly this prefix.
    pub(crate) fn exact(&self, prefix: &[u8]) -> &[usize] {
        self.by_prefix.get(prefix).map_or(&[], |slots| slots)
    }

    /// Puts those into `slots` that want a message, each once. Beginnings of length `but` are not looked up.
    pub(crate) fn matching(&self, message: &[u8], but: Option<usize>, slots: &mut Vec<usize>) {
        slots.clear();
        for &len in self.lengths.keys().filter(|len| Some(**len) != but) {
            let Some(found) = message.get(..len).and_then(|prefix| self.by_prefix.get(prefix)) else { continue };
            slots.extend_from_slice(found);
        }
        slots.sort_unstable();
        slots.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(subscribers: &Subscribers, message: &[u8]) -> Vec<usize> {
        let mut slots = Vec::new();
        subscribers.matching(message, None, &mut slots);
        slots
    }

    #[test]
    fn a_message_finds_each_subscriber_of_a_beginning_of_it_once() {
        let mut subscribers = Subscribers::default();
        assert!(subscribers.add("a".into(), 1) && subscribers.add("ab".into(), 1) && subscribers.add("".into(), 2));
        assert!(!subscribers.add("ab".into(), 3));
        assert_eq!(matching(&subscribers, b"abc"), [1, 2, 3]);
        assert_eq!(matching(&subscribers, b"b"), [2]);
        assert!(!subscribers.remove(b"ab", 1) && subscribers.remove(b"ab", 3) && !subscribers.remove(b"ab", 3));
        assert!(!subscribers.is_empty());
        assert_eq!(matching(&subscribers, b"abc"), [1, 2]);
    }

    #[test]
    fn the_owner_of_a_name_is_told_from_those_who_listen_in() {
        let mut subscribers = Subscribers::default();
        subscribers.add("proxy_1 ".into(), 1);
        subscribers.add("".into(), 2);
        assert_eq!(subscribers.exact(b"proxy_1 "), [1]);
        assert!(subscribers.exact(b"proxy_10 ").is_empty());
        let mut others = Vec::new();
        subscribers.matching(b"proxy_1 packet", Some(8), &mut others);
        assert_eq!(others, [2]);
    }
}
