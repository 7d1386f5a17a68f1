// SPDX-License-Identifier: AGPL-3.0-or-later
//! All WebSockets, and when they are to be looked at.

use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use rpc::ws_control::Item;
use zhttp::{PeerId, Wheel};

use super::cid::Cid;
use super::kind::{Kind, Kinds};
use super::session::{Lane, Socket};
use crate::subscribe::channels::{HoldKey, SocketKey};
use crate::subscribe::classes::Standings;
use crate::tables::{Numbers, Table};

/// How exact timeouts are.
const TICK: Duration = Duration::from_millis(50);

/// See the module.
pub struct Sockets {
    sockets: Table<Socket>,
    /// Proxies choose ids, but not all of them are ours, hence the standard library's keyed hash.
    by_cid: Numbers<std::hash::RandomState>,
    kinds: Kinds,
    births: u64,
    lanes: usize,
    wheel: Wheel<(SocketKey, u32)>,
    /// The number of the last note in the wheel. It comes round only long after that has.
    note: u32,
    /// What filters look at.
    pub standings: Standings,
    /// The proxy that has said what they have had.
    pub proxy: Option<PeerId>,
}

impl Sockets {
    /// None.
    pub fn new(now: Instant) -> Self {
        Sockets {
            sockets: Table::default(),
            by_cid: Numbers::default(),
            kinds: Kinds::default(),
            births: 0,
            lanes: 0,
            wheel: Wheel::new(TICK, now),
            note: 0,
            standings: Standings::default(),
            proxy: None,
        }
    }

    /// A number that neither a WebSocket nor a subscription of one has had.
    pub fn next_birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }

    /// Adds one.
    pub fn insert(&mut self, cid: Cid, now: Instant) -> SocketKey {
        let birth = self.next_birth();
        let key = self.sockets.insert(Socket::new(cid.clone(), birth, now));
        self.by_cid.insert(&cid, key, |other| self.sockets[other].cid.clone());
        key
    }

    /// Takes in what the proxy says of one (`here`); more than once if the proxy is not sure that it was heard.
    pub fn introduce(&mut self, key: SocketKey, item: &Item<'_>, now: Instant) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let kind = self.kinds.share(Kind::new(item, &socket.kind));
        let former = std::mem::replace(&mut socket.kind, kind);
        self.kinds.release(&former);
        socket.introduce(item, now);
    }

    /// Removes one.
    pub fn remove(&mut self, key: SocketKey) -> Option<Socket> {
        let socket = self.sockets.remove(key)?;
        self.by_cid.remove(&socket.cid, key);
        self.lanes -= usize::from(socket.lane.opened().is_some());
        self.kinds.release(&socket.kind);
        Some(socket)
    }

    /// One is pushed into from now on.
    pub fn open_lane(&mut self, key: SocketKey, hold: HoldKey) {
        self.lanes += 1;
        self.sockets[key].lane = Lane::Open(hold);
    }

    /// How many are pushed into.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The one with this id.
    pub fn find(&self, cid: &Cid) -> Option<SocketKey> {
        self.by_cid.find(cid, |key| self.sockets[key].cid == *cid)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().map(|(_, socket)| socket)
    }

    /// One that may be gone.
    pub fn get_mut(&mut self, key: SocketKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key)
    }

    /// Whether the one with this birth is still at this index.
    pub fn is_there(&self, key: SocketKey, birth: u64) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.birth == birth)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Notes when one is to be looked at, if that is earlier than was noted before, or `anew`.
    pub fn watch(&mut self, key: SocketKey, anew: bool) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let due = socket.next_due();
        if anew || due < socket.watched {
            self.note = self.note.wrapping_add(1);
            (socket.watched, socket.note) = (due, self.note);
            self.wheel.insert((key, socket.note), due);
        }
    }

    /// The next one that is to be looked at.
    pub fn pop(&mut self, now: Instant) -> Option<SocketKey> {
        while let Some((key, note)) = self.wheel.pop(now) {
            if self.sockets.get(key).is_some_and(|socket| socket.note == note) {
                return Some(key);
            }
        }
        None
    }

    /// When that is.
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next()
    }
}

impl Index<SocketKey> for Sockets {
    type Output = Socket;

    /// # Panics
    /// There is no such WebSocket. The lists of channels have only those that are there.
    fn index(&self, key: SocketKey) -> &Socket {
        &self.sockets[key]
    }
}

impl IndexMut<SocketKey> for Sockets {
    fn index_mut(&mut self, key: SocketKey) -> &mut Socket {
        &mut self.sockets[key]
    }
}
