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
use std::rc::Rc;
use std::time::Instant;

use mio::{Interest, Registry, Token};
use slab::Slab;
use transport::Waker;

use self::attempts::Attempts;
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
    /// Without connections. `waker` is used when a name has been looked up.
    pub(crate) fn new(waker: Waker, threads: usize, pool: Pool) -> Self {
        Connector { resolver: Resolver::new(waker, threads), connections: Slab::new(), pool }
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

    /// Begins to connect to the first address that lets us begin. Gives the connection and when to give up on it.
    ///
    /// # Errors
    /// No address is left, or no time.
    pub(crate) fn dial(
        &mut self,
        mut attempts: Attempts,
        endpoint: &Rc<Endpoint>,
        owner: usize,
        registry: &Registry,
        now: Instant,
    ) -> Result<(usize, Instant, Attempts), Failure> {
        while let Some((address, until)) = attempts.next(now) {
            let entry = self.connections.vacant_entry();
            let started = Connection::start(address, endpoint.clone(), owner).and_then(|mut connection| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(connection.stream.tcp_mut(), Token(entry.key()), interest)?;
                Ok(connection)
            });
            match started {
                Ok(connection) => {
                    let number = entry.key();
                    entry.insert(connection);
                    return Ok((number, until, attempts));
                }
                // Not the backend's fault: no descriptors or no ports left.
                Err(error) => attempts.failed(address, error),
            }
        }
        Err(attempts.failure())
    }

    /// The connection that is being made can not be made.
    pub(crate) fn refused(&mut self, number: usize, attempts: &mut Attempts, error: io::Error) {
        if let Some(connection) = self.connections.try_remove(number) {
            attempts.failed(connection.address, error);
        }
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
