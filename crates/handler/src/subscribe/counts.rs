// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many are subscribed to a channel, and to which channels anybody is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::channels::{ChannelKey, Channels, Mode};

/// Clients by the format in which they get what is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Long-polls.
    pub http_response: usize,
    /// Streams.
    pub http_stream: usize,
    /// WebSockets.
    pub ws_message: usize,
}

/// Which come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By name.
    #[default]
    Names,
    /// Those with the most subscribers, and of equals by name.
    Subscribers,
}

/// Which channels are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those whose names begin so.
    pub prefix: String,
    /// Those whose names come after this one, if there is one.
    pub after: Option<String>,
    /// So many of them, the first ones.
    pub limit: usize,
    /// In this order.
    pub order: Order,
    /// Of these beginnings and, without `*` behind, names; of all if there is no list.
    pub among: Option<Vec<String>>,
}

/// Some channels, in the order that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Each with its subscribers.
    pub channels: Vec<(String, Counts)>,
    /// Whether there are others after them.
    pub more: bool,
}

/// Whether a name is among names and, with `*` behind, beginnings of names.
pub fn is_among(name: &str, names: &[String]) -> bool {
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == known,
    })
}

impl Counts {
    /// More of a kind.
    pub fn add(&mut self, mode: impl Into<Mode>, more: usize) {
        match mode.into() {
            Mode::Response => self.http_response += more,
            Mode::Stream => self.http_stream += more,
            Mode::Socket => self.ws_message += more,
        }
    }

    /// All of them.
    pub fn total(self) -> usize {
        self.http_response + self.http_stream + self.ws_message
    }
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        let allowed = || self.among.as_ref().is_none_or(|names| is_among(name, names));
        name.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| name > after.as_str()) && allowed()
    }
}

impl Channels {
    /// The subscribers of a channel.
    pub fn counts(&self, key: ChannelKey) -> Counts {
        Counts {
            http_response: self.count(key, Mode::Response),
            http_stream: self.count(key, Mode::Stream),
            ws_message: self.count(key, Mode::Socket),
        }
    }

    /// The channels that are asked for. It looks at all there are, and keeps those of the page only.
    pub fn page(&self, listing: &Listing) -> Page {
        let mut first: BinaryHeap<(Reverse<usize>, &str, ChannelKey)> = BinaryHeap::with_capacity(listing.limit + 2);
        for (key, channel) in self.iter().filter(|(_, channel)| listing.has(&channel.name)) {
            let rank = match listing.order {
                Order::Names => 0,
                Order::Subscribers => self.counts(key).total(),
            };
            first.push((Reverse(rank), &channel.name, key));
            if first.len() > listing.limit + 1 {
                first.pop();
            }
        }
        let more = first.len() > listing.limit;
        let mut first = first.into_sorted_vec();
        first.truncate(listing.limit);
        Page { channels: first.into_iter().map(|(_, name, key)| (name.to_string(), self.counts(key))).collect(), more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscribe::channels::Kin;
    use proptest::prelude::*;

    #[test]
    fn subscribers_are_counted_by_format() {
        let mut channels = Channels::default();
        for (mode, hold) in [(Mode::Stream, 1), (Mode::Stream, 2), (Mode::Response, 3), (Mode::Socket, 4)] {
            channels.add("c", Kin::default(), mode, hold);
        }
        let counts = Counts { http_response: 1, http_stream: 2, ws_message: 1 };
        assert_eq!(channels.counts(channels.find("c").unwrap()), counts);
        let json = r#"{"http-response":1,"http-stream":2,"ws-message":1}"#;
        assert_eq!(serde_json::to_string(&counts).unwrap(), json);
    }

    #[test]
    fn those_with_the_most_subscribers_may_come_first() {
        let mut channels = Channels::default();
        for (name, holds) in [("b", 2), ("a", 2), ("most", 5)] {
            for hold in 0..holds {
                channels.add(name, Kin::default(), Mode::Stream, hold);
            }
        }
        channels.add("c", Kin::default(), Mode::Socket, 9);
        let page = channels.page(&Listing { limit: 3, order: Order::Subscribers, ..Listing::default() });
        assert_eq!(page.channels.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["most", "a", "b"]);
        assert!(page.more);
    }

    #[test]
    fn only_what_a_token_allows_is_listed() {
        let mut channels = Channels::default();
        for name in ["news", "news2", "user-1", "user-2", "other"] {
            channels.add(name, Kin::default(), Mode::Stream, 1);
        }
        let listed = |among: &[&str], prefix: &str| {
            let among = Some(among.iter().map(|name| name.to_string()).collect());
            let page = channels.page(&Listing { prefix: prefix.into(), limit: 9, among, ..Listing::default() });
            page.channels.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(listed(&["news", "user-*"], ""), ["news", "user-1", "user-2"]);
        assert_eq!(listed(&["*"], "news"), ["news", "news2"]);
        assert!(listed(&[], "").is_empty());
    }

    proptest! {
        #[test]
        fn pages_one_after_the_other_have_every_channel_once(
            names in prop::collection::btree_set("[ab]{0,4}", 0..20), limit in 1usize..5, prefix in "[ab]{0,2}",
        ) {
            let mut channels = Channels::default();
            for name in names.iter().rev() {
                channels.add(name, Kin::default(), Mode::Stream, 1);
            }
            let mut found = Vec::new();
            let mut listing = Listing { prefix: prefix.clone(), limit, ..Listing::default() };
            loop {
                let page = channels.page(&listing);
                prop_assert!(page.channels.len() <= limit);
                found.extend(page.channels.into_iter().map(|(name, _)| name));
                if !page.more {
                    break;
                }
                listing.after = found.last().cloned();
            }
            let expected: Vec<_> = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
