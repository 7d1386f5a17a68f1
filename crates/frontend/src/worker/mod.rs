// SPDX-License-Identifier: AGPL-3.0-or-later
//! The worker: sockets, clock and timers around clients and exchanges.
//!
//! One thread. A turn takes the packets that have come from proxy and handler and gives each to its client, reads from
//! the clients that have sent something, then writes once to each client for whom something has come, however much it
//! is. Credits and keep-alives go back to the servers once a turn, many sessions a packet. Nothing in a turn grows with
//! the number of clients but what concerns each of them.
//!
//! - `packets`: what servers send goes to the clients it is for.
//! - `clients`: accepting, reading, writing, closing.
//! - `due`, `timers`: deadlines of clients, keep-alives and expiry of exchanges.
//! - `measures`: what operators can see of all this.
//! - `drain`: the end of a process that has been replaced.
//! - `departed`: what becomes of the sessions of servers that have gone.
//! - `giving`, `taking`: clients and links move to a successor; `relaying`: those that stay.
//! - `replays`: requests that go to another proxy, or wait for one.

mod clients;
mod departed;
mod doubtful;
mod drain;
mod due;
mod giving;
mod measures;
mod packets;
mod relaying;
mod replays;
mod taking;
mod timers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use limited::Limited;
use process::passing::{Channel, Door};
use slab::Slab;
use tnetstring::Writer;
use transport::{Event, Options, Push, Reactor, Router, Subscriber};
use wire::request_id::RequestIds;
use zhttp::session::client::Outgoing;
use zhttp::{Bulk, Kind};

use self::doubtful::Doubtful;
use self::drain::Drain;
use self::giving::DOOR;
use self::timers::SlotTimers;
use crate::accept::handshakes::Handshakes;
use crate::accept::{Admission, Listeners};
use crate::client::Client;
use crate::client::output::Output;
use crate::context::{Config, Context};
use crate::departure::Departures;
use crate::exchange::Exchanges;
use crate::replay;
use crate::transplant::record::Question;
use crate::transplant::relay::Predecessors;
use crate::uplink::Links;

const RESPONSES: usize = 0;
const STREAM: usize = 1;
/// Size of the buffer that all reads share.
const READ_BUFFER: usize = 65_536;
/// Clients for which tables reserve memory at once. Beyond, they grow, which moves all entries.
const RESERVED: usize = 1 << 20;
/// Tokens below this are listeners.
pub(crate) const FIRST_CLIENT: usize = 1024;

/// Where the worker's sockets are, and who it is.
#[derive(Clone, Debug)]
pub struct Specs {
    /// The instance id: unique in each run, at most 64 bytes, no spaces.
    pub instance: String,
    /// PUSH, bound: first packets of sessions.
    pub out: String,
    /// ROUTER, bound: later packets.
    pub out_stream: String,
    /// SUB, bound: responses.
    pub responses: String,
    /// What they all keep to.
    pub options: Options,
}

impl Specs {
    /// In the order in which the sockets move to a successor.
    pub fn addresses(&self) -> [String; 3] {
        [self.out.clone(), self.out_stream.clone(), self.responses.clone()]
    }

    /// Whether all addresses are of this machine. Then the end of a server's connection is noticed, so servers are asked
    /// to answer through it: what they sent comes before their end.
    pub fn are_local(&self) -> bool {
        [&self.out, &self.out_stream, &self.responses].iter().all(|spec| spec.starts_with("ipc:"))
    }
}

/// The frontend's event loop.
pub struct Worker {
    reactor: Reactor,
    responses: Subscriber,
    listeners: Listeners,
    admission: Admission,
    /// Its memory is reserved at the start: see [`RESERVED`].
    clients: Slab<Client>,
    core: Core,
    client_timers: SlotTimers,
    doubtful: Doubtful,
    exchange_timers: SlotTimers,
    /// Clients to be attended to at the end of the turn.
    dirty: Vec<usize>,
    /// Clients that are to be read from.
    unread: Vec<usize>,
    /// Clients that are to be read from, but only so many a turn.
    handshakes: Handshakes,
    /// Clients whose bytes are thrown away, when `discarded` is long enough ago.
    discarding: Vec<usize>,
    discarded: Instant,
    /// Exchanges whose servers are owed credits, to be granted at `grants_due`.
    owing: Vec<(u32, u64)>,
    grants_due: Option<Instant>,
    departures: Departures,
    /// Where a successor comes in, and who has.
    door: Option<Door>,
    door_path: Option<PathBuf>,
    heir: Option<(Channel, Question)>,
    addresses: [String; 3],
    /// Those that have clients left since we have taken over.
    predecessors: Predecessors,
    writer: Writer,
    /// A successor serves.
    drain: Option<Drain>,
    /// Links to proxies that had ended when that was last looked at.
    proxies_left: u64,
    counters: Counters,
    buffer: Vec<u8>,
    warnings: Limited,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Clients that were accepted.
    pub clients: u64,
    /// Steps of TLS handshakes.
    pub handshakes: u64,
    /// Steps of TLS handshakes that had to wait for a later turn, for each turn.
    pub postponed: u64,
    /// Requests that were refused as malformed or not supported.
    pub refused: u64,
    /// WebSockets that were closed because a message of the client was larger than allowed.
    pub oversized: u64,
    /// Clients that were closed because no header of the PROXY protocol came where one must.
    pub unintroduced: u64,
    /// Clients that were closed because a deadline had passed.
    pub late: u64,
    /// Packets that were none.
    pub malformed: u64,
    /// Sessions ended because their server broke the rules.
    pub faults: u64,
    /// Sessions ended because their server was silent for too long.
    pub expired: u64,
    /// Sessions ended because their server had gone.
    pub orphaned: u64,
    /// Clients that were ended because this process had been replaced.
    pub replaced: u64,
    /// Clients that have moved to the process that has replaced this one.
    pub moved: u64,
    /// Clients that have moved here from the process that this one has replaced.
    pub taken_over: u64,
    /// Requests for which no proxy came in time.
    pub unserved: u64,
    /// Sessions ended because nobody took a packet of theirs.
    pub unreachable: u64,
}

/// The ZeroMQ sockets.
struct Sockets {
    responses: Subscriber,
    stream: Router,
    requests: Push,
}

/// What every client needs.
struct Core {
    config: Config,
    exchanges: Exchanges,
    links: Links,
}

impl Core {
    fn context<'a>(&'a mut self, output: &'a mut Output, now: Instant) -> Context<'a> {
        Context { config: &self.config, now, output, exchanges: &mut self.exchanges, up: &mut self.links }
    }
}

impl Worker {
    /// Binds the ZeroMQ sockets.
    ///
    /// # Errors
    /// A socket can not be bound or set up.
    pub fn new(
        specs: &Specs,
        listeners: Listeners,
        admission: Admission,
        config: Config,
        replay: replay::Terms,
        names: Option<RequestIds>,
    ) -> Result<Self, transport::Error> {
        let context = transport::Context::new();
        let options = specs.options.clone();
        let named = options.clone().named(&specs.instance);
        let responses = Subscriber::bind(&context, &specs.responses, &options)?;
        responses.subscribe_instance(&specs.instance)?;
        if specs.are_local() && !config.recover_wait.is_zero() {
            // What servers leave to their successors is of use only if their end is known.
            responses.subscribe_instance(&zhttp::recovery::topic(&specs.instance))?;
        }
        let stream = Router::bind(&context, &specs.out_stream, &named)?;
        // Requests that no proxy has taken yet are of no use once the frontend is gone.
        let requests = Push::bind(&context, &specs.out, &Options { linger: 0, ..options })?;
        let sockets = Sockets { responses, stream, requests };
        let mut worker = Self::with(specs, sockets, admission, config, replay, names)?;
        worker.listen(listeners)?;
        Ok(worker)
    }

    /// Accepts clients from there.
    ///
    /// # Errors
    /// A socket can not be watched.
    pub fn listen(&mut self, listeners: Listeners) -> Result<(), transport::Error> {
        self.listeners = listeners;
        self.listeners.register(self.reactor.registry())?;
        Ok(())
    }

    /// With sockets that are set up already, and nobody to accept from.
    fn with(
        specs: &Specs,
        Sockets { responses, stream, requests }: Sockets,
        admission: Admission,
        mut config: Config,
        replay: replay::Terms,
        names: Option<RequestIds>,
    ) -> Result<Self, transport::Error> {
        config.router_resp = specs.are_local();
        let mut reactor = Reactor::new()?;
        reactor.add(RESPONSES, &responses)?;
        reactor.add(STREAM, &stream)?;
        reactor.add(usize::MAX, &requests)?;
        let now = Instant::now();
        let most = admission.max().min(RESERVED);
        let exchanges = Exchanges::for_clients(most).replaying(replay).naming(names).recovering(config.recover_memory);
        let departures = Departures::new(config.recover_wait, now);
        Ok(Worker {
            reactor,
            responses,
            listeners: Listeners::default(),
            admission,
            clients: Slab::with_capacity(most),
            core: Core { config, exchanges, links: Links::new(&specs.instance, requests, stream) },
            client_timers: SlotTimers::new(most, now),
            doubtful: Doubtful::default(),
            exchange_timers: SlotTimers::new(2 * most, now),
            dirty: Vec::new(),
            unread: Vec::new(),
            handshakes: Handshakes::default(),
            discarding: Vec::new(),
            discarded: now,
            owing: Vec::new(),
            grants_due: None,
            departures,
            door: None,
            door_path: None,
            heir: None,
            addresses: specs.addresses(),
            predecessors: Predecessors::default(),
            writer: Writer::new(4096),
            drain: None,
            proxies_left: 0,
            counters: Counters::default(),
            buffer: vec![0; READ_BUFFER],
            warnings: Limited::default(),
        })
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where further sources, such as signals, are registered.
    pub fn registry(&self) -> &mio::Registry {
        self.reactor.registry()
    }

    /// Waits for events and attends to them. `foreign` is told of sources that are not the worker's.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn turn(&mut self, ready: &mut Vec<Event>, mut foreign: impl FnMut(usize)) -> Result<(), transport::Error> {
        let timeout = self.timeout(Instant::now());
        self.reactor.wait(timeout, ready)?;
        let now = Instant::now();
        let (mut responses, mut stream) = (false, false);
        for event in ready.iter() {
            match *event {
                Event::Socket(RESPONSES) => responses = true,
                Event::Socket(STREAM) => stream = true,
                Event::Source { token, readable, writable, ended } if token >= FIRST_CLIENT => {
                    self.on_client_ready(token - FIRST_CLIENT, readable, writable, ended);
                }
                Event::Source { token: DOOR, .. } => self.on_door(now),
                Event::Source { token, .. } if self.on_relay(token, now) => {}
                Event::Source { token, .. } if !self.listeners.on_ready(token) => foreign(token),
                _ => {}
            }
        }
        if responses {
            self.take_responses(now);
        }
        if stream {
            self.take_stream(now);
        }
        self.look_for_lost_requests(now);
        self.end_departed(now);
        self.end_clients(now);
        self.attend_to_waiting(now);
        self.read(now);
        self.discard(now);
        self.attend_to_clients(now);
        self.core.links.send_grants();
        if self.listeners.is_pending() {
            self.accept(now);
        }
        self.attend_to_timers(now);
        self.look_for_lost_relays();
        Ok(())
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let accepts = self.listeners.is_pending() && self.admission.is_open(self.clients.len(), now);
        if !self.unread.is_empty() || !self.handshakes.is_empty() || !self.dirty.is_empty() || accepts {
            return Some(Duration::ZERO);
        }
        let accepting = if self.listeners.is_pending() { self.admission.resumes_at(now) } else { None };
        let due = [
            self.client_timers.next(),
            self.exchange_timers.next(),
            self.grants_due,
            self.discards_at(),
            self.departures.next_due(),
            self.drains_at(),
            self.core.exchanges.next_given_up_at(),
            accepting,
        ];
        let next = due.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Queues a client to be attended to at the end of the turn.
    fn touch(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot)
            && !std::mem::replace(&mut client.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// Closes all connections and tells the servers.
    pub fn shut_down(&mut self) {
        self.end_all_clients(Instant::now());
        let mut cancels = Bulk::default();
        for exchange in self.core.exchanges.iter_mut() {
            if let Some(Outgoing { to, seq }) = exchange.address() {
                cancels.push(to, (), exchange.id(), seq);
            }
        }
        self.clients.clear();
        self.core.links.send_bulk(Kind::Cancel, cancels);
        self.reactor.drain(Duration::from_secs(1));
        if let Some(relay) = &mut self.core.links.relay {
            relay.finish();
        }
    }
}
