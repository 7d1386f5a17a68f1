// SPDX-License-Identifier: AGPL-3.0-or-later
//! Header lists: order and repetitions are kept.

use tnetstring::{Item, Kind as Type, Writer};

use super::field::DecodeError;

/// A list of headers, in order, duplicates and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers<'a> {
    /// The packet has none.
    #[default]
    Absent,
    /// As they were received, undecoded.
    Encoded(&'a [u8]),
    /// To be sent.
    Pairs(&'a [(&'a [u8], &'a [u8])]),
}

impl<'a> Headers<'a> {
    /// Each name and value. The list of a received packet was found well-formed when it was decoded, so elements that
    /// are not pairs of byte strings do not occur.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        let (encoded, pairs): (&[u8], &[_]) = match self {
            Headers::Absent => (b"", &[]),
            Headers::Encoded(list) => (list, &[]),
            Headers::Pairs(pairs) => (b"", pairs),
        };
        let decoded = Item { kind: Type::List, payload: encoded }.items().into_iter().flatten();
        decoded.filter_map(|item| header(item.ok()?).ok()).chain(pairs.iter().copied())
    }

    /// The values of a header; `name` is compared without regard to case.
    pub fn values(self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// The first value of a header.
    pub fn get(self, name: &'a str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Writes the field `headers`, unless there is none.
    pub(super) fn encode(self, out: &mut Writer) {
        if self == Headers::Absent {
            return;
        }
        let mark = out.mark();
        match self {
            Headers::Absent => {}
            Headers::Encoded(list) => out.raw(list),
            Headers::Pairs(pairs) => {
                for (name, value) in pairs.iter().rev() {
                    let pair = out.mark();
                    out.bytes(value);
                    out.bytes(name);
                    out.list(pair);
                }
            }
        }
        out.list(mark);
        out.bytes(b"headers");
    }

    /// Reads the field `headers`. The list stays encoded; each element is found to be a pair of byte strings.
    pub(super) fn decode(value: Item<'a>) -> Result<Self, DecodeError> {
        for item in value.items().map_err(|_| DecodeError::Field("headers"))? {
            header(item?)?;
        }
        Ok(Headers::Encoded(value.payload))
    }
}

fn header<'a>(item: Item<'a>) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    const WRONG: DecodeError = DecodeError::Field("headers");
    let mut parts = item.items().map_err(|_| WRONG)?;
    let mut part = || parts.next().ok_or(WRONG)?.and_then(|p| p.as_bytes()).map_err(|_| WRONG);
    let pair = (part()?, part()?);
    if parts.next().is_some() { Err(WRONG) } else { Ok(pair) }
}
