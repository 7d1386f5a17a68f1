//! The worker: sockets, clock and timers around the connections.
//!
//! One thread. A turn takes the packets that have come from proxy and handler and gives each to its connection, reads
//! from the clients that have sent something, then writes once to each client for whom something has come, however much
//! it is. Credits and keep-alives go back to the servers once a turn, many sessions a packet.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};
use process::Limited;
use slab::Slab;
use transport::{Context, Event, Options, Push, Reactor, Router, Subscriber};
use zhttp::{Bulk, Ext, Id, KEEP_ALIVE, Kind, Packet, PeerId, Wheel};

use crate::connection::{Config, Connection, Owed, Uplink};
use crate::listen::Listeners;
use crate::servers::Servers;
use crate::shared_body::SharedBody;

const RESPONSES: usize = 0;
const STREAM: usize = 1;
/// Packets taken from one socket in a turn, so that clients are served in between.
const PACKETS_A_TURN: usize = 256;
/// Reads from one client in a turn.
const READS_A_TURN: usize = 4;
/// Size of the buffer that all reads share.
const READ_BUFFER: usize = 65_536;
/// How long credits of a quiet session may be owed.
const GRANT_DELAY: Duration = Duration::from_millis(100);
/// How exact expiry and keep-alives are.
const TICK: Duration = Duration::from_millis(250);
/// How long a client may be idle between requests, or take for a request head.
const IDLE: Duration = Duration::from_secs(60);
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
    /// Permission bits of the sockets' files.
    pub file_mode: Option<u32>,
}

struct Client {
    stream: TcpStream,
    connection: Connection,
    /// The socket may have more to read than was read.
    readable: bool,
    /// The client has closed its side; what it sent before may not have been read yet.
    ended: bool,
    /// The socket takes more.
    writable: bool,
    /// In the list of those to be written to in this turn.
    dirty: bool,
    /// In the list of those that credits are owed to the server of.
    owing: bool,
    /// Tells this client from an earlier one in the same slot.
    birth: u64,
    /// When something last happened: bytes from or to the client.
    active: Instant,
    kept_alive: Instant,
}

/// The frontend's event loop.
pub struct Worker {
    reactor: Reactor,
    responses: Subscriber,
    servers: Servers,
    listeners: Listeners,
    clients: Slab<Client>,
    config: Config,
    /// Serial numbers of requests, so that ids do not repeat.
    serials: u64,
    births: u64,
    /// Clients to be written to at the end of the turn.
    dirty: Vec<usize>,
    /// Clients whose sockets were not read to the end.
    unread: Vec<usize>,
    /// Clients whose servers are owed credits, to be granted at `grants_due`.
    owing: Vec<usize>,
    grants_due: Option<Instant>,
    /// When to look at a client: slot and birth.
    wheel: Wheel<(usize, u64)>,
    buffer: Vec<u8>,
    warnings: Limited,
}

impl Worker {
    /// Binds the ZeroMQ sockets.
    ///
    /// # Errors
    /// A socket can not be bound or set up.
    pub fn new(specs: &Specs, listeners: Listeners, config: Config) -> Result<Self, transport::Error> {
        let context = Context::new();
        let options = Options { file_mode: specs.file_mode, ..Options::default() };
        let named = Options { file_mode: specs.file_mode, ..Options::named(&specs.instance) };
        let responses = Subscriber::bind(&context, &specs.responses, &options)?;
        responses.subscribe_instance(&specs.instance)?;
        let stream = Router::bind(&context, &specs.out_stream, &named)?;
        // Requests that no proxy has taken yet are of no use once the frontend is gone.
        let requests = Push::bind(&context, &specs.out, &Options { linger: 0, ..options })?;
        let mut reactor = Reactor::new()?;
        reactor.add(RESPONSES, &responses)?;
        reactor.add(STREAM, &stream)?;
        reactor.add(usize::MAX, &requests)?;
        let now = Instant::now();
        let servers = Servers::new(&specs.instance, requests, stream, now);
        let mut worker = Worker {
            reactor,
            responses,
            servers,
            listeners,
            clients: Slab::new(),
            config,
            serials: 0,
            births: 0,
            dirty: Vec::new(),
            unread: Vec::new(),
            owing: Vec::new(),
            grants_due: None,
            wheel: Wheel::new(TICK, now),
            buffer: vec![0; READ_BUFFER],
            warnings: Limited::default(),
        };
        worker.listeners.register(worker.reactor.registry())?;
        Ok(worker)
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
        let (mut accept, mut responses, mut stream) = (self.listeners.is_pending(), false, false);
        for event in ready.iter() {
            match *event {
                Event::Socket(RESPONSES) => responses = true,
                Event::Socket(STREAM) => stream = true,
                Event::Source { token, readable, writable, ended } if token >= FIRST_CLIENT => {
                    if let Some(client) = self.clients.get_mut(token - FIRST_CLIENT) {
                        if writable {
                            client.writable = true;
                            if !client.connection.output.is_empty() && !std::mem::replace(&mut client.dirty, true) {
                                self.dirty.push(token - FIRST_CLIENT);
                            }
                        }
                        client.ended |= ended;
                        if readable && !std::mem::replace(&mut client.readable, true) {
                            self.unread.push(token - FIRST_CLIENT);
                        }
                    }
                }
                Event::Source { token, .. } => {
                    if self.listeners.on_ready(token) {
                        accept = true;
                    } else {
                        foreign(token);
                    }
                }
                _ => {}
            }
        }
        if responses {
            self.take_responses(now);
        }
        if stream {
            self.take_stream(now);
        }
        self.read(now);
        self.write(now);
        self.servers.send_grants();
        if accept {
            self.accept(now);
        }
        self.attend_to_timers(now);
        Ok(())
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        if !self.unread.is_empty() || !self.dirty.is_empty() || self.listeners.is_pending() && self.has_room() {
            return Some(Duration::ZERO);
        }
        let next = [self.wheel.next(), self.grants_due, self.listeners.resumes_at()].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    fn has_room(&self) -> bool {
        self.clients.len() < self.listeners.max_clients
    }

    fn accept(&mut self, now: Instant) {
        while self.has_room() {
            match self.listeners.accept() {
                Ok(Some((stream, address))) => self.admit(stream, address, now),
                Ok(None) => return,
                Err(error) => {
                    let advice = "raise the limit of open files, or lower client_maxconn";
                    return self.warnings.warn(
                        "accept",
                        now,
                        format_args!("unable to accept connections: {error}; {advice}"),
                    );
                }
            }
        }
    }

    fn admit(&mut self, mut stream: TcpStream, address: Option<SocketAddr>, now: Instant) {
        let entry = self.clients.vacant_entry();
        let (slot, birth) = (entry.key(), self.births);
        let token = Token(FIRST_CLIENT + slot);
        // Both directions at once, edge triggered: no further system call changes this.
        if let Err(error) =
            self.reactor.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
        {
            tracing::warn!("a connection can not be watched: {error}");
            return;
        }
        self.births += 1;
        entry.insert(Client {
            stream,
            connection: Connection::new(slot as u32, address),
            readable: false,
            ended: false,
            writable: true,
            dirty: false,
            owing: false,
            birth,
            active: now,
            kept_alive: now,
        });
        self.wheel.insert((slot, birth), now + KEEP_ALIVE);
    }

    fn take_responses(&mut self, now: Instant) {
        for _ in 0..PACKETS_A_TURN {
            let Some(message) = self.responses.recv() else { return };
            // The socket subscribes to this prefix, so it is there.
            let packet = message.get(self.servers.instance.len() + 1..).unwrap_or_default();
            self.take_packet(packet, now);
        }
    }

    fn take_stream(&mut self, now: Instant) {
        for _ in 0..PACKETS_A_TURN {
            let Some((_, message)) = self.servers.stream.recv() else { return };
            self.take_packet(&message, now);
        }
    }

    /// Gives a packet to the connections it is for.
    fn take_packet(&mut self, message: &[u8], now: Instant) {
        let packet = match Packet::decode(message) {
            Ok(packet) => packet,
            Err(error) => {
                return self.warnings.warn(
                    "packet",
                    now,
                    format_args!("a packet from proxy or handler is skipped: {error}"),
                );
            }
        };
        let from = self.servers.peers.intern(packet.from);
        let body = SharedBody::new(packet.body);
        for id in packet.ids.iter() {
            let Ok((id, seq)) = id else { continue };
            self.deliver(&packet, &body, id, from, seq, now);
        }
    }

    fn deliver(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        id: &[u8],
        from: Option<PeerId>,
        seq: Option<u32>,
        now: Instant,
    ) {
        let Some((slot, serial)) = Id::parse_indexed(id) else { return };
        let slot = slot as usize;
        let Some(client) = self.clients.get_mut(slot).filter(|c| c.connection.serves(serial)) else {
            return self.servers.cancel_orphan(packet.kind, id, from, seq, now);
        };
        let connection = &mut client.connection;
        if let Err(violation) =
            connection.on_packet(packet, body, from, seq, &self.config, &mut self.serials, now, &mut self.servers)
        {
            let (id, from) = (String::from_utf8_lossy(id), String::from_utf8_lossy(packet.from));
            self.warnings.warn(
                "violation",
                now,
                format_args!("session {id} ended: {from} broke the protocol: {violation}"),
            );
        }
        let finished = connection.is_finished();
        if (!connection.output.is_empty() || finished) && !std::mem::replace(&mut client.dirty, true) {
            self.dirty.push(slot);
        }
        if client.readable {
            // What could not be read for want of credits, or because the connection was busy, may be read now.
            self.unread.push(slot);
        }
    }

    /// Reads from the clients that have sent something.
    fn read(&mut self, now: Instant) {
        for i in 0..self.unread.len() {
            let slot = self.unread[i];
            if self.clients.get(slot).is_some_and(|client| client.readable) {
                self.read_client(slot, now);
            }
        }
        let clients = &self.clients;
        // Those that may go on at once; others come back when they have credits, or when they are written to.
        self.unread.retain(|&slot| {
            clients
                .get(slot)
                .is_some_and(|c| c.readable && !c.connection.is_finished() && c.connection.wants(&self.config) > 0)
        });
        self.unread.sort_unstable();
        self.unread.dedup();
    }

    fn read_client(&mut self, slot: usize, now: Instant) {
        let client = &mut self.clients[slot];
        for _ in 0..READS_A_TURN {
            let wanted = client.connection.wants(&self.config).min(self.buffer.len());
            if wanted == 0 || client.connection.is_finished() {
                break;
            }
            match client.stream.read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    client.readable = false;
                    client.connection.on_gone(&mut self.servers);
                    break;
                }
                Ok(n) => {
                    client.active = now;
                    let input = &self.buffer[..n];
                    client.connection.on_input(input, &self.config, &mut self.serials, now, &mut self.servers);
                    // Less than asked for is all there is. The end has an edge of its own, unless it came with this one.
                    if n < wanted && !client.ended {
                        client.readable = false;
                        break;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    client.readable = false;
                    break;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    client.readable = false;
                    client.connection.on_gone(&mut self.servers);
                    break;
                }
            }
        }
        if (!client.connection.output.is_empty() || client.connection.is_finished())
            && !std::mem::replace(&mut client.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// Writes to each client for whom something has come.
    fn write(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            client.dirty = false;
            if client.writable && !client.connection.output.is_empty() {
                match client.connection.output.write_to(&mut client.stream) {
                    Ok(written) => {
                        client.writable = client.connection.output.is_empty();
                        client.active = now;
                        if client.connection.on_written(written, &mut self.servers) == Owed::Later && !client.owing {
                            client.owing = true;
                            self.owing.push(slot);
                            self.grants_due.get_or_insert(now + GRANT_DELAY);
                        }
                    }
                    Err(_) => client.connection.on_gone(&mut self.servers),
                }
            }
            if client.connection.is_finished() {
                self.close(slot);
            }
        }
    }

    fn close(&mut self, slot: usize) {
        let mut client = self.clients.remove(slot);
        // Closing the descriptor also ends its registration; an error here would change nothing.
        let _ = self.reactor.registry().deregister(&mut client.stream);
    }

    fn attend_to_timers(&mut self, now: Instant) {
        if self.grants_due.is_some_and(|due| due <= now) {
            self.grants_due = None;
            for slot in std::mem::take(&mut self.owing) {
                let Some(client) = self.clients.get_mut(slot) else { continue };
                if std::mem::take(&mut client.owing) {
                    client.connection.grant_owed(&mut self.servers);
                }
            }
            self.servers.send_grants();
        }
        let mut keep_alives = Bulk::default();
        while let Some((slot, birth)) = self.wheel.pop(now) {
            self.look_at(slot, birth, now, &mut keep_alives);
        }
        keep_alives.drain(|peer, (), ids| {
            self.servers.send(peer, &Packet { ids, kind: Kind::KeepAlive, ext: Ext::MULTI, ..Packet::default() });
        });
        self.servers.forget_orphans(now);
        let lost = self.servers.take_lost();
        if lost > 0 {
            let text =
                format_args!("{lost} packets for proxy or handler are lost: it is gone, or too much waits for it");
            self.warnings.warn("lost", now, text);
        }
    }

    /// Ends a client whose time is up, or keeps its session alive; sets the time of the next look.
    fn look_at(&mut self, slot: usize, birth: u64, now: Instant, keep_alives: &mut Bulk<()>) {
        let Some(client) = self.clients.get_mut(slot).filter(|c| c.birth == birth) else { return };
        let connection = &mut client.connection;
        let next = if let Some(session) = connection.session() {
            if session.is_expired(now) {
                connection.on_expired();
                return self.close(slot);
            }
            let expiry = session.expires_at();
            if now.duration_since(client.kept_alive) >= KEEP_ALIVE - TICK * 4
                && let Some((peer, id, seq)) = connection.keep_alive()
            {
                keep_alives.push(peer, (), id, seq);
                client.kept_alive = now;
            }
            expiry.min(now + KEEP_ALIVE - TICK * 4)
        } else {
            let end = client.active + IDLE;
            if end <= now {
                return self.close(slot);
            }
            end
        };
        self.wheel.insert((slot, birth), next.min(now + KEEP_ALIVE - TICK * 4));
    }

    /// Closes all connections and tells the servers.
    pub fn shut_down(&mut self) {
        let mut cancels = Bulk::default();
        for (_, client) in &mut self.clients {
            if let Some((peer, id, seq)) = client.connection.keep_alive() {
                cancels.push(peer, (), id, seq);
            }
        }
        self.clients.clear();
        cancels.drain(|peer, (), ids| {
            self.servers.send(peer, &Packet { ids, kind: Kind::Cancel, ext: Ext::MULTI, ..Packet::default() });
        });
        self.reactor.drain(Duration::from_secs(1));
    }
}
