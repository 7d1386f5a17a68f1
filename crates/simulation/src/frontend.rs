// SPDX-License-Identifier: AGPL-3.0-or-later
//! A frontend: its clients and exchanges, driven as its worker does it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use frontend::client::output::Output;
use frontend::client::pacing::{Ending, Pacing, Reading};
use frontend::context::{Config, Context};
use frontend::departure::{Departures, Nature};
use frontend::exchange::{Exchange, Exchanges, Over, Owed};
use frontend::http1::{Http1, SharedBody};
use frontend::keep::offer;
use frontend::replay::Terms;
use frontend::uplink::Uplink;
use tnetstring::Writer;
use zhttp::session::client::GRANT_DELAY;
use zhttp::{Bulk, Ext, Id, Ids, Kind, Packet, PeerId, Peers};

use crate::net::{Lane, Net, Part};

/// Body bytes that a frontend grants at a time.
pub const WINDOW: u32 = 2_000;
/// How long sessions wait for the successor of their server.
pub const RECOVER_WAIT: Duration = Duration::from_secs(10);
/// Requests wait so long for a proxy, and are kept up to so many bytes.
const REPLAY: Terms = Terms { wait: Duration::from_secs(8), body: 4_000, memory: 100_000 };
/// Bytes that the system keeps for a client that does not read.
const SOCKET: usize = 1_000;

/// A client as its frontend has it.
struct Conn {
    http: Http1,
    output: Output,
    pacing: Pacing,
    /// Has come from the client and was not read.
    incoming: VecDeque<u8>,
    /// Is on its way to the client.
    socket: Socket,
    left: bool,
}

#[derive(Default)]
struct Socket(VecDeque<u8>);

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (SOCKET - self.0.len()).min(bytes.len()) {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => {
                self.0.extend(&bytes[..taken]);
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client sees of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is open.
    Open,
    /// The frontend has closed it, and all that it sent has come.
    Closed,
    /// It was broken off.
    Reset,
}

/// See the module.
pub struct Frontend {
    part: Part,
    name: Vec<u8>,
    peers: Peers,
    exchanges: Exchanges,
    config: Config,
    conns: BTreeMap<u32, Conn>,
    /// How connections have ended that clients have not looked at, with what they have not read.
    ended: BTreeMap<u32, (Connection, VecDeque<u8>)>,
    grants: Bulk<u32>,
    owing: Vec<(u32, u64)>,
    grants_due: Option<Instant>,
    departures: Departures,
    /// A proxy is there, as far as it is known.
    is_connected: bool,
    /// Clients that were closed because a deadline had passed.
    late: BTreeSet<u32>,
    /// No server has any reason to break the rules.
    strict: bool,
}

struct Links<'a> {
    part: Part,
    name: &'a [u8],
    peers: &'a Peers,
    grants: &'a mut Bulk<u32>,
    is_connected: bool,
    net: &'a mut Net,
    writer: Writer,
}

impl Links<'_> {
    fn flush(&mut self) {
        let mut grants = std::mem::take(self.grants);
        grants.drain(|peer, credits, ids| {
            self.post(peer, &Packet { ids, kind: Kind::Credit, credits: Some(credits), ..Packet::default() });
        });
    }

    fn post(&mut self, to: PeerId, packet: &Packet<'_>) {
        let packet = Packet { from: self.name, ext: Ext::MULTI, ..*packet };
        if let Some(part) = self.net.part(self.peers.name(to)) {
            self.net.send(self.part, part, Lane::Stream, packet.encode(None, &mut self.writer));
        }
    }
}

impl Uplink for Links<'_> {
    fn open(&mut self, packet: &Packet<'_>) -> &[u8] {
        let packet = Packet { from: self.name, ..*packet };
        self.net.send(self.part, Part::Proxy, Lane::First, packet.encode(None, &mut self.writer));
        self.writer.as_slice()
    }

    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn send(&mut self, to: PeerId, packet: &Packet<'_>) {
        self.flush();
        self.post(to, packet);
    }

    fn grant(&mut self, to: PeerId, credits: u32, id: Id, seq: u32) {
        self.grants.push(to, credits, id, seq);
    }
}

/// Gives a context for events of a client, made of the fields of a frontend.
macro_rules! context {
    ($this:ident, $output:expr, $now:expr, $links:ident, $net:ident) => {
        Context { config: &$this.config, now: $now, output: $output, exchanges: &mut $this.exchanges, up: &mut $links }
    };
}

macro_rules! links {
    ($this:ident, $net:ident) => {
        Links {
            part: $this.part,
            name: &$this.name,
            peers: &$this.peers,
            grants: &mut $this.grants,
            is_connected: $this.is_connected,
            net: $net,
            writer: Writer::new(1024),
        }
    };
}

impl Frontend {
    /// A frontend without clients. One that is not `able` hears servers by PUB and keeps nothing for them.
    pub fn new(part: Part, name: &[u8], able: bool, strict: bool, now: Instant) -> Self {
        let config = Config { window: WINDOW, recover_wait: RECOVER_WAIT, router_resp: able, ..Config::default() };
        let departures = Departures::new(config.recover_wait, now);
        Frontend {
            part,
            name: name.to_vec(),
            peers: Peers::default(),
            exchanges: Exchanges::for_clients(100).replaying(REPLAY),
            config,
            conns: BTreeMap::new(),
            ended: BTreeMap::new(),
            grants: Bulk::default(),
            owing: Vec::new(),
            grants_due: None,
            departures,
            is_connected: true,
            late: BTreeSet::new(),
            strict,
        }
    }

    /// Sessions that there are.
    pub fn sessions(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether a client was closed because a deadline had passed.
    pub fn is_late(&self, client: u32) -> bool {
        self.late.contains(&client)
    }

    /// A client connects.
    pub fn accept(&mut self, client: u32, now: Instant) {
        let conn = Conn {
            http: Http1::new(client, None),
            output: Output::default(),
            pacing: Pacing::new(now),
            incoming: VecDeque::new(),
            socket: Socket::default(),
            left: false,
        };
        self.conns.insert(client, conn);
    }

    /// A client sends.
    pub fn push(&mut self, client: u32, bytes: &[u8], now: Instant, net: &mut Net) {
        if let Some(conn) = self.conns.get_mut(&client) {
            conn.incoming.extend(bytes);
        }
        self.attend_to(client, now, net);
    }

    /// A client reads; says how its connection is, too.
    pub fn pull(&mut self, client: u32, most: usize, now: Instant, net: &mut Net) -> (Vec<u8>, Connection) {
        if let Some((connection, rest)) = self.ended.get_mut(&client) {
            let bytes: Vec<u8> = rest.drain(..most.min(rest.len())).collect();
            let connection = if rest.is_empty() { *connection } else { Connection::Open };
            if connection != Connection::Open {
                self.ended.remove(&client);
            }
            return (bytes, connection);
        }
        let Some(conn) = self.conns.get_mut(&client) else { return (Vec::new(), Connection::Reset) };
        let count = most.min(conn.socket.0.len());
        let bytes = conn.socket.0.drain(..count).collect();
        self.attend_to(client, now, net);
        (bytes, Connection::Open)
    }

    /// A client goes.
    pub fn hang_up(&mut self, client: u32, now: Instant, net: &mut Net) {
        self.ended.remove(&client);
        if let Some(conn) = self.conns.get_mut(&client) {
            (conn.left, conn.pacing.ended) = (true, true);
        }
        self.attend_to(client, now, net);
        // Nobody looks at how it ends.
        self.ended.remove(&client);
    }

    /// Reads, writes, and decides how it goes on with a client.
    fn attend_to(&mut self, client: u32, now: Instant, net: &mut Net) {
        loop {
            let Some(conn) = self.conns.get_mut(&client) else { return };
            let mut links = links!(self, net);
            let before = (conn.incoming.len(), conn.output.len());
            if !conn.output.is_empty() && !conn.left {
                let written = conn.output.write_to(&mut conn.socket).expect("a client's socket does not fail");
                conn.pacing.on_write(written, conn.output.len(), now);
                let owed = conn.http.on_written(written, &mut context!(self, &mut conn.output, now, links, net));
                if owed == Owed::Later
                    && let Some(exchange) = conn.http.exchange().and_then(|slot| self.exchanges.get(slot))
                {
                    self.owing.push((exchange.slot(), exchange.serial()));
                    self.grants_due.get_or_insert(now + GRANT_DELAY);
                }
                conn.http.go_on(&mut context!(self, &mut conn.output, now, links, net));
            }
            let stage = conn.http.stage(conn.output.len(), &self.exchanges, self.config.low_water());
            match conn.pacing.reading(stage, conn.http.buffered(), self.config.head.head_bytes) {
                Reading::Take(most) if !conn.incoming.is_empty() => {
                    let bytes: Vec<u8> = conn.incoming.drain(..most.min(conn.incoming.len())).collect();
                    conn.pacing.on_read(now);
                    conn.http.on_input(&bytes, &mut context!(self, &mut conn.output, now, links, net));
                }
                Reading::Take(_) if conn.left && !conn.pacing.drained => {
                    conn.pacing.drained = true;
                    conn.http.on_end(&mut context!(self, &mut conn.output, now, links, net));
                }
                Reading::Discard(_) => {
                    conn.incoming.clear();
                    conn.pacing.drained |= conn.left;
                }
                _ => {}
            }
            let mut stage = conn.http.stage(conn.output.len(), &self.exchanges, self.config.low_water());
            if conn.pacing.has_left(stage, conn.http.buffered(), self.config.head.head_bytes) || conn.left {
                conn.http.on_gone(&mut context!(self, &mut conn.output, now, links, net));
                stage = conn.http.stage(conn.output.len(), &self.exchanges, self.config.low_water());
            }
            conn.pacing.enter(stage, now);
            links.flush();
            // The window, the framing of its pieces, and a head or two.
            let most = 6 * WINDOW as usize + 1_000;
            assert!(conn.output.len() < most, "{} bytes wait for client {client}", conn.output.len());
            match conn.pacing.ending(stage, conn.output.len()) {
                Ending::GoOn => {}
                Ending::ShutDown => {
                    conn.pacing.on_shut_down(now);
                    return self.close(client, Connection::Closed);
                }
                Ending::Close => return self.close(client, Connection::Closed),
                Ending::Abort => return self.close(client, Connection::Reset),
            }
            if before == (conn.incoming.len(), conn.output.len()) {
                return;
            }
        }
    }

    fn close(&mut self, client: u32, how: Connection) {
        if let Some(conn) = self.conns.remove(&client) {
            let rest = if how == Connection::Reset { VecDeque::new() } else { conn.socket.0 };
            self.ended.insert(client, (how, rest));
        }
    }

    /// A packet of a server.
    pub fn on_packet(&mut self, lane: Lane, message: &[u8], now: Instant, net: &mut Net) {
        let packet = Packet::decode(message).expect("servers send packets");
        let from = self.peers.intern(packet.from);
        self.exchanges.note_run(&packet, from);
        if lane == Lane::Stream {
            from.into_iter().for_each(|from| self.departures.on_answer(from));
        }
        let body = SharedBody::new(packet.body);
        for (id, seq) in packet.ids.iter().map(|id| id.expect("servers send good ids")) {
            let mut links = links!(self, net);
            let Some(exchange) = self.exchanges.find(id) else {
                let ends = packet.kind.ends_session() || (packet.kind == Kind::Data && !packet.more);
                if let Some(from) = from.filter(|_| !ends) {
                    links.send(from, &Packet { ids: Ids::One(id, None), kind: Kind::Cancel, ..Packet::default() });
                }
                continue;
            };
            let slot = exchange.slot();
            let Some(client) = exchange.client() else {
                self.exchanges.on_unheard(slot, &packet, from, seq, now, &mut links);
                continue;
            };
            let Some(conn) = self.conns.get_mut(&client) else { continue };
            let cx = &mut context!(self, &mut conn.output, now, links, net);
            if let Err(fault) = conn.http.on_packet(&packet, &body, from, seq, cx) {
                // Two servers may both think that a session is theirs, when one was given up too early.
                assert!(!self.strict, "{} broke the rules: {fault}; {packet:?}", String::from_utf8_lossy(packet.from));
            }
            self.exchanges.keep(id, &packet, from, now);
            self.attend_to(client, now, net);
        }
    }

    /// A link to a server has ended.
    pub fn on_left(&mut self, name: &[u8], lane: Lane, now: Instant, net: &mut Net) {
        if lane == Lane::First {
            return self.on_requests_lost(now, net);
        }
        let Some(peer) = self.peers.intern(name) else { return };
        self.departures.on_left(peer, name, &mut self.exchanges, now);
    }

    /// The link to a proxy has ended by which requests go. What was sent by it was perhaps not read; what was not waits for the next.
    fn on_requests_lost(&mut self, now: Instant, net: &mut Net) {
        self.is_connected = false;
        for message in net.take_unsent(self.part, Part::Proxy, Lane::First) {
            let packet = Packet::decode(&message).expect("it is ours");
            let (id, _) = packet.ids.single().expect("a first packet has one id");
            let Some(slot) = self.exchanges.find(id).map(|exchange| exchange.slot()) else { continue };
            if !self.exchanges.take_back(slot, now, &mut links!(self, net)) {
                self.lose(slot, Some((503, "The servers of this request take no more.\n")), now, net);
            }
        }
        self.departures.on_requests_lost(&self.exchanges, now);
    }

    /// A proxy is there, and takes requests.
    pub fn on_proxy(&mut self, now: Instant, net: &mut Net) {
        self.is_connected = true;
        while self.exchanges.send_waiting(now, &mut links!(self, net)) {}
    }

    /// The server `from` asks for what its predecessor had.
    pub fn on_question(&mut self, from: &[u8], message: &[u8], now: Instant, net: &mut Net) {
        let from = self.peers.intern(from).expect("names are short");
        let place = offer::on_question(&mut self.exchanges, from, message).expect("servers ask what can be read");
        place.into_iter().for_each(|place| self.offer(place, from, now, net));
    }

    fn offer(&mut self, place: usize, to: PeerId, now: Instant, net: &mut Net) {
        let offer = offer::offer(&mut self.exchanges, place, to, now);
        // One that has gone meanwhile hears nothing.
        if let Some(part) = net.part(self.peers.name(to)) {
            offer.packets.into_iter().for_each(|packet| net.tell(self.part, part, packet));
        }
    }

    /// Ends sessions whose server is gone, or offers them to its successor.
    fn end_departed(&mut self, now: Instant, net: &mut Net) {
        while self.departures.next_due().is_some_and(|due| due <= now) {
            let conns = &self.conns;
            let nature = |exchange: &Exchange| {
                let conn = exchange.client().and_then(|client| conns.get(&client));
                conn.map_or(Nature::Request, |conn| conn.http.nature())
            };
            let step = self.departures.step(&mut self.exchanges, nature, now);
            step.ended.into_iter().for_each(|slot| self.lose(slot, Some((502, "The server is gone.\n")), now, net));
            for slot in step.again {
                self.exchanges.send_again(slot, now, &mut links!(self, net));
            }
            step.offer.into_iter().for_each(|(place, to)| self.offer(place, to, now, net));
        }
    }

    fn lose(&mut self, slot: u32, page: Option<(u16, &str)>, now: Instant, net: &mut Net) {
        let client = self.exchanges.get(slot).and_then(|exchange| exchange.client());
        self.exchanges.close(slot);
        let Some(conn) = client.and_then(|client| self.conns.get_mut(&client)) else { return };
        let mut links = links!(self, net);
        conn.http.on_lost(page, &mut context!(self, &mut conn.output, now, links, net));
        self.attend_to(client.unwrap_or_default(), now, net);
    }

    /// When something is due.
    pub fn next_due(&mut self) -> Option<Instant> {
        let slots: Vec<u32> = self.exchanges.iter_mut().map(|exchange| exchange.slot()).collect();
        let exchanges = slots.into_iter().filter_map(|slot| self.exchanges.next_due(slot));
        let clients =
            self.conns.values().filter_map(|conn| conn.pacing.due(&self.config.deadlines)).map(|(due, _)| due);
        let departures = self.departures.next_due().into_iter().chain(self.exchanges.next_given_up_at());
        exchanges.chain(clients).chain(departures).chain(self.grants_due).min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, net: &mut Net) {
        if self.grants_due.is_some_and(|due| due <= now) {
            self.grants_due = None;
            for (slot, serial) in std::mem::take(&mut self.owing) {
                let mut links = links!(self, net);
                if let Some(exchange) = self.exchanges.get_mut(slot).filter(|exchange| exchange.serial() == serial) {
                    exchange.grant(&mut links);
                }
                links.flush();
            }
        }
        let late: Vec<u32> = self
            .conns
            .iter()
            .filter_map(|(client, conn)| {
                conn.pacing.due(&self.config.deadlines).filter(|(due, _)| *due <= now).map(|_| *client)
            })
            .collect();
        for client in late {
            let Some(conn) = self.conns.get_mut(&client) else { continue };
            let mut links = links!(self, net);
            conn.http.on_gone(&mut context!(self, &mut conn.output, now, links, net));
            self.late.insert(client);
            self.close(client, Connection::Reset);
        }
        self.end_departed(now, net);
        while let Some(slot) = self.exchanges.next_given_up(now) {
            self.lose(slot, Some((502, "No proxy has come.\n")), now, net);
        }
        let slots: Vec<u32> = self.exchanges.iter_mut().map(|exchange| exchange.slot()).collect();
        let mut keep_alives = Bulk::default();
        for slot in slots {
            if self.exchanges.next_due(slot).is_none_or(|due| due > now) {
                continue;
            }
            let Some(exchange) = self.exchanges.get_mut(slot) else { continue };
            let over = exchange.on_timer(now, |to, id| keep_alives.push(to.to, (), id, to.seq)).err();
            match over {
                None => {}
                Some(Over::Expired) => self.lose(slot, None, now, net),
                Some(Over::Unwanted | Over::Unpushed) => {
                    let mut links = links!(self, net);
                    self.exchanges.cancel(slot, &mut links);
                }
            }
        }
        let mut links = links!(self, net);
        keep_alives.drain(|peer, (), ids| {
            links.send(peer, &Packet { ids, kind: Kind::KeepAlive, ..Packet::default() });
        });
    }
}
