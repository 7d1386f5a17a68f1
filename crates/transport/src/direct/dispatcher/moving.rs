// SPDX-License-Identifier: AGPL-3.0-or-later
//! All links of a socket, written down for another process and read back there.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io::{Read, Write};

use bytes::Bytes;

use super::Dispatcher;
use crate::change::{Arrival, Change, Reason};
use crate::counters::Load;
use crate::direct::link::Link;
use crate::direct::outgoing::Outgoing;
use crate::message::Message;
use crate::moving::{ArrivalRecord, MoveError, SocketRecord};
use crate::role::Role;

const REASONS: [Reason; 4] = [Reason::Closed, Reason::Replaced, Reason::Stuck, Reason::Expelled];

impl<S: Read + Write> Dispatcher<S> {
    /// Writes down all that is known but listeners and address, and gives the streams of the links. Links whose handshake is
    /// not done are left out: nothing has been said by them.
    pub(in crate::direct) fn pack(&self) -> Result<(SocketRecord, Vec<&S>), MoveError> {
        if !matches!(self.role, Role::Push | Role::Sub | Role::Router) || self.gives_way {
            return Err(MoveError::Kind);
        }
        let ready =
            || self.peers.iter().map(|(_, peer)| peer).filter(|peer| peer.link.ready && peer.endpoint.is_none());
        let record = SocketRecord {
            role: self.role.name().to_owned(),
            address: String::new(),
            listeners: Vec::new(),
            serial: self.serial,
            topics: self.topics.counts().map(|(topic, count)| (topic.to_vec(), count as u32)).collect(),
            inbox: self.inbox.iter().map(ArrivalRecord::of).collect(),
            unsent: self.unsent.untouched().map(<[u8]>::to_vec).collect(),
            absent: self.absent.all().map(|(name, messages)| (name.to_vec(), messages)).collect(),
            peers: ready()
                .map(|peer| {
                    let refused = peer.refused.iter().map(|name| name.to_vec()).collect();
                    peer.link.pack(peer.serial, refused)
                })
                .collect(),
        };
        Ok((record, ready().map(|peer| &peer.link.stream).collect()))
    }

    /// Takes up what another process has written down; `streams` are those of the links.
    pub(in crate::direct) fn unpack(
        &mut self,
        record: SocketRecord,
        streams: impl Iterator<Item = S>,
    ) -> Result<(), MoveError> {
        if record.role != self.role.name() {
            return Err(MoveError::Kind);
        }
        self.serial = record.serial;
        for (topic, count) in record.topics {
            (0..count).for_each(|_| drop(self.topics.add(&topic)));
        }
        for arrival in record.inbox {
            self.inbox.push_back(arrival.restore().ok_or(MoveError::Malformed)?);
        }
        let mut unsent = Outgoing::default();
        record.unsent.iter().for_each(|message| unsent.push_encoded(message));
        self.unsent = unsent;
        for (name, messages) in record.absent {
            for parts in messages {
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                self.absent.push(&name, &parts);
            }
        }
        for (peer, stream) in record.peers.into_iter().zip(streams) {
            let (serial, name) = (peer.serial, Bytes::copy_from_slice(&peer.identity));
            let refused = peer.refused.iter().map(|name| Bytes::copy_from_slice(name)).collect();
            let link = Link::unpack(stream, self.role, self.options.max_message, peer).ok_or(MoveError::Malformed)?;
            let slot = self.peers.insert(super::Peer {
                link,
                endpoint: None,
                serial,
                in_reads: false,
                in_writes: false,
                in_turns: false,
                in_watches: false,
                watched: false,
                refused,
                counted: Load::default(),
                begun: 0,
                held_up_since: None,
                due: None,
            });
            if self.role == Role::Router {
                self.names.insert(name, slot);
            }
            self.count_begun(slot);
            self.will_read(slot);
            self.will_write(slot);
            self.take_turn(slot);
        }
        Ok(())
    }

    /// Forgets all links: another process has them.
    pub(in crate::direct) fn let_go(&mut self) -> Vec<S> {
        let peers = std::mem::take(&mut self.peers);
        *self = Dispatcher::new(self.role, &self.options.clone());
        peers.into_iter().map(|(_, peer)| peer.link.stream).collect()
    }
}

impl ArrivalRecord {
    fn of(arrival: &Arrival) -> Self {
        match arrival {
            Arrival::Part(part) => ArrivalRecord::Part(part.to_vec(), part.more()),
            Arrival::Change(Change::Joined(name)) => ArrivalRecord::Joined(name.to_vec()),
            Arrival::Change(Change::Left(name, reason)) => {
                let reason = REASONS.iter().position(|known| known == reason).unwrap_or_default();
                ArrivalRecord::Left(name.to_vec(), reason as u8)
            }
            Arrival::Change(Change::Room(name)) => ArrivalRecord::Room(name.to_vec()),
        }
    }

    fn restore(self) -> Option<Arrival> {
        Some(match self {
            ArrivalRecord::Part(part, more) => Arrival::Part(Message::new(part.into(), more)),
            ArrivalRecord::Joined(name) => Arrival::Change(Change::Joined(name.into())),
            ArrivalRecord::Left(name, reason) => {
                Arrival::Change(Change::Left(name.into(), *REASONS.get(usize::from(reason))?))
            }
            ArrivalRecord::Room(name) => Arrival::Change(Change::Room(name.into())),
        })
    }
}
