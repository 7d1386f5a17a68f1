// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of channels: who is subscribed to what.
//!
//! The subscribers of a channel are in groups, one for each [class](super::classes) and [cohort](crate::cohort), and one for
//! those without; a group has three lists, for streams, long-polls and WebSockets. A subscriber remembers its place in each list, so that leaving does
//! not search, and publishing to a channel that nobody listens to is one look into a map.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Instant;

use foldhash::fast::RandomState;
use grip::HoldMode;

use super::classes::{Class, Standing};
use super::few::Few;
use crate::tables::{Numbers, Table};

/// A hold's index in the table of holds.
pub type HoldKey = u32;
/// A WebSocket's index in the table.
pub type SocketKey = u32;
/// A channel's index in this table.
pub type ChannelKey = u32;
/// A cohort's index in the table of [cohorts](crate::cohort).
pub type CohortKey = u32;
/// A group's index in this table.
pub type GroupKey = u32;

/// How a subscriber gets what is published, and so which list of a group it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A held response that goes on.
    Stream,
    /// A long-poll.
    Response,
    /// A WebSocket.
    Socket,
}

impl From<HoldMode> for Mode {
    fn from(mode: HoldMode) -> Self {
        match mode {
            HoldMode::Stream => Mode::Stream,
            HoldMode::Response => Mode::Response,
        }
    }
}

/// A subscribed channel.
pub struct Channel {
    /// Its full name.
    pub name: Box<str>,
    /// Its groups; none is empty.
    pub groups: Few<GroupKey>,
    /// The group of those without a class and a cohort.
    plain: Option<GroupKey>,
    /// The last long-poll has left and is expected back, so the subscription stays until then.
    pub lingers_until: Option<Instant>,
    /// Whether this channel will be looked at when its time is over.
    pub watched: bool,
}

/// Subscribers of one class.
pub struct Group {
    /// The channel.
    pub channel: ChannelKey,
    /// What they have in common.
    pub kin: Kin,
    /// Streams that listen.
    pub streams: Few<HoldKey>,
    /// Long-polls that wait.
    pub polls: Few<HoldKey>,
    /// WebSockets.
    pub sockets: Few<SocketKey>,
    /// Which [run](crate::deliver) of this turn the streams get.
    stream_run: Option<RunNumber>,
    /// The same for WebSockets that we push into.
    socket_run: Option<RunNumber>,
    /// Where the group is in the channel's list.
    index: u32,
}

/// The number of a run among those of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunNumber(NonZeroU32);

impl RunNumber {
    /// The number of the run at this index.
    pub fn at(index: usize) -> Option<Self> {
        u32::try_from(index).ok()?.checked_add(1).and_then(NonZeroU32::new).map(RunNumber)
    }

    /// The index.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl Group {
    /// Which run of this turn subscribers of a mode get. Answers to long-polls leave at once.
    pub fn run(&self, mode: Mode) -> Option<RunNumber> {
        match mode {
            Mode::Stream | Mode::Response => self.stream_run,
            Mode::Socket => self.socket_run,
        }
    }

    /// Notes which it is.
    pub fn set_run(&mut self, mode: Mode, run: Option<RunNumber>) {
        match mode {
            Mode::Stream | Mode::Response => self.stream_run = run,
            Mode::Socket => self.socket_run = run,
        }
    }

    /// The subscribers of one mode.
    pub fn list(&self, mode: impl Into<Mode>) -> &Few<HoldKey> {
        match mode.into() {
            Mode::Stream => &self.streams,
            Mode::Response => &self.polls,
            Mode::Socket => &self.sockets,
        }
    }

    fn list_mut(&mut self, mode: Mode) -> &mut Few<HoldKey> {
        match mode {
            Mode::Stream => &mut self.streams,
            Mode::Response => &mut self.polls,
            Mode::Socket => &mut self.sockets,
        }
    }
}

/// A subscriber's place in a group's list.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The group.
    pub group: GroupKey,
    /// The index in its list.
    pub index: u32,
}

/// What a subscriber's leaving has changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// The subscriber of the same mode that has moved into its place, if any: that one's [`Place`] must be changed to this one.
    pub moved: Option<HoldKey>,
    /// The channel, if nobody listens to it now.
    pub deserted: Option<ChannelKey>,
}

/// All subscribed channels.
#[derive(Default)]
pub struct Channels {
    channels: Table<Channel>,
    groups: Table<Group>,
    /// Clients of backends may choose names, hence the standard library's keyed hash.
    by_name: Numbers<std::hash::RandomState>,
    by_class: HashMap<(ChannelKey, Apart), GroupKey, RandomState>,
}

/// What tells the groups of one channel apart: class and cohort.
pub type Apart = (Option<(*const Standing, u32)>, Option<CohortKey>);

/// Whom a hold is like in a channel.
#[derive(Clone, Debug, Default)]
pub struct Kin {
    /// Those for whom messages have the same content.
    pub class: Option<Rc<Class>>,
    /// Those who are at the same place.
    pub cohort: Option<CohortKey>,
}

impl Kin {
    /// What tells its group from others of the channel; nothing for those without class and cohort.
    pub fn apart(&self) -> Option<Apart> {
        let class = self.class.as_ref().map(|class| class.key());
        (class.is_some() || self.cohort.is_some()).then_some((class, self.cohort))
    }
}

impl Channels {
    /// Adds a subscriber to a channel; `true` if the channel is new.
    pub fn add(&mut self, name: &str, kin: Kin, mode: impl Into<Mode>, hold: HoldKey) -> (Place, bool) {
        let (channel, new) = match self.find(name) {
            Some(key) => (key, false),
            None => {
                let channel =
                    Channel { name: name.into(), groups: Few::None, plain: None, lingers_until: None, watched: false };
                let key = self.channels.insert(channel);
                self.by_name.insert_new(name, key, |other| &*self.channels[other].name);
                (key, true)
            }
        };
        let group = self.group_of(channel, kin);
        let list = self.groups[group].list_mut(mode.into());
        list.push(hold);
        (Place { group, index: (list.len() - 1) as u32 }, new)
    }

    /// The group of such holds in a channel, if there is one.
    pub fn find_group(&self, channel: ChannelKey, kin: &Kin) -> Option<GroupKey> {
        match kin.apart() {
            None => self.channels.get(channel)?.plain,
            Some(apart) => self.by_class.get(&(channel, apart)).copied(),
        }
    }

    fn group_of(&mut self, channel: ChannelKey, kin: Kin) -> GroupKey {
        let known = self.find_group(channel, &kin);
        if let Some(group) = known {
            return group;
        }
        let list = &mut self.channels[channel].groups;
        let apart = kin.apart();
        let group = Group {
            channel,
            kin,
            streams: Few::None,
            polls: Few::None,
            sockets: Few::None,
            stream_run: None,
            socket_run: None,
            index: list.len() as u32,
        };
        let key = self.groups.insert(group);
        list.push(key);
        match apart {
            None => self.channels[channel].plain = Some(key),
            Some(apart) => drop(self.by_class.insert((channel, apart), key)),
        }
        key
    }

    /// Removes a subscriber from a channel.
    pub fn remove(&mut self, place: Place, mode: impl Into<Mode>) -> Left {
        let group = &mut self.groups[place.group];
        let list = group.list_mut(mode.into());
        list.swap_remove(place.index as usize);
        let moved = list.get(place.index as usize).copied();
        let channel = group.channel;
        if group.streams.is_empty() && group.polls.is_empty() && group.sockets.is_empty() {
            self.forget_group(place.group);
        }
        let deserted = self.channels[channel].groups.is_empty().then_some(channel);
        Left { moved, deserted }
    }

    fn forget_group(&mut self, key: GroupKey) {
        let Some(group) = self.groups.remove(key) else { return };
        match group.kin.apart() {
            None => self.channels[group.channel].plain = None,
            Some(apart) => drop(self.by_class.remove(&(group.channel, apart))),
        }
        let list = &mut self.channels[group.channel].groups;
        list.swap_remove(group.index as usize);
        if let Some(&moved) = list.get(group.index as usize) {
            self.groups[moved].index = group.index;
        }
    }

    /// The channel of this name, if anybody is subscribed or was until lately.
    pub fn find(&self, name: &str) -> Option<ChannelKey> {
        self.by_name.find(name, |key| *self.channels[key].name == *name)
    }

    /// A channel.
    pub fn channel(&self, key: ChannelKey) -> &Channel {
        &self.channels[key]
    }

    /// A channel, to be changed.
    pub fn channel_mut(&mut self, key: ChannelKey) -> &mut Channel {
        &mut self.channels[key]
    }

    /// A group that may be gone.
    pub fn group(&self, key: GroupKey) -> Option<&Group> {
        self.groups.get(key)
    }

    /// A group.
    pub fn group_at(&self, key: GroupKey) -> &Group {
        &self.groups[key]
    }

    /// A group, to be changed; it may be gone.
    pub fn group_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        self.groups.get_mut(key)
    }

    /// How many subscribers of a mode a channel has.
    pub fn count(&self, key: ChannelKey, mode: impl Into<Mode>) -> usize {
        let mode = mode.into();
        self.channel(key).groups.iter().map(|&group| self.group_at(group).list(mode).len()).sum()
    }

    /// All channels.
    pub fn iter(&self) -> impl Iterator<Item = (ChannelKey, &Channel)> {
        self.channels.iter()
    }

    /// The names of all channels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channels.iter().map(|(_, channel)| &*channel.name)
    }

    /// Forgets a channel that nobody listens to.
    pub fn forget(&mut self, key: ChannelKey) -> Box<str> {
        let Some(channel) = self.channels.remove(key) else { return Box::default() };
        debug_assert!(channel.groups.is_empty(), "a channel is forgotten while holds listen");
        self.by_name.remove(&*channel.name, key);
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
    use crate::subscribe::classes::{Standings, Wish};

    fn skip_self(standings: &mut Standings, user: &str) -> Option<Rc<Class>> {
        let filters = grip::filter::parse_all(["skip-self"]).into();
        let wish = Wish { name: "c".into(), prev_id: None, filters };
        standings.classes(&[("user".to_string(), user.to_string())].into_iter().collect(), &[wish], || None).remove(0)
    }

    #[test]
    fn the_hold_that_takes_the_place_of_another_is_named() {
        let mut table = Channels::default();
        let (a, new) = table.add("c", Kin::default(), HoldMode::Stream, 1);
        assert!(new);
        let (b, new) = table.add("c", Kin::default(), HoldMode::Stream, 2);
        assert!(!new);
        table.add("c", Kin::default(), HoldMode::Stream, 3);
        assert_eq!(table.remove(a, HoldMode::Stream), Left { moved: Some(3), deserted: None });
        assert_eq!(*table.group_at(a.group).streams, [3, 2]);
        assert_eq!(table.remove(b, HoldMode::Stream), Left { moved: None, deserted: None });
        assert_eq!(*table.group_at(a.group).streams, [3]);
    }

    #[test]
    fn modes_of_a_channel_are_apart() {
        let mut table = Channels::default();
        let (poll, _) = table.add("c", Kin::default(), HoldMode::Response, 1);
        table.add("c", Kin::default(), HoldMode::Stream, 2);
        let channel = table.find("c").unwrap();
        assert_eq!(table.remove(poll, HoldMode::Response).deserted, None);
        assert_eq!((table.count(channel, HoldMode::Response), table.count(channel, HoldMode::Stream)), (0, 1));
    }

    #[test]
    fn each_class_of_a_channel_has_a_group_as_long_as_it_has_members() {
        let (mut table, mut standings) = (Channels::default(), Standings::default());
        let add = |table: &mut Channels, class: Option<Rc<Class>>, hold| {
            table.add("c", Kin { class, cohort: None }, HoldMode::Stream, hold).0
        };
        let plain = add(&mut table, None, 1);
        let bob = add(&mut table, skip_self(&mut standings, "bob"), 2);
        let too = add(&mut table, skip_self(&mut standings, "bob"), 3);
        let alice = add(&mut table, skip_self(&mut standings, "alice"), 4);
        assert_eq!(bob.group, too.group);
        let channel = table.find("c").unwrap();
        assert_eq!(*table.channel(channel).groups, [plain.group, bob.group, alice.group]);
        table.remove(plain, HoldMode::Stream);
        assert_eq!(*table.channel(channel).groups, [alice.group, bob.group]);
        table.remove(alice, HoldMode::Stream);
        table.remove(Place { index: 1, ..bob }, HoldMode::Stream);
        assert_eq!(table.remove(bob, HoldMode::Stream).deserted, Some(channel));
        assert_eq!(&*table.forget(channel), "c");
        assert_eq!((table.find("c"), table.groups.len(), table.by_class.len()), (None, 0, 0));
    }
}
