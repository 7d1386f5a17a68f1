// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sessions a packet is for: one with its number, or a list (ZHTTP, multi-id packets).

use tnetstring::{Item, Kind as Type, Writer};

use super::encode::{entry, maybe};
use super::field::{DecodeError, number};

/// The sessions a packet is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids<'a> {
    /// None; not allowed on stream sockets.
    #[default]
    None,
    /// One, and its number in sequence.
    One(&'a [u8], Option<u32>),
    /// A list as it was received, undecoded.
    Encoded(&'a [u8]),
    /// A list to be sent.
    Many(&'a [(&'a [u8], u32)]),
}

impl<'a> Ids<'a> {
    /// How many sessions a packet to be sent is for; a received list is walked.
    pub fn len(self) -> usize {
        match self {
            Ids::None => 0,
            Ids::One(..) => 1,
            Ids::Many(ids) => ids.len(),
            Ids::Encoded(_) => self.iter().count(),
        }
    }

    /// Whether it is for none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Each session with its number.
    pub fn iter(self) -> impl Iterator<Item = Result<(&'a [u8], Option<u32>), DecodeError>> {
        let (one, encoded, many): (_, &[u8], &[_]) = match self {
            Ids::None => (None, b"", &[]),
            Ids::One(id, seq) => (Some(Ok((id, seq))), b"", &[]),
            Ids::Encoded(list) => (None, list, &[]),
            Ids::Many(list) => (None, b"", list),
        };
        let decoded = Item { kind: Type::List, payload: encoded }.items().into_iter().flatten().map(|item| {
            let (mut id, mut seq) = (None, None);
            for entry in item?.entries()? {
                match entry? {
                    (b"id", value) => id = Some(value.as_bytes().map_err(|_| DecodeError::Field("id"))?),
                    (b"seq", value) => seq = Some(number(value, "seq")?),
                    _ => {}
                }
            }
            Ok((id.ok_or(DecodeError::Field("id"))?, seq))
        });
        one.into_iter().chain(decoded).chain(many.iter().map(|&(id, seq)| Ok((id, Some(seq)))))
    }

    /// Writes the fields `id` and `seq`.
    pub(super) fn encode(self, out: &mut Writer) {
        match self {
            Ids::None => {}
            Ids::One(id, seq) => {
                maybe(out, "seq", seq);
                entry(out, "id", id);
            }
            Ids::Encoded(list) => {
                let mark = out.mark();
                out.raw(list);
                out.list(mark);
                out.bytes(b"id");
            }
            Ids::Many(many) => {
                let list = out.mark();
                for (id, seq) in many.iter().rev() {
                    let one = out.mark();
                    out.int(i64::from(*seq));
                    out.raw(b"3:seq,");
                    out.bytes(id);
                    out.raw(b"2:id,");
                    out.map(one);
                }
                out.list(list);
                out.bytes(b"id");
            }
        }
    }

    /// Reads the field `id`, in either form, beside the field `seq`.
    pub(super) fn decode(id: Option<Item<'a>>, seq: Option<u32>) -> Result<Self, DecodeError> {
        match id {
            None => Ok(Ids::None),
            Some(Item { kind: Type::Bytes, payload }) => Ok(Ids::One(payload, seq)),
            Some(Item { kind: Type::List, payload }) => {
                let ids = Ids::Encoded(payload);
                let mut count = 0;
                for id in ids.iter() {
                    id?;
                    count += 1;
                    if count > crate::MAX_IDS {
                        return Err(DecodeError::TooManyIds);
                    }
                }
                Ok(ids)
            }
            Some(_) => Err(DecodeError::Field("id")),
        }
    }

    /// The id if there is exactly one, in either form.
    pub fn single(self) -> Option<(&'a [u8], Option<u32>)> {
        if let Ids::One(id, seq) = self {
            return Some((id, seq));
        }
        let mut all = self.iter();
        match (all.next(), all.next()) {
            (Some(Ok(only)), None) => Some(only),
            _ => None,
        }
    }
}
