// SPDX-License-Identifier: AGPL-3.0-or-later
//! Text that comes in pieces.

use serde::{Deserialize, Serialize};

use super::Violation;

/// Checks UTF-8 piece by piece. A wrong byte is noticed with the piece that it comes in, also if it is the second of a
/// character that an earlier piece began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utf8 {
    /// The beginning of a character that has not ended.
    begun: [u8; 3],
    len: u8,
}

impl Utf8 {
    /// Whether it is what pieces can have left.
    pub(super) fn is_sound(&self) -> bool {
        usize::from(self.len) <= self.begun.len()
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// It can not be continued to valid text.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while self.len > 0 {
            let [byte, rest @ ..] = piece else { return Ok(()) };
            piece = rest;
            let mut character = [0; 4];
            let len = usize::from(self.len);
            character[..len].copy_from_slice(&self.begun[..len]);
            character[len] = *byte;
            match std::str::from_utf8(&character[..=len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(Violation::Utf8),
                Err(_) => {
                    // A character has four bytes at most, so a beginning of four is never just incomplete.
                    *self.begun.get_mut(len).ok_or(Violation::Utf8)? = *byte;
                    self.len += 1;
                }
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Violation::Utf8);
        }
        let rest = &piece[error.valid_up_to()..];
        self.begun[..rest.len()].copy_from_slice(rest);
        self.len = rest.len() as u8;
        Ok(())
    }

    /// The text has ended.
    ///
    /// # Errors
    /// It has ended within a character.
    pub fn finish(&mut self) -> Result<(), Violation> {
        if std::mem::take(self).len == 0 { Ok(()) } else { Err(Violation::Utf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pieces: &[&[u8]]) -> Result<(), Violation> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.feed(piece)?;
        }
        utf8.finish()
    }

    #[test]
    fn a_wrong_byte_is_noticed_with_its_piece() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.feed(b"\xf4"), Ok(()));
        // Beyond the last character there is.
        assert_eq!(utf8.feed(b"\x90"), Err(Violation::Utf8));
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.feed(b"ok\xed"), Ok(()));
        // Half a surrogate pair.
        assert_eq!(utf8.feed(b"\xa0\x80"), Err(Violation::Utf8));
    }

    #[test]
    fn text_may_not_end_within_a_character() {
        assert_eq!(check(&[b"\xe2\x82"]), Err(Violation::Utf8));
        assert_eq!(check(&[b"\xe2", b"\x82", b"", b"\xac"]), Ok(()));
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(
            bytes in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                proptest::collection::vec(prop_oneof![Just(0xf0u8), Just(0x9f), Just(0x98), Just(0x80), any::<u8>()], 0..12),
            ],
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(check(&pieces).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
