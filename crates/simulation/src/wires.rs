// SPDX-License-Identifier: AGPL-3.0-or-later
//! The connections between the outbound process and its backend, as the system has them: bytes in both directions with bounds, and who
//! has closed. What has changed is told once, as by `epoll` with edges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes that the system keeps for a side that does not read.
const CAPACITY: usize = 1_500;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The outbound process has asked for it.
    Asked,
    Made,
    Refused,
}

/// What one side has done with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The other side gets what is on its way, and then the end.
    Closed,
    /// The other side gets what has come, and then an error.
    Broken,
}

/// What is news for the outbound process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// There may be something to read.
    pub readable: bool,
    /// There may be room.
    pub writable: bool,
    /// The backend has closed its side.
    pub ended: bool,
}

struct Wire {
    address: SocketAddr,
    stage: Stage,
    /// To the backend, and from it.
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    outbound: End,
    backend: End,
    edge: Edge,
    /// The outbound process has found no room.
    awaits_room: bool,
}

/// See the module. The outbound process knows a connection by its number, the backend by an id that is never used again.
#[derive(Default)]
pub struct Wires {
    wires: BTreeMap<u32, Wire>,
    numbers: BTreeMap<usize, u32>,
    next: u32,
    /// Who waits for the addresses of the backend.
    pub askers: BTreeSet<(usize, u64)>,
    questions: usize,
}

/// The backend's addresses.
pub fn addresses() -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into()]
}

// The outbound process.
impl Wires {
    /// Someone asks for the backend's addresses; whether they are known.
    pub fn look_up(&mut self, asker: (usize, u64)) -> bool {
        self.questions += 1;
        let is_known = !self.questions.is_multiple_of(3);
        if !is_known {
            self.askers.insert(asker);
        }
        is_known
    }

    /// Asks for a connection.
    pub fn connect(&mut self, number: usize, address: SocketAddr) {
        let wire = Wire {
            address,
            stage: Stage::Asked,
            up: VecDeque::new(),
            down: VecDeque::new(),
            outbound: End::Open,
            backend: End::Open,
            edge: Edge::default(),
            awaits_room: false,
        };
        let former = self.numbers.insert(number, self.next);
        assert!(former.is_none(), "the number of a connection is used twice");
        self.wires.insert(self.next, wire);
        self.next += 1;
    }

    /// Whether a connection is made; none if that is not decided.
    pub fn outcome(&mut self, number: usize) -> Option<io::Result<()>> {
        match self.by_number(number).stage {
            Stage::Asked => None,
            Stage::Made => Some(Ok(())),
            Stage::Refused => Some(Err(ErrorKind::ConnectionRefused.into())),
        }
    }

    /// Reads.
    pub fn receive(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = self.by_number(number);
        assert!(!buffer.is_empty(), "nothing is read into nothing");
        let count = wire.down.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(wire.down.drain(..count)) {
            *to = from;
        }
        match wire.backend {
            _ if count > 0 => Ok(count),
            End::Open => Err(ErrorKind::WouldBlock.into()),
            End::Closed => Ok(0),
            End::Broken => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    /// Writes.
    pub fn send(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        let wire = self.by_number(number);
        match wire.backend {
            End::Broken => return Err(ErrorKind::BrokenPipe.into()),
            // Nobody takes it, and the system says so.
            End::Closed => {
                wire.backend = End::Broken;
                wire.edge = Edge { readable: true, writable: true, ended: true };
                return Ok(bytes.len());
            }
            End::Open => {}
        }
        let count = (CAPACITY - wire.up.len()).min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            wire.awaits_room = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        wire.up.extend(&bytes[..count]);
        Ok(count)
    }

    /// Whether nothing has come, and it is open.
    pub fn is_quiet(&mut self, number: usize) -> bool {
        let wire = self.by_number(number);
        wire.down.is_empty() && wire.backend == End::Open
    }

    /// Closes. `at_once`: what has not been read by the backend is lost.
    pub fn close(&mut self, number: usize, at_once: bool) {
        let id = self.numbers.remove(&number).expect("it closes what it has");
        let wire = self.wires.get_mut(&id).expect("every number has one");
        // The system breaks off as well what is closed with something unread.
        let breaks = at_once || !wire.down.is_empty();
        wire.outbound = if breaks { End::Broken } else { End::Closed };
        if breaks {
            wire.up.clear();
        }
        if wire.stage != Stage::Made || wire.backend != End::Open {
            self.wires.remove(&id);
        }
    }

    /// The outbound process dies.
    pub fn close_all(&mut self) {
        self.askers.clear();
        let numbers: Vec<usize> = self.numbers.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.close(number, false));
    }

    /// Connections of which something is news.
    pub fn news(&self) -> Vec<usize> {
        let is_news = |id: &u32| self.wires.get(id).is_some_and(|wire| wire.edge != Edge::default());
        self.numbers.iter().filter(|(_, id)| is_news(id)).map(|(number, _)| *number).collect()
    }

    /// Takes the news of one.
    pub fn take_news(&mut self, number: usize) -> Edge {
        std::mem::take(&mut self.by_number(number).edge)
    }

    fn by_number(&mut self, number: usize) -> &mut Wire {
        let wire = self.numbers.get(&number).and_then(|id| self.wires.get_mut(id));
        wire.expect("the outbound process uses connections that it has")
    }
}

// The backend.
impl Wires {
    /// All connections, by their ids.
    pub fn ids(&self) -> Vec<u32> {
        self.wires.keys().copied().collect()
    }

    /// Whether it is still to be accepted, and at which address.
    pub fn asks(&self, id: u32) -> Option<IpAddr> {
        let wire = self.wires.get(&id).filter(|wire| wire.stage == Stage::Asked)?;
        Some(wire.address.ip())
    }

    /// It is made.
    pub fn accept(&mut self, id: u32) {
        let wire = self.of(id);
        wire.stage = Stage::Made;
        wire.edge.writable = true;
    }

    /// It is refused.
    pub fn refuse(&mut self, id: u32) {
        let wire = self.of(id);
        (wire.stage, wire.backend) = (Stage::Refused, End::Broken);
        wire.edge = Edge { readable: true, writable: true, ended: true };
    }

    /// Bytes that have come.
    pub fn waiting(&self, id: u32) -> usize {
        self.wires.get(&id).map_or(0, |wire| wire.up.len())
    }

    /// Reads.
    pub fn read(&mut self, id: u32, most: usize) -> Vec<u8> {
        let Some(wire) = self.wires.get_mut(&id) else { return Vec::new() };
        let bytes: Vec<u8> = wire.up.drain(..most.min(wire.up.len())).collect();
        if !bytes.is_empty() && std::mem::take(&mut wire.awaits_room) {
            wire.edge.writable = true;
        }
        bytes
    }

    /// Whether the outbound process has closed it.
    pub fn is_left(&self, id: u32) -> bool {
        self.wires.get(&id).is_none_or(|wire| wire.outbound != End::Open)
    }

    /// Whether nothing will come any more.
    pub fn is_at_end(&self, id: u32) -> bool {
        self.wires.get(&id).is_none_or(|wire| wire.outbound != End::Open && wire.up.is_empty())
    }

    /// Bytes that may be written.
    pub fn room(&self, id: u32) -> usize {
        let open = self.wires.get(&id).filter(|wire| wire.outbound == End::Open && wire.backend == End::Open);
        open.map_or(0, |wire| CAPACITY - wire.down.len())
    }

    /// Writes; there is room.
    pub fn write(&mut self, id: u32, bytes: &[u8]) {
        let wire = self.of(id);
        wire.down.extend(bytes);
        wire.edge.readable = true;
    }

    /// Closes. `at_once`: it is broken off.
    pub fn hang_up(&mut self, id: u32, at_once: bool) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        // What has come and was not read breaks it off, too.
        let breaks = at_once || !wire.up.is_empty();
        wire.backend = if breaks { End::Broken } else { End::Closed };
        wire.edge = Edge { readable: true, writable: wire.edge.writable || breaks, ended: true };
        wire.up.clear();
        if wire.outbound != End::Open {
            self.wires.remove(&id);
        }
    }

    fn of(&mut self, id: u32) -> &mut Wire {
        self.wires.get_mut(&id).expect("the backend uses connections that are there")
    }
}
