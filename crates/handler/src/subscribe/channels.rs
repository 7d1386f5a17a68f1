//! Who is subscribed to what.
//!
//! A channel has two lists of holds, for streams and for long-polls. A hold remembers its place in each list, so that
//! leaving does not search, and publishing to a channel that nobody listens to is one look into a map.

use std::collections::HashMap;
use std::time::Instant;

use grip::HoldMode;
use slab::Slab;

/// A hold's index in the engine's table.
pub type HoldKey = u32;
/// A channel's index in this table.
pub type ChannelKey = u32;

/// A subscribed channel.
pub struct Channel {
    /// Its full name.
    pub name: Box<str>,
    /// Streams that listen.
    pub streams: Vec<HoldKey>,
    /// Long-polls that wait.
    pub polls: Vec<HoldKey>,
    /// The last long-poll has left and is expected back, so the subscription stays until then.
    pub lingers_until: Option<Instant>,
    /// Whether the engine will look at this channel when its time is over.
    pub watched: bool,
}

impl Channel {
    /// The holds of one mode.
    pub fn list(&mut self, mode: HoldMode) -> &mut Vec<HoldKey> {
        match mode {
            HoldMode::Stream => &mut self.streams,
            HoldMode::Response => &mut self.polls,
        }
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.polls.is_empty()
    }
}

/// A hold's place in a channel's list.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The channel.
    pub channel: ChannelKey,
    /// The index in its list.
    pub index: u32,
}

/// All subscribed channels.
#[derive(Default)]
pub struct Subscriptions {
    channels: Slab<Channel>,
    /// Clients of backends may choose names, hence the standard library's keyed hash.
    by_name: HashMap<Box<str>, ChannelKey>,
}

impl Subscriptions {
    /// Adds a hold to a channel; `true` if the channel is new.
    pub fn add(&mut self, name: &str, mode: HoldMode, hold: HoldKey) -> (Place, bool) {
        let (key, new) = match self.by_name.get(name) {
            Some(&key) => (key, false),
            None => {
                let channel = Channel {
                    name: name.into(),
                    streams: Vec::new(),
                    polls: Vec::new(),
                    lingers_until: None,
                    watched: false,
                };
                let key = self.channels.insert(channel) as ChannelKey;
                self.by_name.insert(name.into(), key);
                (key, true)
            }
        };
        let list = self.channels[key as usize].list(mode);
        list.push(hold);
        (Place { channel: key, index: (list.len() - 1) as u32 }, new)
    }

    /// Removes a hold from a channel. Returns the hold that has moved into its place, if any: its [`Place`] must be
    /// changed to this one.
    pub fn remove(&mut self, place: Place, mode: HoldMode) -> Option<HoldKey> {
        let list = self.channels[place.channel as usize].list(mode);
        list.swap_remove(place.index as usize);
        if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
        list.get(place.index as usize).copied()
    }

    /// The channel of this name, if anybody is subscribed or was until lately.
    pub fn find(&self, name: &str) -> Option<ChannelKey> {
        self.by_name.get(name).copied()
    }

    /// A channel.
    pub fn get(&self, key: ChannelKey) -> &Channel {
        &self.channels[key as usize]
    }

    /// A channel, to be changed.
    pub fn get_mut(&mut self, key: ChannelKey) -> &mut Channel {
        &mut self.channels[key as usize]
    }

    /// Forgets a channel that nobody listens to.
    pub fn forget(&mut self, key: ChannelKey) -> Box<str> {
        let channel = self.channels.remove(key as usize);
        self.by_name.remove(&channel.name);
        channel.name
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hold_that_takes_the_place_of_another_is_named() {
        let mut table = Subscriptions::default();
        let (a, new) = table.add("c", HoldMode::Stream, 1);
        assert!(new);
        let (b, new) = table.add("c", HoldMode::Stream, 2);
        assert!(!new);
        table.add("c", HoldMode::Stream, 3);
        assert_eq!(table.remove(a, HoldMode::Stream), Some(3));
        assert_eq!(table.get(a.channel).streams, [3, 2]);
        assert_eq!(table.remove(b, HoldMode::Stream), None);
        assert_eq!(table.get(a.channel).streams, [3]);
    }

    #[test]
    fn modes_of_a_channel_are_apart() {
        let mut table = Subscriptions::default();
        let (poll, _) = table.add("c", HoldMode::Response, 1);
        table.add("c", HoldMode::Stream, 2);
        table.remove(poll, HoldMode::Response);
        assert!(table.get(poll.channel).polls.is_empty());
        assert!(!table.get(poll.channel).is_empty());
    }

    #[test]
    fn a_forgotten_channel_is_not_found() {
        let mut table = Subscriptions::default();
        let (place, _) = table.add("c", HoldMode::Stream, 1);
        table.remove(place, HoldMode::Stream);
        assert_eq!(&*table.forget(place.channel), "c");
        assert_eq!(table.find("c"), None);
        assert!(table.is_empty());
    }
}
