// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bounds the work that a client can have done for nothing: compressed data may go on for ever without content, and what gives
//! no content needs no credits.

use wire::websocket::Violation;

use super::deflate::Inflated;

/// Compressed bytes that one byte of content pays for, and the end of a message, which has a cost of its own without compression as
/// well. No compressor needs as many over any length.
const PAID: usize = 16;
/// What a client may owe. Tables of codes, and flushes with nothing before them, cost far less.
const MAX: usize = 65_536;

/// Compressed bytes that have been read, as far as content has not paid for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt(u32);

impl Debt {
    /// One of so many bytes.
    pub(crate) fn of(bytes: u64) -> Self {
        Debt(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0.into()
    }

    /// A part has been inflated.
    ///
    /// # Errors
    /// The client owes too much.
    pub fn settle(&mut self, part: &Inflated) -> Result<(), Violation> {
        let paid = PAID * (part.content.len() + usize::from(part.end));
        let owed = (self.0 as usize).saturating_add(part.read).saturating_sub(paid);
        self.0 = u32::try_from(owed).unwrap_or(u32::MAX);
        if owed > MAX { Err(Violation::Empty) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(read: usize, content: usize, end: bool) -> Inflated {
        Inflated { content: vec![0; content], dry: true, end, read }
    }

    #[test]
    fn content_and_ends_of_messages_pay_for_what_has_been_read() {
        let mut debt = Debt::default();
        assert_eq!(debt.settle(&part(MAX, 0, false)), Ok(()));
        assert_eq!(debt.settle(&part(16, 1, false)), Ok(()));
        assert_eq!(debt.settle(&part(16, 0, true)), Ok(()));
        assert_eq!(debt.settle(&part(1, 0, false)), Err(Violation::Empty));
    }

    #[test]
    fn content_pays_for_nothing_that_is_to_come() {
        let mut debt = Debt::default();
        assert_eq!(debt.settle(&part(0, MAX, true)), Ok(()));
        assert_eq!(debt.settle(&part(MAX + 1, 0, false)), Err(Violation::Empty));
    }
}
