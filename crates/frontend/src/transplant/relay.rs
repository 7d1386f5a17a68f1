// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets between a successor, which has the links, and its predecessor, which has clients left.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use process::passing::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zhttp::Id;

use super::record::{self, RelayRecord};

/// Bytes that may wait for the other end. If it takes nothing for so long, its clients are lost.
const MAX_QUEUED: usize = 64 << 20;

/// From predecessor to successor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Up {
    /// The first packet of a session, for any proxy.
    Open(Vec<u8>),
    /// A packet for the peer of a name.
    Send(Vec<u8>, Vec<u8>),
}

/// From successor to predecessor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Down {
    /// A packet that has come through the ROUTER, or been published.
    Packet { packet: Vec<u8>, by_router: bool },
    /// Nobody takes this packet.
    Refused(Vec<u8>),
    /// The peer of this name is gone.
    Left(Vec<u8>),
    /// A link by which requests went has ended.
    ProxyLost,
}

/// One end of it.
#[derive(Debug)]
pub(crate) struct Relay {
    channel: Channel,
    /// The other end is gone, or takes nothing.
    pub(crate) is_over: bool,
}

impl Relay {
    /// Watches the connection.
    pub(crate) fn new(channel: Channel, registry: &Registry, token: Token) -> io::Result<Self> {
        channel.wait_for(None)?;
        registry.register(&mut SourceFd(&fd(&channel)), token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Relay { channel, is_over: false })
    }

    /// Sends a message, now or when the other end takes it.
    pub(crate) fn send(&mut self, message: &impl Serialize) {
        if !self.is_over {
            self.is_over = self.channel.queue(&record::encode(message)) > MAX_QUEUED;
            self.flush();
        }
    }

    /// Sends what waits, as far as it is taken.
    pub(crate) fn flush(&mut self) {
        self.is_over |= !self.is_over && self.channel.flush().is_err();
    }

    /// What has come next.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        if self.is_over {
            return None;
        }
        match self.channel.receive().map(|got| got.and_then(|(message, _)| record::decode(&message).ok())) {
            Ok(Some(message)) => Some(message),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(None) | Err(_) => {
                self.is_over = true;
                None
            }
        }
    }

    /// Waits until all has been sent, but not for long: the process ends.
    pub(crate) fn finish(&mut self) {
        let patience = std::time::Duration::from_secs(1);
        if !self.is_over && self.channel.wait_for(Some(patience)).is_ok() {
            self.flush();
        }
    }

    pub(crate) fn deregister(&self, registry: &Registry) {
        // Closing ends the watching too, unless the other process has the same connection.
        let _ = registry.deregister(&mut SourceFd(&fd(&self.channel)));
    }
}

fn fd(channel: &Channel) -> i32 {
    std::os::fd::AsFd::as_fd(channel).as_raw_fd()
}

/// The predecessors that have clients left, and whose sessions are whose.
#[derive(Debug, Default)]
pub(crate) struct Predecessors {
    relays: Vec<Option<Relay>>,
    /// By slot and number of a session: the place of its relay. One more is added for a predecessor's client at most, since
    /// that is told with its next response that no other request follows.
    owners: HashMap<(u32, u64), usize>,
}

impl Predecessors {
    /// How many there may be.
    pub(crate) const MAX: usize = 8;

    /// The place that the next one will have, if there is any.
    pub(crate) fn vacancy(&self) -> Option<usize> {
        let free = self.relays.iter().position(Option::is_none);
        free.or((self.relays.len() < Self::MAX).then_some(self.relays.len()))
    }

    /// Adds one with its sessions, in the place that was told.
    pub(crate) fn add(&mut self, place: usize, relay: Relay, sessions: impl IntoIterator<Item = (u32, u64)>) {
        if place == self.relays.len() {
            self.relays.push(None);
        }
        self.relays[place] = Some(relay);
        self.owners.extend(sessions.into_iter().map(|session| (session, place)));
    }

    /// Sessions that are theirs.
    pub(crate) fn sessions(&self) -> usize {
        self.owners.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.relays.iter().all(Option::is_none)
    }

    pub(crate) fn get(&mut self, place: usize) -> Option<&mut Relay> {
        self.relays.get_mut(place)?.as_mut()
    }

    /// A predecessor has opened a session.
    pub(crate) fn opened(&mut self, place: usize, id: &[u8]) {
        if let Some(session) = Id::parse_indexed(id) {
            self.owners.insert(session, place);
        }
    }

    /// Whose a session is; none if it is nobody's.
    pub(crate) fn owner(&self, id: &[u8]) -> Option<usize> {
        if self.owners.is_empty() {
            return None;
        }
        self.owners.get(&Id::parse_indexed(id)?).copied()
    }

    /// Tells all of them.
    pub(crate) fn tell(&mut self, message: &Down) {
        self.relays.iter_mut().flatten().for_each(|relay| relay.send(message));
    }

    /// Takes out those that are over.
    pub(crate) fn bury(&mut self, registry: &Registry) {
        for (place, relay) in self.relays.iter_mut().enumerate() {
            if let Some(over) = relay.take_if(|relay| relay.is_over) {
                over.deregister(registry);
                self.owners.retain(|_, owner| *owner != place);
            }
        }
    }

    /// Writes them down for a successor, and gives their connections.
    pub(crate) fn pack(&self) -> io::Result<(Vec<RelayRecord>, Vec<OwnedFd>)> {
        let (mut records, mut files) = (Vec::new(), Vec::new());
        for (place, relay) in self.relays.iter().enumerate() {
            let Some(relay) = relay else { continue };
            let (out, begun) = relay.channel.standing();
            let sessions = self.owners.iter().filter(|(_, owner)| **owner == place).map(|(session, _)| *session);
            records.push(RelayRecord { sessions: sessions.collect(), out, begun });
            files.push(std::os::fd::AsFd::as_fd(&relay.channel).try_clone_to_owned()?);
        }
        Ok((records, files))
    }

    /// Forgets them: the successor has them.
    pub(crate) fn let_go(&mut self, registry: &Registry) {
        std::mem::take(self).relays.iter().flatten().for_each(|relay| relay.deregister(registry));
    }
}
