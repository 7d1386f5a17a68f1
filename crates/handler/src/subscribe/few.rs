// SPDX-License-Identifier: AGPL-3.0-or-later
//! A list that mostly has one entry.
//!
//! Ten thousand clients may have a channel each, and each of those channels a list for every kind of subscriber. A list of
//! this type takes 16 bytes as long as its entries are small, and nothing beside them for one entry.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::ops::{Deref, DerefMut};

/// See the module.
#[derive(Clone, Debug, Default)]
pub enum Few<T> {
    /// No entry.
    #[default]
    None,
    /// One.
    One(T),
    /// More, or there were more.
    // A vector in its place would be 24 bytes, which all lists would have for the few that need it.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<T>>),
}

impl<T> Few<T> {
    /// Adds an entry at the end.
    pub fn push(&mut self, entry: T) {
        *self = match std::mem::take(self) {
            Few::None => Few::One(entry),
            Few::One(first) => Few::Many(Box::new(vec![first, entry])),
            Few::Many(mut all) => {
                all.push(entry);
                Few::Many(all)
            }
        };
    }

    /// Removes an entry, whose place the last one takes. Room that is no longer needed is given back.
    ///
    /// # Panics
    /// There is no such entry.
    pub fn swap_remove(&mut self, index: usize) -> T {
        match std::mem::take(self) {
            Few::One(entry) if index == 0 => entry,
            Few::None | Few::One(_) => panic!("there is no entry {index}"),
            Few::Many(mut all) => {
                let entry = all.swap_remove(index);
                if all.len() < all.capacity() / 4 {
                    all.shrink_to(all.len() * 2);
                }
                if !all.is_empty() {
                    *self = Few::Many(all);
                }
                entry
            }
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Few::None => &[],
            Few::One(entry) => std::slice::from_ref(entry),
            Few::Many(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Few::None => &mut [],
            Few::One(entry) => std::slice::from_mut(entry),
            Few::Many(all) => all,
        }
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut few = Few::None;
        entries.into_iter().for_each(|entry| few.push(entry));
        few
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_is_two_words() {
        assert_eq!((size_of::<Few<u32>>(), size_of::<Few<(u32, u32)>>()), (16, 16));
    }

    proptest! {
        #[test]
        fn it_is_a_vector(steps in prop::collection::vec(any::<Option<u8>>(), 0..200)) {
            let (mut few, mut model) = (Few::default(), Vec::new());
            for (entry, step) in steps.into_iter().enumerate() {
                match step {
                    Some(index) if usize::from(index) < model.len() => {
                        prop_assert_eq!(few.swap_remove(index.into()), model.swap_remove(index.into()));
                    }
                    _ => {
                        few.push(entry);
                        model.push(entry);
                    }
                }
                prop_assert_eq!(&*few, &*model);
            }
            prop_assert_eq!(few.into_iter().copied().collect::<Few<_>>().to_vec(), model);
        }
    }
}
