// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whom a server's successor asks for the sessions of its predecessor ([recovery](crate::recovery)), and who has told all.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::PeerId;
use crate::recovery;

type Clients = HashSet<PeerId, RandomState>;

/// What has become of a client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It says that it can be asked.
    Able,
    /// It does not say so any more.
    NotAble,
    /// There is a link by which it can be asked.
    Linked,
    /// That link is lost, with what was on its way: what it has kept has a hole.
    Lost,
}

/// What it means that a name has come among those linked to a socket or has left it (`joins`; none: neither). That socket is the
/// ROUTER or the PUB, where topics are names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News<'a> {
    /// Whom it is of.
    pub instance: &'a [u8],
    /// It is only about being asked.
    pub is_topic: bool,
    /// What has become of that one.
    pub change: Option<Change>,
}

impl<'a> News<'a> {
    /// Reads it.
    pub fn of(name: &'a [u8], joins: Option<bool>, by_router: bool) -> Self {
        let (instance, is_topic) = match recovery::instance(name) {
            Some(instance) if !by_router => (instance, true),
            _ => (name, false),
        };
        let change = match joins {
            Some(true) if is_topic => Some(Change::Able),
            Some(false) if is_topic => Some(Change::NotAble),
            Some(true) if by_router => Some(Change::Linked),
            Some(false) if by_router => Some(Change::Lost),
            _ => None,
        };
        News { instance, is_topic, change }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inquiry {
    /// How many there should be.
    expected: usize,
    able: Clients,
    linked: Clients,
    asked: Clients,
    done: Clients,
}

impl Inquiry {
    /// So many are to tell.
    pub fn new(expected: usize) -> Self {
        Inquiry { expected, ..Inquiry::default() }
    }

    /// Whether anybody is to tell anything.
    pub fn is_wanted(&self) -> bool {
        self.expected > 0
    }

    /// One has come or gone. Whether it is to be asked now.
    pub fn on_change(&mut self, client: PeerId, change: Change) -> bool {
        match change {
            Change::Able => drop(self.able.insert(client)),
            Change::NotAble => drop(self.able.remove(&client)),
            Change::Linked => drop(self.linked.insert(client)),
            Change::Lost => {
                for all in [&mut self.linked, &mut self.asked, &mut self.done] {
                    all.remove(&client);
                }
            }
        }
        self.able.contains(&client) && self.linked.contains(&client) && self.asked.insert(client)
    }

    /// One has told all.
    pub fn on_done(&mut self, client: PeerId) {
        self.done.insert(client);
    }

    /// Those that have told all.
    pub fn done(&self) -> impl Iterator<Item = PeerId> {
        self.done.iter().copied()
    }

    /// Whether as many have told all as there should be.
    pub fn is_complete(&self) -> bool {
        self.done.len() >= self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_tells_who_can_be_asked_and_a_router_who_is_linked() {
        let topic = recovery::topic("f1");
        for (name, joins, by_router, expected) in [
            (topic.as_bytes(), Some(true), false, (&b"f1"[..], true, Some(Change::Able))),
            (topic.as_bytes(), Some(false), false, (b"f1", true, Some(Change::NotAble))),
            (topic.as_bytes(), None, false, (b"f1", true, None)),
            (b"f1", Some(true), true, (b"f1", false, Some(Change::Linked))),
            (b"f1", Some(false), true, (b"f1", false, Some(Change::Lost))),
            (b"f1", Some(true), false, (b"f1", false, None)),
            // Of a ROUTER, any name is an instance.
            (topic.as_bytes(), Some(true), true, (topic.as_bytes(), false, Some(Change::Linked))),
        ] {
            let News { instance, is_topic, change } = News::of(name, joins, by_router);
            assert_eq!((instance, is_topic, change), expected, "{name:?} {joins:?} {by_router}");
        }
    }
}
