// SPDX-License-Identifier: AGPL-3.0-or-later
//! One client: its transport, its protocol, what it is to get, and how long it may take.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod deadlines;
pub mod io;
pub mod output;
pub mod pacing;
pub mod stream;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use wire::proxied;

use self::io::Io;
use self::output::Output;
use self::pacing::{Pacing, Reading, Stage};
use self::stream::Stream;
use crate::context::Config;
use crate::exchange::Exchanges;
use crate::http1::Http1;
use crate::transplant::record::{ClientRecord, RecordError};

/// Bytes that a client which moves to another process may have left unread.
const MAX_MOVED: usize = 256 * 1024;

/// A client connection.
pub struct Client {
    /// Its transport.
    pub io: Io,
    /// Its protocol.
    pub http: Http1,
    /// What it is to get.
    pub output: Output,
    /// What it has been through.
    pub pacing: Pacing,
    /// The transport may have more to read than was read.
    pub readable: bool,
    /// The transport takes more.
    pub writable: bool,
    /// Queued to be read from.
    pub unread: bool,
    /// Queued to be written to.
    pub dirty: bool,
}

impl Client {
    /// Just accepted, in this slot of the worker's table.
    pub fn new(io: Io, slot: u32, address: Option<SocketAddr>, now: Instant) -> Self {
        Client {
            http: Http1::new(slot, address).over_tls(io.is_tls()),
            io,
            output: Output::default(),
            pacing: Pacing::new(now),
            readable: false,
            writable: true,
            unread: false,
            dirty: false,
        }
    }

    /// Writes it down for another process, which gets its socket; none if it has to stay: because of its protocol, or because
    /// of how much it has not taken.
    pub(crate) fn snapshot(&self, slot: u32, now: Instant) -> Option<ClientRecord> {
        let stream = self.io.plain()?;
        if self.output.len() > MAX_MOVED {
            return None;
        }
        let (http, pacing) = (self.http.snapshot()?, self.pacing.snapshot(now)?);
        let output = self.output.slices().flatten().copied().collect();
        Some(ClientRecord { slot, local: stream.is_local(), http, output, pacing })
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// The record does not fit together.
    pub(crate) fn restore(
        record: ClientRecord,
        file: OwnedFd,
        config: &Config,
        now: Instant,
    ) -> Result<Self, RecordError> {
        let mut output = Output::default();
        output.push(record.output);
        Ok(Client {
            io: Io::Plain(Stream::taken_over(file, record.local)),
            http: Http1::restore(record.slot, record.http, config.max_message)?,
            output,
            pacing: Pacing::restore(&record.pacing, now),
            // What has come meanwhile is reported when it is watched.
            readable: false,
            writable: true,
            unread: false,
            dirty: false,
        })
    }

    /// The same, of whom a proxy is going to say who it is.
    pub fn proxied(mut self, proxied: bool) -> Self {
        self.pacing.unintroduced = proxied;
        self
    }

    /// A proxy has said who it is.
    pub fn introduce(&mut self, client: proxied::Client) {
        self.pacing.unintroduced = false;
        match client {
            proxied::Client::At(address) => self.http.set_address(Some(address)),
            proxied::Client::Unix => self.http.set_address(None),
            proxied::Client::Unsaid => {}
        }
    }

    /// Bytes that it is to get, or at least whether there are any: those that TLS has are not counted.
    pub fn unsent(&self) -> usize {
        self.output.len() + usize::from(self.io.is_unsent())
    }

    /// Where its protocol stands.
    pub fn stage(&self, exchanges: &Exchanges, config: &Config) -> Stage {
        self.http.stage(self.output.len(), exchanges, config.low_water())
    }

    /// What to do with the bytes it sends.
    pub fn reading(&self, stage: Stage, config: &Config) -> Reading {
        self.pacing.reading(stage, self.http.buffered(), config.head.head_bytes)
    }

    /// Whether it is gone, though not all that it sent was read.
    pub fn has_left(&self, stage: Stage, config: &Config) -> bool {
        self.pacing.has_left(stage, self.http.buffered(), config.head.head_bytes)
    }
}
