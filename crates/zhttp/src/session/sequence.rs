// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sequence numbers: each direction of a session counts its packets from 0 (ZHTTP, sequence numbers).

use super::violation::Violation;

/// The last number a packet may have. The protocol names no end; the originals in C++ keep numbers in an `int`, so this
/// is the last one that every peer understands. At a thousand packets a second it is reached after 24 days.
pub const LAST: u32 = i32::MAX as u32;

/// How many numbers are left when a session should be ended in order: see [`Sequence::is_spent`].
const SPARE: u32 = 1 << 20;

/// The numbers of the packets due next, in and out.
///
/// They never begin again at 0. Beyond [`LAST`] both stand still: the sender gives the same number again, and the
/// receiver takes none. So a session that is not ended in time ends with a violation at its receiver, and a packet is
/// never taken for an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The number the next packet received should have.
    pub next_in: u32,
    /// The number the next packet sent will have.
    pub next_out: u32,
}

impl Sequence {
    /// Checks a received packet's number. One without a number is accepted and not counted.
    ///
    /// # Errors
    /// The number is not the one due, or the numbers are used up.
    pub fn accept(&mut self, seq: Option<u32>) -> Result<(), Violation> {
        match seq {
            None => Ok(()),
            Some(seq) if seq == self.next_in && seq <= LAST => {
                self.next_in += 1;
                Ok(())
            }
            Some(got) => Err(Violation::Sequence { expected: self.next_in, got }),
        }
    }

    /// The number for a packet that is sent now.
    pub fn take(&mut self) -> u32 {
        let seq = self.next_out;
        self.next_out = seq.saturating_add(1).min(LAST + 1);
        seq.min(LAST + 1)
    }

    /// Takes the number that is due as if its packet had come; for a packet that went to a session's former owner.
    pub(crate) fn skip(&mut self) {
        self.next_in = self.next_in.saturating_add(1).min(LAST + 1);
    }

    /// Whether few numbers are left in either direction, so that the session should be ended while its peer can still be
    /// told.
    pub fn is_spent(&self) -> bool {
        self.next_in.max(self.next_out) > LAST - SPARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_come_without_gap_and_without_repetition() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.accept(Some(0)), Ok(()));
        assert_eq!(sequence.accept(None), Ok(()));
        assert_eq!(sequence.accept(Some(1)), Ok(()));
        assert_eq!(sequence.accept(Some(1)), Err(Violation::Sequence { expected: 2, got: 1 }));
        assert_eq!(sequence.accept(Some(3)), Err(Violation::Sequence { expected: 2, got: 3 }));
    }

    #[test]
    fn the_last_number_is_taken_and_none_after_it() {
        let mut sequence = Sequence { next_in: LAST, next_out: LAST };
        assert!(sequence.is_spent());
        assert_eq!((sequence.take(), sequence.accept(Some(LAST))), (LAST, Ok(())));
        for got in [0, LAST, LAST + 1, u32::MAX] {
            assert_eq!(sequence.accept(Some(got)), Err(Violation::Sequence { expected: LAST + 1, got }));
        }
        // Two senders' packets beyond the end are refused by the receiver, whatever it expects.
        assert_eq!((sequence.take(), sequence.take()), (LAST + 1, LAST + 1));
    }

    #[test]
    fn numbers_from_outside_that_are_out_of_range_neither_panic_nor_wrap() {
        let mut sequence = Sequence { next_in: u32::MAX, next_out: u32::MAX };
        sequence.skip();
        assert_eq!(sequence.take(), LAST + 1);
        assert!(sequence.accept(Some(u32::MAX)).is_err() && sequence.accept(Some(0)).is_err());
        assert!(sequence.is_spent());
    }

    #[test]
    fn a_session_is_ended_in_order_long_before_its_numbers_are_used_up() {
        assert!(!Sequence { next_in: 1 << 30, next_out: 1 << 30 }.is_spent());
        assert!(Sequence { next_in: 0, next_out: LAST - SPARE + 1 }.is_spent());
    }
}
