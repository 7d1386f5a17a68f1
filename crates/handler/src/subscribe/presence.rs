// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which users are subscribed to a channel: those that backends have named with the meta value `user` (GRIP, `Grip-Set-Meta` and the control
//! message `set-meta`).

use std::collections::BTreeMap;

use super::audience::Audience;
use super::channels::{ChannelKey, Mode};
use super::counts::Counts;

/// The name of the meta value.
pub const USER: &str = "user";

/// Which users are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Those whose names come after this one, if there is one.
    pub after: Option<String>,
    /// So many of them, the first ones.
    pub limit: usize,
}

/// Some users, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Each with the clients that it is subscribed with.
    pub users: Vec<(String, Counts)>,
    /// Whether there are others after them.
    pub more: bool,
}

impl Audience {
    /// The users of a channel that are asked for. It looks at all subscribers, and keeps what is of the page only.
    pub fn users(&self, channel: ChannelKey, asked: &Asked) -> Users {
        let groups = self.channels.channel(channel).groups.iter().map(|&group| self.channels.group_at(group));
        let subscribers = groups.flat_map(|group| {
            let polls = group.polls.iter().map(|&key| (self.holds.user(key), Mode::Response));
            let streams = group.streams.iter().map(|&key| (self.holds.user(key), Mode::Stream));
            let sockets = group.sockets.iter().map(|&key| (self.sockets[key].meta().get(USER), Mode::Socket));
            polls.chain(streams).chain(sockets)
        });
        let is_of_page = |user: &str| asked.after.as_ref().is_none_or(|after| user > after.as_str());
        let mut first: BTreeMap<&str, Counts> = BTreeMap::new();
        for (user, mode) in subscribers.filter_map(|(user, mode)| Some((user.filter(|user| is_of_page(user))?, mode))) {
            first.entry(user).or_default().add(mode, 1);
            // One that is put out is behind all that stay, and so does not come in again.
            if first.len() > asked.limit + 1 {
                first.pop_last();
            }
        }
        let more = first.len() > asked.limit;
        let users = first.into_iter().take(asked.limit).map(|(user, counts)| (user.to_string(), counts)).collect();
        Users { users, more }
    }
}
