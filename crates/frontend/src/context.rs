// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an event of one client is handled with.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::{Duration, Instant};

use wire::http1::Limits;

use crate::client::deadlines::Deadlines;
use crate::client::output::Output;
use crate::exchange::Exchanges;
use crate::uplink::Uplink;

/// What applies to every client of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits of request heads.
    pub head: Limits,
    /// Body bytes granted to the server of a session at once.
    pub window: u32,
    /// Servers are to answer through the ROUTER.
    pub router_resp: bool,
    /// WebSocket messages are compressed for clients that offer it.
    pub compression: bool,
    /// Bytes that a client's WebSocket message may have.
    pub max_message: u64,
    /// How long sessions whose server has ended wait for its successor.
    pub recover_wait: Duration,
    /// Bytes that may be kept of their WebSockets.
    pub recover_memory: usize,
    /// How long clients may take.
    pub deadlines: Deadlines,
}

/// Answers come through the PUB socket, messages are not compressed and have any length, and nobody waits for a successor.
impl Default for Config {
    fn default() -> Self {
        Config {
            head: Limits::default(),
            window: 8192,
            router_resp: false,
            compression: false,
            max_message: u64::MAX,
            recover_wait: Duration::ZERO,
            recover_memory: usize::MAX,
            deadlines: Deadlines::default(),
        }
    }
}

impl Config {
    /// Unsent bytes of a client below which its next request may begin.
    pub fn low_water(&self) -> usize {
        self.window as usize / 2
    }
}

/// One event's surroundings: settings, time, the client's output, and the way to the servers.
pub struct Context<'a> {
    /// Settings.
    pub config: &'a Config,
    /// The time of the event.
    pub now: Instant,
    /// What the client is to get.
    pub output: &'a mut Output,
    /// All exchanges.
    pub exchanges: &'a mut Exchanges,
    /// Where packets go.
    pub up: &'a mut dyn Uplink,
}
