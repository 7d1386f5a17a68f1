// SPDX-License-Identifier: AGPL-3.0-or-later
//! What has happened, by which it is judged what clients get.

use std::collections::BTreeMap;

/// An item as clients get it: `GLOBAL,CHANNEL,NUMBER,...`.
pub struct Item<'a> {
    /// Its number among all.
    pub global: u64,
    /// Its channel.
    pub channel: &'a str,
    /// Its number there.
    pub number: u64,
}

impl<'a> Item<'a> {
    /// Reads one.
    pub fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(',');
        let global = parts.next()?.parse().ok()?;
        Some(Item { global, channel: parts.next()?, number: parts.next()?.parse().ok()? })
    }
}

#[derive(Debug)]
struct Subscription {
    /// The suite's name for the connection: a handshake that is sent again makes another.
    cid: String,
    /// How often something had been lost before.
    losses: usize,
    /// The last item that had been published.
    published: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    /// The last item of each channel.
    pub published: BTreeMap<&'static str, u64>,
    /// What had been published of a channel when a WebSocket was subscribed to it, by the names of both.
    subscriptions: BTreeMap<(String, String), Subscription>,
    /// How often something was lost.
    losses: usize,
    /// Items of each channel up to which WebSockets may have missed some, because proxy and handler died together.
    missed: BTreeMap<&'static str, u64>,
}

impl Facts {
    /// The last item of a channel.
    pub fn published(&self, channel: &str) -> u64 {
        self.published.get(channel).copied().unwrap_or(0)
    }

    /// A handler has subscribed a WebSocket to a channel. That it does so again for a predecessor changes nothing, unless that
    /// could be lost.
    pub fn subscribe(&mut self, name: String, cid: String, channel: String) {
        let (losses, published) = (self.losses, self.published(&channel));
        let known = self.subscriptions.get(&(name.clone(), channel.clone()));
        if known.is_none_or(|known| known.losses < losses || known.cid != cid) {
            self.subscriptions.insert((name, channel), Subscription { cid, losses, published });
        }
    }

    /// What had been published of a channel when a WebSocket was subscribed to it.
    pub fn subscribed(&self, name: &str, channel: &str) -> Option<u64> {
        self.subscriptions.get(&(name.to_string(), channel.to_string())).map(|known| known.published)
    }

    /// The same for all channels of a WebSocket.
    pub fn subscriptions(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        let of_it = self.subscriptions.iter().filter(move |((of, _), _)| of == name);
        of_it.map(|((_, channel), known)| (channel.as_str(), known.published))
    }

    /// What was on its way to WebSockets is lost, and what their backends have said last may be as well.
    pub fn lose(&mut self) {
        self.missed = self.published.clone();
        self.losses += 1;
    }

    /// Whether a WebSocket may have missed an item.
    pub fn may_be_missed(&self, channel: &str, number: u64) -> bool {
        self.missed.get(channel).is_some_and(|last| number <= *last)
    }
}
