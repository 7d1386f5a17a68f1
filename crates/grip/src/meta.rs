// SPDX-License-Identifier: AGPL-3.0-or-later
//! Data for filters: what a backend has set for a subscriber, or a publisher for a message.

/// Values by name. Names are unique, and sorted so that one is found fast among many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta(Vec<(String, String)>);

impl Meta {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(&self.0[found].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of equal names the last one counts.
impl FromIterator<(String, String)> for Meta {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Stable, so that equal names stay in their order.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut earlier.1, &mut later.1);
            }
            same
        });
        Meta(entries)
    }
}

impl Default for &Meta {
    fn default() -> Self {
        static NOTHING: Meta = Meta(Vec::new());
        &NOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map_in_which_the_last_value_counts(entries in prop::collection::vec(("[a-d]{0,2}", "[0-9]"), 0..20)) {
            let model: BTreeMap<String, String> = entries.iter().cloned().collect();
            let meta: Meta = entries.into_iter().collect();
            prop_assert!(meta.iter().eq(model.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            for name in ["", "a", "b", "cd", "zz"] {
                prop_assert_eq!(meta.get(name), model.get(name).map(String::as_str));
            }
        }
    }
}
