// SPDX-License-Identifier: AGPL-3.0-or-later
//! Several clients that ask for the same at the same time share one request to the backend (proxy, request sharing).
//!
//! Those who share are a *group*. Its request is an exchange of its own, the *source*, whose client is the group: what it
//! answers is copied to all members, and each of them treats the copy as its backend's response. So a member may be held, be a
//! script or a HEAD request, or leave, whatever the others are.
//!
//! `alike` says which requests are the same, [`table`] who is in which group and how fast its source may go on.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod alike;
pub mod table;

use std::collections::VecDeque;
use std::rc::Rc;

/// The name by which sources know their groups. Instances can not have it, since theirs are printed.
pub const NAME: &[u8] = b"\0sharing";

/// The exchange of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its place in the table of exchanges.
    pub index: usize,
    /// Tells it from others that had the place before.
    pub serial: u64,
}

/// The serial of a group's source.
pub type GroupId = u64;

/// Something that concerns a group.
#[derive(Debug)]
pub enum Event {
    /// A request that may be shared with those that are like it.
    Join(Member, Box<[u8]>),
    /// A member is done with so many bytes of the body.
    Passed(GroupId, Member, usize),
    /// A member does not wait for the response any more.
    Left(GroupId, Member),
    /// The source has sent a packet, by this target of the route.
    Packet(GroupId, usize, Rc<[u8]>),
}

/// Events that wait.
pub type Events = VecDeque<Event>;

/// How an exchange takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// It does not, unless the handler has a key for it.
    #[default]
    None,
    /// It is to share with those that are the same in all respects.
    Wanted,
    /// It will be in a group as soon as the engine comes to it.
    Joining,
    /// It waits for the response of a group.
    In(GroupId),
    /// It is the source of a group.
    Source,
}
