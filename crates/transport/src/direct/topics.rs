//! Subscriptions: prefixes of messages, each with a count.

use std::collections::{BTreeMap, HashMap};

/// A set of prefixes in which each may stand several times.
#[derive(Default)]
pub(crate) struct Topics {
    counts: HashMap<Box<[u8]>, usize>,
    /// How many of them have each length: a message is looked up by its beginnings of these lengths only.
    lengths: BTreeMap<usize, usize>,
}

impl Topics {
    /// Adds a prefix; whether it was not there.
    pub(crate) fn add(&mut self, topic: &[u8]) -> bool {
        if let Some(count) = self.counts.get_mut(topic) {
            *count += 1;
            return false;
        }
        self.counts.insert(topic.into(), 1);
        *self.lengths.entry(topic.len()).or_default() += 1;
        true
    }

    /// Takes a prefix out once; whether that was the last time. One that is not there is ignored.
    pub(crate) fn remove(&mut self, topic: &[u8]) -> bool {
        match self.counts.get_mut(topic) {
            None => return false,
            Some(count) if *count > 1 => {
                *count -= 1;
                return false;
            }
            Some(_) => {}
        }
        self.counts.remove(topic);
        if let Some(count) = self.lengths.get_mut(&topic.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&topic.len());
            }
        }
        true
    }

    /// Whether a message is of interest.
    pub(crate) fn matches(&self, message: &[u8]) -> bool {
        self.lengths.keys().any(|&len| message.get(..len).is_some_and(|prefix| self.counts.contains_key(prefix)))
    }

    /// How many different prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Each prefix once.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.counts.keys().map(|topic| &**topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_counts_until_it_was_removed_as_often_as_added() {
        let mut topics = Topics::default();
        assert!(topics.add(b"a ") && !topics.add(b"a ") && topics.add(b"bcd"));
        assert!(topics.matches(b"a message") && topics.matches(b"bcd") && !topics.matches(b"bc"));
        assert!(!topics.remove(b"a ") && topics.matches(b"a message"));
        assert!(topics.remove(b"a ") && !topics.matches(b"a message"));
        assert!(!topics.remove(b"a ") && !topics.remove(b"never"));
    }

    #[test]
    fn the_empty_prefix_matches_everything() {
        let mut topics = Topics::default();
        topics.add(b"");
        assert!(topics.matches(b"") && topics.matches(b"anything"));
    }
}
