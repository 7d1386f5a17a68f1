// SPDX-License-Identifier: AGPL-3.0-or-later
//! An item on its way, and whom it is for.

use grip::Meta;
use zhttp::Run;

use crate::cohort::table::Cohorts;
use crate::deliver::inquiries::Inquiry;
use crate::hold::Hold;
use crate::order::owed::Owed;
use crate::subscribe::audience::Audience;
use crate::subscribe::channels::SocketKey;
use crate::subscribe::channels::{ChannelKey, CohortKey, Group, GroupKey, Mode};
use crate::websocket::table::Sockets;

/// An item on its way.
pub(in crate::deliver) struct Message<'a> {
    pub(in crate::deliver) channel: &'a str,
    pub(in crate::deliver) meta: &'a Meta,
    pub(in crate::deliver) size: Option<u64>,
    /// By which cohorts have judged it.
    pub(in crate::deliver) number: u64,
    /// It has been kept for this cohort and is for nobody else.
    pub(in crate::deliver) only: Option<CohortKey>,
    pub(in crate::deliver) id: Option<&'a str>,
    /// It is a repetition, for those who have not got it from a predecessor.
    pub(in crate::deliver) owed: Option<&'a Owed>,
    /// Filters have asked about it, and this came of it.
    pub(in crate::deliver) answer: Option<&'a Inquiry>,
}

impl Message<'_> {
    /// Whether a group gets it now. One whose filters ask gets it when that has been answered.
    pub(in crate::deliver) fn is_for(&self, group: &Group, cohorts: &Cohorts) -> bool {
        match (&group.kin.class, self.answer) {
            (_, Some(answer)) => answer.kin.apart() == group.kin.apart(),
            (Some(class), None) if class.asks() => false,
            _ => self.concerns(group, cohorts),
        }
    }

    /// Whether a group gets it, now or later, unless filters keep it back.
    pub(in crate::deliver) fn concerns(&self, group: &Group, cohorts: &Cohorts) -> bool {
        (self.only.is_none() || self.only == group.kin.cohort)
            && group.kin.cohort.is_none_or(|cohort| cohorts.delivers(cohort, self.number))
    }

    /// Whether it is for a hold of such a group.
    pub(super) fn is_owed_to(&self, hold: &Hold) -> bool {
        self.owed.is_none_or(|owed| owed.is_for(hold)) && self.answer.is_none_or(|answer| answer.is_for(hold))
    }

    /// Whether it is for a WebSocket of such a group, which has this key.
    pub(in crate::deliver) fn is_for_socket(&self, socket: SocketKey, group: GroupKey, sockets: &Sockets) -> bool {
        self.owed.is_none_or(|owed| owed.is_for_socket(sockets.proxy, sockets[socket].run))
            && self.answer.is_none_or(|answer| answer.is_for_socket(socket, group, sockets))
    }

    /// How many subscribers of a mode it counts for now: those whose filters ask count when that has been answered.
    pub(in crate::deliver) fn count(&self, channel: ChannelKey, mode: Mode, audience: &Audience) -> usize {
        let groups = audience.channels.channel(channel).groups.iter().map(|&key| audience.channels.group_at(key));
        let counts = |group: &&Group| match (&group.kin.class, self.answer) {
            (_, Some(answer)) => answer.kin.apart() == group.kin.apart(),
            (Some(class), None) => !class.asks(),
            (None, None) => true,
        };
        groups.filter(counts).map(|group| group.list(mode).len()).sum()
    }

    /// Names it in the packet that is being put together.
    pub(super) fn name_in(&self, items: &mut Vec<u8>) {
        items.clear();
        self.id.into_iter().for_each(|id| Run::push(items, self.channel, id));
    }
}
