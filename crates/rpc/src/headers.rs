// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lists of headers: pairs of name and value, in order, repetitions and all.

use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Octets;

/// Headers, borrowed from where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a>(pub Vec<(&'a [u8], &'a [u8])>);

impl<'a> Headers<'a> {
    /// The headers of a packet.
    pub fn of(headers: zhttp::Headers<'a>) -> Self {
        Headers(headers.iter().collect())
    }

    /// As they go into a packet.
    pub fn pairs(&self) -> zhttp::Headers<'_> {
        zhttp::Headers::Pairs(&self.0)
    }
}

/// A header as it stands in the list.
struct Pair<'a>(&'a [u8], &'a [u8]);

impl Serialize for Pair<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [Octets::from(self.0), Octets::from(self.1)].serialize(serializer)
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, value)| Pair(name, value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;

        impl<'de> Visitor<'de> for Two {
            type Value = Pair<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of a header's name and value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut next = || list.next_element::<&[u8]>()?.ok_or_else(|| A::Error::invalid_length(1, &Two));
                let pair = Pair(next()?, next()?);
                match list.next_element::<IgnoredAny>()? {
                    Some(_) => Err(A::Error::invalid_length(3, &Two)),
                    None => Ok(pair),
                }
            }
        }

        deserializer.deserialize_seq(Two)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Headers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<Pair<'de>>::deserialize(deserializer)?;
        Ok(Headers(pairs.into_iter().map(|Pair(name, value)| (name, value)).collect()))
    }
}
