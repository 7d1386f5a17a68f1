// SPDX-License-Identifier: AGPL-3.0-or-later
//! All connections to backends: those in use, those that are being made, and those that wait for their next request. The sockets are
//! behind [`Actions`](crate::context::Actions), under the same numbers.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use slab::Slab;

use crate::connect::attempts::{Attempts, Step};
use crate::connect::policy::is_internal;
use crate::connect::pool::Pool;
use crate::connect::target::Endpoint;
use crate::context::Context;
use crate::failure::Failure;

/// What is known about a connection. It has no buffers of its own.
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    pub(super) endpoint: Rc<Endpoint>,
    /// The exchange that uses it; none if it is idle.
    pub(super) owner: Option<usize>,
    /// There may be something to read. The system says so once; then it is on us to read until nothing is left.
    pub(super) readable: bool,
    /// The backend has closed its side; what it sent before may not have been read.
    pub(super) ended: bool,
    /// It may take bytes.
    pub(super) writable: bool,
}

/// See the module.
pub(super) struct Connections {
    connections: Slab<Connection>,
    pool: Pool,
}

impl Connections {
    /// None yet.
    pub(super) fn new(pool: Pool) -> Self {
        Connections { connections: Slab::new(), pool }
    }

    /// A connection that waits for its next request. `trusted`: it may lead to an internal address.
    pub(super) fn reuse(
        &mut self,
        endpoint: &Endpoint,
        trusted: bool,
        owner: usize,
        cx: &mut Context<'_>,
    ) -> Option<usize> {
        loop {
            let connections = &self.connections;
            let usable = |connection: usize| {
                trusted || connections.get(connection).is_some_and(|c| !is_internal(c.address.ip()))
            };
            let number = self.pool.take(endpoint, usable)?;
            let Some(connection) = self.connections.get_mut(number) else { continue };
            if cx.actions.is_quiet(number) {
                connection.owner = Some(owner);
                connection.writable = true;
                return Some(number);
            }
            self.close(number, cx);
        }
    }

    /// Takes the next steps of an exchange's attempts; `false` if it has come to the end of them. Counts those that are
    /// begun beside another in `raced`.
    pub(super) fn dial(
        &mut self,
        attempts: &mut Attempts,
        endpoint: &Rc<Endpoint>,
        owner: usize,
        raced: &mut u64,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            match attempts.step(cx.now) {
                Step::Dial(attempt) => match self.start(attempt.address, endpoint, owner, cx) {
                    Ok(number) => {
                        *raced += u64::from(attempts.running().next().is_some());
                        attempts.started(number, attempt);
                    }
                    // Not the backend's fault: no descriptors or no ports left, or no way to this family.
                    Err(error) => attempts.failed(Failure::Connect { address: attempt.address, error }, cx.now),
                },
                Step::GiveUp(number) => self.close(number, cx),
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
        cx: &mut Context<'_>,
    ) -> io::Result<usize> {
        let entry = self.connections.vacant_entry();
        let number = entry.key();
        cx.actions.connect(number, address, endpoint)?;
        let (owner, endpoint) = (Some(owner), endpoint.clone());
        entry.insert(Connection { address, endpoint, owner, readable: false, ended: false, writable: false });
        Ok(number)
    }

    /// How many connections there are, of every kind.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// How many of them wait for their next request.
    pub(super) fn idle(&self) -> usize {
        self.pool.len()
    }

    /// A connection that is there.
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.get_mut(number)
    }

    /// The connection of an exchange.
    pub(super) fn of(&mut self, number: usize) -> &mut Connection {
        &mut self.connections[number]
    }

    /// Keeps a connection for its next request, if there is room.
    pub(super) fn keep(&mut self, number: usize, cx: &mut Context<'_>) {
        let connection = &mut self.connections[number];
        connection.owner = None;
        connection.readable = false;
        if let Some(superfluous) = self.pool.put(&connection.endpoint, number, cx.now) {
            self.close(superfluous, cx);
        }
    }

    /// Closes a connection, and takes it out of the pool if it waits there.
    pub(super) fn close(&mut self, number: usize, cx: &mut Context<'_>) {
        self.close_as(number, false, cx);
    }

    /// Breaks a connection off. Otherwise its end would wait behind bytes that a backend which does not read has not taken.
    pub(super) fn break_off(&mut self, number: usize, cx: &mut Context<'_>) {
        self.close_as(number, true, cx);
    }

    fn close_as(&mut self, number: usize, at_once: bool, cx: &mut Context<'_>) {
        let Some(connection) = self.connections.try_remove(number) else { return };
        cx.actions.close(number, at_once);
        if connection.owner.is_none() {
            self.pool.remove(&connection.endpoint, number);
        }
    }

    /// Closes connections that have waited too long. Call now and then.
    pub(super) fn sweep(&mut self, cx: &mut Context<'_>) {
        let connections = &mut self.connections;
        self.pool.expire(cx.now, |connection| {
            if connections.try_remove(connection).is_some() {
                cx.actions.close(connection, false);
            }
        });
    }
}

impl Connection {
    /// Reads once, and notes whether more may be there.
    pub(super) fn read(&mut self, number: usize, buffer: &mut [u8], cx: &mut Context<'_>) -> io::Result<usize> {
        let result = cx.actions.read(number, buffer);
        match &result {
            // Less than asked for is all there is. The end has an edge of its own, unless it came with this one. TLS gives one
            // record at a time.
            Ok(bytes) => self.readable = *bytes == buffer.len() || self.ended || self.is_tls(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {}
        }
        result
    }

    /// Writes what TLS has kept back. What is wrong with the connection is noticed when it is read from.
    pub(super) fn flush(&mut self, number: usize, cx: &mut Context<'_>) {
        if self.writable
            && self.is_tls()
            && cx.actions.flush(number).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        {
            self.writable = false;
        }
    }

    fn is_tls(&self) -> bool {
        self.endpoint.tls.is_some()
    }
}
