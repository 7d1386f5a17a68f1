// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests to backends: what packets of requesters, connections and time lead to. No sockets, no clock, no log.
//!
//! Each event is dealt with to the end before the next, so that a small request is written, and a small response sent back, the moment
//! it is there.
//!
//! - `sessions`: packets from requesters, and who these are (`requesters`).
//! - `connecting`: from a new exchange to its connection; `connections`: all of these.
//! - `transfer`: bytes between connection and requester; `ending`: the end of an exchange.
//! - `frames`: the same for WebSockets; `adopting`: those whose proxy has gone.
//! - `deadlines`: what time does.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

mod adopting;
mod connecting;
mod connections;
mod counters;
mod deadlines;
mod ending;
mod frames;
mod requesters;
mod sessions;
mod transfer;

use std::collections::{HashMap, VecDeque};
use std::hash::DefaultHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use slab::Slab;
use wire::http1;
use zhttp::{Id, PeerId, Wheel};

use self::adopting::Adoptions;
use self::connections::Connections;
pub use self::counters::Counters;
use self::requesters::{Group, Requesters};
use crate::connect::pool::{Pool, PoolLimits};
use crate::context::Context;
use crate::http1::exchange::{Exchange, Timeouts};

/// WebSockets by the names by which they may be claimed.
type Names = HashMap<Box<[u8]>, usize, RandomState>;

/// Body bytes of one request that may be under way from the requester and waiting here. More than the 200,000 that Pushpin's
/// proxy takes from a client ahead, and no sum of usual sizes: the proxy of 1.36 never goes on with a WebSocket whose credits
/// it has used up to the byte.
pub const WINDOW: u32 = 250_007;
/// Room in the buffer for what comes with the end of the largest head.
const BEYOND_HEAD: usize = 65_536;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Exchanges at a time.
    pub exchanges: usize,
    /// Body bytes of one request that are granted ahead.
    pub window: u32,
    /// Addresses of one backend that are connected to at a time.
    pub connect_attempts: usize,
    /// Of a response's head.
    pub head: http1::Limits,
    /// How long a backend may take.
    pub timeouts: Timeouts,
    /// Connections that wait for their next request.
    pub pool: PoolLimits,
    /// How long WebSockets wait for a successor of their proxy; zero: they end with it.
    pub recover_wait: Duration,
    /// Bytes of them that are kept for it.
    pub recover_memory: usize,
}

/// All requests under way.
pub struct Engine {
    limits: Limits,
    requesters: Requesters,
    counters: Counters,
    exchanges: Slab<Exchange>,
    /// Exchanges by requester and id.
    sessions: HashMap<(PeerId, Id), usize, RandomState>,
    adoptions: Adoptions,
    connections: Connections,
    serials: u64,
    keys: frames::Keys,
    /// Exchanges younger than `ACK_DELAY`, in order. Most are over by then, and never meet the wheel.
    young: VecDeque<(usize, u64, Instant)>,
    /// WebSockets whose requester is owed credits, by when they are due.
    owing: VecDeque<(usize, u64, Instant)>,
    wheel: Wheel<(usize, u64, Instant)>,
    keep_alives: Group,
    /// Exchanges whose connection has more than one turn's share to read.
    unread: Vec<(usize, u64)>,
    next_sweep: Instant,
    /// All reads share it, heads included.
    buffer: Vec<u8>,
    joined: Vec<u8>,
    /// Content whose coding has been taken off.
    unpacked: Vec<u8>,
}

impl Engine {
    /// An engine with nothing to do; `instance` is what requesters call it.
    pub fn new(instance: &str, limits: Limits, now: Instant) -> Self {
        Engine {
            limits,
            requesters: Requesters::new(instance),
            counters: Counters::default(),
            exchanges: Slab::new(),
            sessions: HashMap::default(),
            adoptions: Adoptions::new(&limits),
            connections: Connections::new(Pool::new(limits.pool)),
            serials: 0,
            keys: frames::Keys::default(),
            young: VecDeque::new(),
            owing: VecDeque::new(),
            wheel: Wheel::new(deadlines::TICK, now),
            keep_alives: Group::default(),
            unread: Vec::new(),
            next_sweep: now,
            buffer: vec![0; limits.head.head_bytes + BEYOND_HEAD],
            joined: Vec::new(),
            unpacked: Vec::new(),
        }
    }

    /// Has keys of handshakes and masks follow from `keys`, for runs that can be repeated.
    pub fn key_by(&mut self, keys: DefaultHasher) {
        self.keys = frames::Keys::of(keys);
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Connections to backends, and how many of them wait for their next request.
    pub fn connections(&self) -> (usize, usize) {
        (self.connections.len(), self.connections.idle())
    }

    /// Bytes that connections to backends have not taken.
    pub fn unsent(&self) -> usize {
        let socket = |exchange: &Exchange| exchange.socket.as_ref().map_or(0, |socket| socket.pending().len());
        self.exchanges.iter().map(|(_, exchange)| exchange.upload.pending().len() + socket(exchange)).sum()
    }

    /// Bytes of WebSockets that are kept for a successor of their proxy.
    pub fn kept_bytes(&self) -> usize {
        self.adoptions.bytes()
    }

    /// What has happened.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether connections have more to read than their share of a turn, so that [`go_on`](Self::go_on) has something to do.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Reads on where a turn was not enough.
    pub fn go_on(&mut self, cx: &mut Context<'_>) {
        for (index, serial) in std::mem::take(&mut self.unread) {
            if self.exchanges.get(index).is_some_and(|exchange| exchange.serial == serial) {
                self.advance(index, cx);
            }
        }
    }
}
