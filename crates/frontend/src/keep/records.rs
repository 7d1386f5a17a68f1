// SPDX-License-Identifier: AGPL-3.0-or-later
//! Records of sessions. Equal ones are kept once: ten thousand streams of one channel have one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;

use slab::Slab;

use super::Kept;

/// The place of a record in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordKey(NonZeroU32);

impl RecordKey {
    fn at(index: usize) -> Option<Self> {
        u32::try_from(index).ok()?.checked_add(1).and_then(NonZeroU32::new).map(RecordKey)
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// One record and how many sessions have it.
#[derive(Debug)]
struct Record {
    /// The number of the place whose server understands it, and its content.
    key: (usize, Rc<[u8]>),
    sessions: u32,
}

/// See the module. It has no more records than there are sessions, each of [`zhttp::recovery::MAX_RECORD`] bytes at most.
#[derive(Debug, Default)]
pub struct Records {
    records: Slab<Record>,
    by_content: HashMap<(usize, Rc<[u8]>), RecordKey>,
}

impl Records {
    /// One more session has this record.
    pub fn add(&mut self, place: usize, content: &[u8]) -> Option<RecordKey> {
        let key: (usize, Rc<[u8]>) = (place, content.into());
        if let Some(&known) = self.by_content.get(&key) {
            self.records[known.index()].sessions += 1;
            return Some(known);
        }
        let number = RecordKey::at(self.records.vacant_key())?;
        self.records.insert(Record { key: key.clone(), sessions: 1 });
        self.by_content.insert(key, number);
        Some(number)
    }

    /// One session less has this record.
    pub fn release(&mut self, key: RecordKey) {
        let Some(record) = self.records.get_mut(key.index()) else { return };
        record.sessions -= 1;
        if record.sessions == 0 {
            let record = self.records.remove(key.index());
            self.by_content.remove(&record.key);
        }
    }

    /// The number of the place that a record is of.
    pub fn place(&self, key: RecordKey) -> Option<usize> {
        self.records.get(key.index()).map(|record| record.key.0)
    }

    /// Whether what is kept has a record of this place.
    pub fn is_of(&self, kept: &Kept, place: usize) -> bool {
        kept.record.and_then(|record| self.place(record)) == Some(place)
    }

    /// The content of a record.
    pub fn content(&self, key: RecordKey) -> Option<&Rc<[u8]>> {
        self.records.get(key.index()).map(|record| &record.key.1)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_are_kept_once_and_as_long_as_a_session_has_them() {
        let mut records = Records::default();
        let a = records.add(0, b"a").unwrap();
        let b = records.add(0, b"b").unwrap();
        assert_eq!(records.add(0, b"a"), Some(a));
        assert_ne!(records.add(1, b"a"), Some(a));
        records.release(a);
        assert_eq!((records.len(), records.content(a).map(|c| &c[..])), (3, Some(&b"a"[..])));
        records.release(a);
        assert_eq!((records.len(), records.content(a), records.place(b)), (2, None, Some(0)));
    }
}
