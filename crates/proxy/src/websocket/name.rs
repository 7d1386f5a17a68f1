// SPDX-License-Identifier: AGPL-3.0-or-later
//! A WebSocket's public name: `Connection-Id` towards backends, `cid` towards the handler.

/// A version 4 UUID. It is kept as a number, which takes a fifth of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(u128);

/// A name as others see it.
pub type Text = [u8; 36];

/// Where groups of digits begin, behind a dash.
const DASHES: [usize; 4] = [8, 13, 18, 23];

impl Name {
    /// Of these random bits; six of them become what the version says.
    pub fn new(bits: u128) -> Self {
        let bits = bits & !(0xf << 76) | 4 << 76;
        Name(bits & !(0x3 << 62) | 2 << 62)
    }

    /// As it stands in headers and items.
    pub fn text(self) -> Text {
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|at| !DASHES.contains(at));
        for (digit, at) in places.enumerate() {
            let value = (self.0 >> (124 - 4 * digit)) as usize & 0xf;
            text[at] = b"0123456789abcdef"[value];
        }
        text
    }

    /// Reads what [`Name::text`] has written, and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bits = 0;
        for (at, byte) in text.iter().enumerate() {
            let value = match byte {
                b'-' if DASHES.contains(&at) => continue,
                _ if DASHES.contains(&at) => return None,
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => return None,
            };
            bits = bits << 4 | u128::from(value);
        }
        Some(Name(bits))
    }

    /// For a table: the bits of our names are those of a keyed hash already.
    pub fn hash(self) -> u64 {
        (self.0 >> 64) as u64 ^ self.0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_uuid_that_is_read_back() {
        let name = Name::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let text = name.text();
        assert_eq!(text.escape_ascii().to_string(), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(Name::parse(&text), Some(name));
        assert_eq!(Name::new(u128::MAX).text().escape_ascii().to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_written_otherwise_is_no_name() {
        for text in [
            "",
            "01234567-89AB-4def-8123-456789abcdef",
            "01234567-89ab-4def-8123-456789abcde",
            "01234567089ab-4def-8123-456789abcdef",
            "0123456--89ab-4def-8123-456789abcdef",
            "0123456789ab4def8123456789abcdef0000",
        ] {
            assert_eq!(Name::parse(text.as_bytes()), None, "{text}");
        }
    }
}
