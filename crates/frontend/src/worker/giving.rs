// SPDX-License-Identifier: AGPL-3.0-or-later
//! A successor asks for everything: clients, links and addresses move to it, and what can not move is drained here.
//!
//! Writing down changes nothing, so until the successor has begun all goes on here if anything goes wrong.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use process::passing::{Channel, Door, MAX_FILES};

use super::relaying::UPSTREAM;
use super::{FIRST_CLIENT, Worker};
use crate::transplant::record::{Moving, Offer, Question, State};
use crate::transplant::relay::Relay;
use crate::transplant::talk::{Giving, TalkError};

/// Token of the door.
pub(super) const DOOR: usize = FIRST_CLIENT - 3;
/// Bytes of clients that are offered at once, about.
const BATCH: usize = 64 * 1024;
/// Sessions without client that are offered at once.
const UNHEARD: usize = 1000;

/// What has moved.
struct Moved {
    clients: Vec<(usize, Option<u32>)>,
    unheard: Vec<u32>,
}

impl Worker {
    /// Waits for a successor there.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open_door(&mut self, path: PathBuf) -> std::io::Result<()> {
        let door = Door::open(&path)?;
        self.watch_door(door)?;
        self.door_path = Some(path);
        Ok(())
    }

    pub(super) fn watch_door(&mut self, door: Door) -> std::io::Result<()> {
        let fd = door.as_fd().as_raw_fd();
        self.reactor.registry().register(&mut SourceFd(&fd), Token(DOOR), Interest::READABLE)?;
        self.door = Some(door);
        Ok(())
    }

    /// No successor can come in any more.
    pub(super) fn leave_door(&mut self) -> Option<Door> {
        self.door_path = None;
        let door = self.door.take()?;
        let fd = door.as_fd().as_raw_fd();
        // The successor may have the same socket, so closing it would not end the watching.
        let _ = self.reactor.registry().deregister(&mut SourceFd(&fd));
        Some(door)
    }

    /// Somebody may have come. Only one is heard at a time.
    pub(super) fn on_door(&mut self, now: Instant) {
        while let Some(door) = &self.door {
            let heard = match door.accept() {
                Ok(Some(channel)) => Giving::hear(channel),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            match heard {
                Ok((channel, question)) => self.heir = Some((channel, question)),
                Err(error) => {
                    let text =
                        format_args!("a successor is not understood, and has to begin without our clients: {error}");
                    return self.warnings.warn("successor", now, text);
                }
            }
        }
    }

    /// Gives everything to a successor that has asked for it, as soon as no server's end has to be attended to. What has to stay
    /// is drained within `timeout`.
    pub fn give_to_heir(&mut self, timeout: Duration) {
        if self.heir.is_none() || !self.departures.is_idle(&self.core.exchanges) || self.drain.is_some() {
            return;
        }
        let Some((channel, question)) = self.heir.take() else { return };
        let begun = Instant::now();
        self.grants_due = None;
        self.grant_owed();
        self.reactor.flush();
        match self.give(channel, &question, begun) {
            Ok((channel, moved)) => self.let_go(channel, &moved, timeout, begun),
            Err(error) => tracing::warn!("clients stay here, because they can not move to the successor: {error}"),
        }
    }

    fn give(&self, channel: Channel, question: &Question, now: Instant) -> Result<(Channel, Moved), TalkError> {
        if question.addresses != self.addresses {
            return Err(TalkError::Addresses);
        }
        let mut giving = Giving::begin(channel, now)?;
        self.offer_state(&giving, now)?;
        for packed in [&self.core.links.requests.pack()?, &self.core.links.stream.pack()?, &self.responses.pack()?] {
            if packed.files.len() > MAX_FILES {
                return Err(TalkError::Unexpected("it would get more links than can move"));
            }
            let files: Vec<BorrowedFd<'_>> = packed.files.iter().map(|file| file.as_fd()).collect();
            giving.offer(&Offer::Socket(packed.record.clone()), &files)?;
        }
        let mut clients = self.offer_clients(&giving, now)?;
        let unheard = self.core.exchanges.unheard();
        for slots in unheard.chunks(UNHEARD) {
            let snapshot = |slot: &u32| self.core.exchanges.snapshot(*slot, &self.core.links.peers, now);
            giving.offer(&Offer::Unheard(slots.iter().filter_map(snapshot).collect()), &[])?;
        }
        let refused = giving.end()?;
        clients.retain(|(slot, _)| !refused.contains(&(*slot as u32)));
        let moved = Moved { clients, unheard };
        let gone: std::collections::HashSet<u32> =
            moved.clients.iter().filter_map(|(_, exchange)| *exchange).chain(moved.unheard.iter().copied()).collect();
        let remaining = self.core.exchanges.ids().filter(|(slot, _)| !gone.contains(slot)).collect();
        Ok((giving.commit(remaining)?, moved))
    }

    fn offer_state(&self, giving: &Giving, now: Instant) -> Result<(), TalkError> {
        let links = &self.core.links;
        let (relays, files) = self.predecessors.pack()?;
        let state = State {
            instance: String::from_utf8_lossy(&links.instance).into_owned(),
            peers: links.peers.iter().map(|(peer, name)| (name.to_vec(), self.departures.is_by_router(peer))).collect(),
            departures: self.departures.count(),
            serials: self.core.exchanges.next_serial(),
            ms: self.core.exchanges.ms_of(now),
            places: self.core.exchanges.places_snapshot(),
            relays,
        };
        let door = self.door.as_ref().ok_or(TalkError::Unexpected("there is no door"))?;
        let files: Vec<BorrowedFd<'_>> = std::iter::once(door.as_fd()).chain(files.iter().map(|f| f.as_fd())).collect();
        giving.offer(&Offer::State(Box::new(state)), &files)
    }

    /// Gives the slots of those that have been offered, with those of their sessions.
    fn offer_clients(&self, giving: &Giving, now: Instant) -> Result<Vec<(usize, Option<u32>)>, TalkError> {
        let (mut offered, mut batch, mut files, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (slot, client) in &self.clients {
            let Some(stream) = client.io.plain() else { continue };
            let Some(record) = client.snapshot(slot as u32, now) else { continue };
            let exchange = client.http.exchange();
            let session = exchange.map(|exchange| self.core.exchanges.snapshot(exchange, &self.core.links.peers, now));
            let Some(session) = session.map_or(Some(None), |session| session.map(Some)) else { continue };
            bytes += client.output.len() + client.http.buffered() + 512;
            offered.push((slot, exchange));
            batch.push(Moving { client: record, exchange: session });
            files.push(stream.as_fd());
            if batch.len() == MAX_FILES || bytes >= BATCH {
                giving.offer(&Offer::Clients(std::mem::take(&mut batch)), &files)?;
                files.clear();
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            giving.offer(&Offer::Clients(batch), &files)?;
        }
        Ok(offered)
    }

    /// All that has moved is the successor's.
    fn let_go(&mut self, channel: Channel, moved: &Moved, timeout: Duration, begun: Instant) {
        let registry = self.reactor.registry();
        for &(slot, exchange) in &moved.clients {
            exchange.into_iter().for_each(|exchange| self.core.exchanges.close(exchange));
            if let Some(mut client) = self.clients.try_remove(slot) {
                // The successor has the same socket, so closing it would not end the watching.
                client.io.deregister(registry);
            }
        }
        moved.unheard.iter().for_each(|exchange| self.core.exchanges.close(*exchange));
        self.predecessors.let_go(registry);
        if let Some(door) = self.leave_door() {
            door.let_go();
        }
        self.reactor.let_go();
        match Relay::new(channel, self.reactor.registry(), Token(UPSTREAM)) {
            Ok(relay) => self.core.links.relay = Some(relay),
            Err(error) => tracing::error!("those who stay can not be served any more: {error}"),
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(begun).as_millis();
        self.counters.moved = moved.clients.len() as u64;
        tracing::info!("{} clients have moved to the successor within {took} ms", moved.clients.len());
        self.begin_drain(timeout, now);
    }
}
