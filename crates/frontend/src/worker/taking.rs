// SPDX-License-Identifier: AGPL-3.0-or-later
//! A worker that begins with the clients of its predecessor.
//!
//! It is set up completely before it has anything: what can fail fails then, and the predecessor goes on.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use mio::Token;
use process::passing::{Channel, Door};
use slab::Slab;
use transport::{Options, Packed, Push, Router, Subscriber};
use wire::request_id::RequestIds;
use zhttp::PeerId;

use super::relaying::FIRST_RELAY;
use super::{FIRST_CLIENT, Sockets, Specs, Worker};
use crate::accept::Admission;
use crate::client::Client;
use crate::context::Config;
use crate::exchange::Exchange;
use crate::replay;
use crate::transplant::record::{Moving, Offer, Question, RelayRecord, State};
use crate::transplant::relay::Relay;
use crate::transplant::talk::{Taking, TalkError};

/// What has been read back.
#[derive(Default)]
struct Taken {
    clients: Vec<(usize, Client)>,
    exchanges: Vec<Exchange>,
    refused: Vec<u32>,
}

impl Worker {
    /// Takes over from the predecessor that waits at `door`. Nobody is accepted before [`listen`](Self::listen) is called.
    ///
    /// # Errors
    /// There is none, or it goes on itself.
    pub fn succeed(
        door: &Path,
        specs: &Specs,
        admission: Admission,
        config: Config,
        replay: replay::Terms,
        names: Option<RequestIds>,
    ) -> Result<Self, TalkError> {
        let addresses = specs.addresses();
        let mut taking = Taking::ask(door, &Question { addresses })?;
        let (Offer::State(state), mut files) = taking.hear()? else {
            return Err(TalkError::Unexpected("no state comes first"));
        };
        let now = Instant::now();
        if files.len() != state.relays.len() + 1 {
            return Err(TalkError::Unexpected("a door or a relay is missing"));
        }
        let waits_at = Door::taken_over(files.remove(0), door);
        let options = &specs.options;
        let requests = Push::unpack(&Options { linger: 0, ..options.clone() }, socket(&mut taking)?)?;
        let stream = Router::unpack(&options.clone().named(&state.instance), socket(&mut taking)?)?;
        let responses = Subscriber::unpack(options, socket(&mut taking)?)?;
        if !config.recover_wait.is_zero() {
            // The predecessor may have had another configuration.
            responses.subscribe_instance(&zhttp::recovery::topic(&state.instance))?;
        }
        let specs = Specs { instance: state.instance.clone(), ..specs.clone() };
        let mut worker =
            Worker::with(&specs, Sockets { responses, stream, requests }, admission, config, replay, names)?;
        let numbers = worker.take_state(&state)?;
        let mut taken = Taken::default();
        loop {
            match taking.hear()? {
                (Offer::Clients(clients), files) if files.len() == clients.len() => {
                    for (moving, file) in clients.into_iter().zip(files) {
                        worker.take_client(moving, file, &numbers, &mut taken, now);
                    }
                }
                (Offer::Unheard(exchanges), _) => {
                    for record in exchanges {
                        let core = &mut worker.core;
                        let restored = core.exchanges.restore(record, &mut core.links.peers, &numbers, now);
                        taken.exchanges.extend(restored.ok());
                    }
                }
                (Offer::End, _) => break,
                _ => return Err(TalkError::Unexpected("what is offered is no client")),
            }
        }
        worker.take_all(&mut taken, &state, now)?;
        let (channel, remaining) = taking.begin(std::mem::take(&mut taken.refused))?;
        worker.begin(waits_at, door, channel, remaining, state.relays, files);
        Ok(worker)
    }

    /// Gives the numbers of peers here by those of the predecessor.
    fn take_state(&mut self, state: &State) -> Result<Vec<PeerId>, TalkError> {
        let mut numbers = Vec::with_capacity(state.peers.len());
        for (name, by_router) in &state.peers {
            let peer = self.core.links.peers.intern(name).ok_or(TalkError::Unexpected("a peer has no name"))?;
            if *by_router {
                self.departures.on_answer(peer);
            }
            numbers.push(peer);
        }
        self.departures.count_from(state.departures);
        self.core.exchanges.restore_places(state.places.clone(), &numbers)?;
        Ok(numbers)
    }

    /// A client that can not be gone on with stays where it is.
    fn take_client(&mut self, moving: Moving, file: OwnedFd, numbers: &[PeerId], taken: &mut Taken, now: Instant) {
        let Moving { client: record, exchange } = moving;
        let slot = record.slot;
        let core = &mut self.core;
        let exchange = exchange.map(|record| core.exchanges.restore(record, &mut core.links.peers, numbers, now));
        let result = exchange.transpose().and_then(|exchange| {
            let client = Client::restore(record, file, &core.config, now)?;
            Ok((client, exchange))
        });
        match result {
            Ok((client, exchange)) => {
                taken.clients.push((slot as usize, client));
                taken.exchanges.extend(exchange);
            }
            Err(error) => {
                tracing::warn!("a client stays with the predecessor: {error}");
                taken.refused.push(slot);
            }
        }
    }

    fn take_all(&mut self, taken: &mut Taken, state: &State, now: Instant) -> Result<(), TalkError> {
        for (slot, client) in &mut taken.clients {
            client.io.register(self.reactor.registry(), Token(FIRST_CLIENT + *slot)).map_err(TalkError::Io)?;
        }
        let room = self.clients.capacity();
        self.clients = std::mem::take(&mut taken.clients).into_iter().collect::<Slab<_>>();
        self.counters.taken_over = self.clients.len() as u64;
        self.clients.reserve(room.saturating_sub(self.clients.len()));
        self.core.exchanges.take_over(std::mem::take(&mut taken.exchanges), state.serials, state.ms, now);
        Ok(())
    }

    /// Everything is ours.
    fn begin(
        &mut self,
        mut door: Door,
        path: &Path,
        channel: Channel,
        remaining: Vec<(u32, u64)>,
        relays: Vec<RelayRecord>,
        files: Vec<OwnedFd>,
    ) {
        let now = Instant::now();
        self.reactor.claim();
        door.claim();
        match self.watch_door(door) {
            Ok(()) => self.door_path = Some(path.to_owned()),
            Err(error) => tracing::error!("clients will not be able to move to a successor: {error}"),
        }
        let older = relays
            .into_iter()
            .zip(files)
            .map(|(relay, file)| (Channel::resume(file, relay.out, relay.begun), relay.sessions));
        for (channel, sessions) in std::iter::once((channel, remaining)).chain(older) {
            let Some(place) = self.predecessors.vacancy() else { break };
            match Relay::new(channel, self.reactor.registry(), Token(FIRST_RELAY + place)) {
                Ok(relay) => self.predecessors.add(place, relay, sessions),
                Err(error) => tracing::error!("clients of a predecessor can not be served any more: {error}"),
            }
        }
        let slots: Vec<usize> = self.clients.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.touch(slot));
        for slot in self.core.exchanges.unheard() {
            if let Some(due) = self.core.exchanges.next_due(slot) {
                self.exchange_timers.arm(slot, due);
            }
        }
        self.attend_to_clients(now);
    }

    /// Clients that there are.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }
}

/// The next of the ZeroMQ sockets.
fn socket(taking: &mut Taking) -> Result<Packed, TalkError> {
    match taking.hear()? {
        (Offer::Socket(record), files) => Ok(Packed { record, files }),
        _ => Err(TalkError::Unexpected("a ZeroMQ socket is missing")),
    }
}
