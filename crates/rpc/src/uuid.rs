// SPDX-License-Identifier: AGPL-3.0-or-later
//! The names of WebSockets: `Connection-Id` towards backends, `cid` between proxy and handler.

/// A UUID. It is kept as two numbers, which take less than half of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uuid {
    high: u64,
    low: u64,
}

/// One as others see it.
pub type Text = [u8; 36];

/// Length of the shortest form.
pub const BYTES: usize = 16;

/// Where groups of digits begin, behind a dash.
const DASHES: [usize; 4] = [8, 13, 18, 23];

impl Uuid {
    /// One of version 4 of these random bits, six of which become what the version says.
    pub fn random(bits: u128) -> Self {
        Uuid::of(bits & !(0xf << 76 | 0x3 << 62) | 4 << 76 | 2 << 62)
    }

    fn of(bits: u128) -> Self {
        Uuid { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// As it stands in headers and items.
    pub fn text(self) -> Text {
        let mut bits = u128::from(self.high) << 64 | u128::from(self.low);
        let mut text = [b'-'; 36];
        for (at, byte) in text.iter_mut().enumerate().rev() {
            if !DASHES.contains(&at) {
                *byte = b"0123456789abcdef"[bits as usize & 0xf];
                bits >>= 4;
            }
        }
        text
    }

    /// Reads what [`Uuid::text`] has written, and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &Text = text.try_into().ok()?;
        let mut bits = 0;
        for (at, byte) in text.iter().enumerate() {
            let value = match (DASHES.contains(&at), byte) {
                (true, b'-') => continue,
                (false, b'0'..=b'9') => byte - b'0',
                (false, b'a'..=b'f') => byte - b'a' + 10,
                _ => return None,
            };
            bits = bits << 4 | u128::from(value);
        }
        Some(Uuid::of(bits))
    }

    /// In the shortest form, in which many stand one behind the other.
    pub fn bytes(self) -> [u8; BYTES] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    /// Reads what [`Uuid::bytes`] has written, many times; what is too short at the end is none.
    pub fn parse_many(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.as_chunks().0.iter().map(|one| Uuid::of(u128::from_be_bytes(*one)))
    }

    /// Its random bits, for a table of those that we have made ourselves.
    pub fn bits(self) -> u64 {
        self.high ^ self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_read_back_as_it_was() {
        let uuid = Uuid::random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let text = uuid.text();
        assert_eq!(text.escape_ascii().to_string(), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(Uuid::parse(&text), Some(uuid));
        let other = Uuid::random(7);
        let many = [uuid.bytes(), other.bytes()].concat();
        assert_eq!(Uuid::parse_many(&many).collect::<Vec<_>>(), [uuid, other]);
        assert_eq!(Uuid::parse_many(&many[..31]).collect::<Vec<_>>(), [uuid]);
        assert_eq!(Uuid::random(u128::MAX).text().escape_ascii().to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn what_is_written_otherwise_is_none() {
        for text in [
            "",
            "01234567-89AB-4def-8123-456789abcdef",
            "01234567-89ab-4def-8123-456789abcde",
            "01234567089ab-4def-8123-456789abcdef",
            "0123456--89ab-4def-8123-456789abcdef",
            "0123456789ab4def8123456789abcdef0000",
        ] {
            assert_eq!(Uuid::parse(text.as_bytes()), None, "{text}");
        }
    }
}
