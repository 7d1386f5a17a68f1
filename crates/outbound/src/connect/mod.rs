// SPDX-License-Identifier: AGPL-3.0-or-later
//! From a request's URI to a connection: where it leads ([`target`]), which addresses that is ([`resolve`]) and whether they
//! may be reached ([`policy`]), a connection that waits there already ([`pool`]) or a new one ([`attempts`]).

pub mod attempts;
pub(crate) mod connection;
pub mod lookups;
pub mod policy;
pub mod pool;
pub mod resolve;
pub mod target;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use mio::{Interest, Registry, Token};
use slab::Slab;

use self::attempts::{Attempts, Step};
use self::connection::Connection;
use self::policy::is_internal;
use self::pool::Pool;
use self::resolve::Resolver;
use self::target::Endpoint;
use crate::failure::Failure;

/// All connections to backends: those in use, those that are being made, and those that wait for their next request.
pub(crate) struct Connector {
    pub(crate) resolver: Resolver,
    connections: Slab<Connection>,
    pool: Pool,
}

impl Connector {
    /// Without connections.
    pub(crate) fn new(resolver: Resolver, pool: Pool) -> Self {
        Connector { resolver, connections: Slab::new(), pool }
    }

    /// A connection that waits for its next request. `trusted`: it may lead to an internal address.
    pub(crate) fn reuse(&mut self, endpoint: &Endpoint, trusted: bool, owner: usize) -> Option<usize> {
        loop {
            let connections = &self.connections;
            let usable = |connection: usize| {
                trusted || connections.get(connection).is_some_and(|c| !is_internal(c.address.ip()))
            };
            let number = self.pool.take(endpoint, usable)?;
            let Some(connection) = self.connections.get_mut(number) else { continue };
            if connection.is_quiet() {
                connection.owner = Some(owner);
                connection.writable = true;
                return Some(number);
            }
            self.close(number);
        }
    }

    /// Takes the next steps of an exchange's attempts; `false` if it has come to the end of them. Counts those that are
    /// begun beside another in `raced`.
    pub(crate) fn dial(
        &mut self,
        attempts: &mut Attempts,
        endpoint: &Rc<Endpoint>,
        owner: usize,
        registry: &Registry,
        raced: &mut u64,
        now: Instant,
    ) -> bool {
        loop {
            match attempts.step(now) {
                Step::Dial(attempt) => match self.start(attempt.address, endpoint, owner, registry) {
                    Ok(number) => {
                        *raced += u64::from(attempts.running().next().is_some());
                        attempts.started(number, attempt);
                    }
                    // Not the backend's fault: no descriptors or no ports left, or no way to this family.
                    Err(error) => attempts.failed(Failure::Connect { address: attempt.address, error }, now),
                },
                Step::GiveUp(number) => drop(self.connections.try_remove(number)),
                Step::Wait => return true,
                Step::Over => return false,
            }
        }
    }

    fn start(
        &mut self,
        address: SocketAddr,
        endpoint: &Rc<Endpoint>,
        owner: usize,
        registry: &Registry,
    ) -> io::Result<usize> {
        let entry = self.connections.vacant_entry();
        let mut connection = Connection::start(address, endpoint.clone(), owner)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(connection.stream.tcp_mut(), Token(entry.key()), interest)?;
        let number = entry.key();
        entry.insert(connection);
        Ok(number)
    }

    /// How many connections there are, of every kind.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        self.connections.len()
    }

    /// A connection that is there.
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.get_mut(number)
    }

    /// The connection of an exchange.
    pub(crate) fn of(&mut self, number: usize) -> &mut Connection {
        &mut self.connections[number]
    }

    /// Keeps a connection for its next request, if there is room.
    pub(crate) fn keep(&mut self, number: usize, now: Instant) {
        let connection = &mut self.connections[number];
        connection.owner = None;
        connection.readable = false;
        if let Some(superfluous) = self.pool.put(&connection.endpoint, number, now) {
            self.close(superfluous);
        }
    }

    /// Closes a connection, and takes it out of the pool if it waits there.
    pub(crate) fn close(&mut self, number: usize) {
        let Some(connection) = self.connections.try_remove(number) else { return };
        if connection.owner.is_none() {
            self.pool.remove(&connection.endpoint, number);
        }
    }

    /// Closes connections that have waited too long. Call now and then.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let connections = &mut self.connections;
        self.pool.expire(now, |connection| drop(connections.try_remove(connection)));
    }

    /// Whether connections wait, so that [`sweep`](Self::sweep) has something to do.
    pub(crate) fn has_idle(&self) -> bool {
        !self.pool.is_empty()
    }
}
