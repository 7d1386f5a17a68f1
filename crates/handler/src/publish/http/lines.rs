// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lines of a body that comes in pieces, none longer than is allowed.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use bytes::{Bytes, BytesMut};

/// What has come and is not used yet.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    pending: BytesMut,
    /// How much of `pending` is known to have no line end.
    searched: usize,
    /// The line has been told to be too long, and the rest of it is to come.
    skipping: bool,
    /// The number of the line that was taken last.
    number: u64,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// As it came, but without white space around it.
    Whole(Bytes),
    /// It is longer than is allowed. None of it is kept.
    TooLong,
}

impl Lines {
    /// Nothing has come. A line may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Lines { limit, pending: BytesMut::new(), searched: 0, skipping: false, number: 0 }
    }

    /// More has come.
    pub fn push(&mut self, data: &[u8]) {
        self.pending.extend_from_slice(data);
    }

    /// The next line that is whole, with its number from 1. Empty ones are passed over, and counted.
    pub fn take(&mut self) -> Option<(u64, Line)> {
        while let Some(found) = memchr::memchr(b'\n', &self.pending[self.searched..]) {
            let line = self.pending.split_to(self.searched + found + 1);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            self.number += 1;
            if let Some(line) = self.line(&line) {
                return Some((self.number, line));
            }
        }
        self.searched = self.pending.len();
        if self.skipping {
            self.clear();
        } else if self.searched > self.limit + 1 {
            self.clear();
            self.skipping = true;
            self.number += 1;
            return Some((self.number, Line::TooLong));
        }
        None
    }

    /// The last line, if it has no end of its own. To be called when nothing more comes and [`Lines::take`] has nothing more.
    pub fn last(&mut self) -> Option<(u64, Line)> {
        let rest = self.pending.split();
        self.searched = 0;
        let line = self.line(&rest).filter(|_| !self.skipping)?;
        Some((self.number + 1, line))
    }

    /// The number of the line that comes next.
    pub fn next_number(&self) -> u64 {
        self.number + u64::from(!self.skipping)
    }

    /// Bytes that are kept.
    pub fn kept(&self) -> usize {
        self.pending.len()
    }

    fn line(&self, line: &[u8]) -> Option<Line> {
        let text = line.trim_ascii();
        match text.len() {
            0 => None,
            length if length > self.limit => Some(Line::TooLong),
            _ => Some(Line::Whole(Bytes::copy_from_slice(text))),
        }
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]], limit: usize) -> Vec<(u64, Line)> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            found.extend(std::iter::from_fn(|| lines.take()));
            assert!(lines.kept() <= limit + 1);
        }
        found.extend(lines.last());
        found
    }

    fn whole(number: u64, text: &'static str) -> (u64, Line) {
        (number, Line::Whole(text.into()))
    }

    #[test]
    fn lines_have_numbers_and_empty_ones_are_passed_over() {
        let found = all(&[b"a\r\n\n \nb", b"c\n", b"", b"d"], 10);
        assert_eq!(found, [whole(1, "a"), whole(4, "bc"), whole(5, "d")]);
        assert_eq!(all(&[b"a\n"], 10), [whole(1, "a")]);
        assert_eq!(all(&[], 10), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_the_next_one_counts() {
        assert_eq!(all(&[b"aaaa\nbb\n"], 3), [(1, Line::TooLong), whole(2, "bb")]);
        assert_eq!(
            all(&[b"aaaaa", b"aa", b"a\nbb\n", b"cccccc"], 3),
            [(1, Line::TooLong), whole(2, "bb"), (3, Line::TooLong)]
        );
        assert_eq!(all(&[b"aaaaa", b"a"], 3), [(1, Line::TooLong)]);
        assert_eq!(all(&[b"aaa\r\nb"], 3), [whole(1, "aaa"), whole(2, "b")]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_they_come(text in "[ab\\r\\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..8)) {
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(all(&pieces, 40), all(&[text], 40));
        }
    }
}
