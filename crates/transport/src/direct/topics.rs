// SPDX-License-Identifier: AGPL-3.0-or-later
//! Subscriptions: prefixes of messages, each with a count.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::BTreeMap;

use bytes::Bytes;

/// A set of prefixes in which each may stand several times.
#[derive(Default)]
pub(crate) struct Topics {
    counts: BTreeMap<Bytes, usize>,
    bytes: usize,
}

impl Topics {
    /// Adds a prefix; it is returned if it was not there.
    pub(crate) fn add(&mut self, topic: &[u8]) -> Option<Bytes> {
        if let Some(count) = self.counts.get_mut(topic) {
            *count += 1;
            return None;
        }
        let topic = Bytes::copy_from_slice(topic);
        self.counts.insert(topic.clone(), 1);
        self.bytes += topic.len();
        Some(topic)
    }

    /// Takes a prefix out once; it is returned if that was the last time. One that is not there is ignored.
    pub(crate) fn remove(&mut self, topic: &[u8]) -> Option<Bytes> {
        match self.counts.get_mut(topic)? {
            count if *count > 1 => {
                *count -= 1;
                None
            }
            _ => {
                let (topic, _) = self.counts.remove_entry(topic)?;
                self.bytes -= topic.len();
                Some(topic)
            }
        }
    }

    /// How many different prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Bytes of all different prefixes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Each prefix with its count.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Bytes, usize)> {
        self.counts.iter().map(|(topic, count)| (topic, *count))
    }

    /// Each prefix once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.counts.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_counts_until_it_was_removed_as_often_as_added() {
        let mut topics = Topics::default();
        assert!(topics.add(b"a ").is_some() && topics.add(b"a ").is_none() && topics.add(b"bcd").is_some());
        assert_eq!((topics.len(), topics.bytes()), (2, 5));
        assert!(topics.remove(b"a ").is_none() && topics.remove(b"a ").is_some());
        assert!(topics.remove(b"a ").is_none() && topics.remove(b"never").is_none());
        assert_eq!((topics.len(), topics.bytes()), (1, 3));
    }
}
