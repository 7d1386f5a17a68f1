// SPDX-License-Identifier: AGPL-3.0-or-later
//! From a new exchange to its connection.

use super::Worker;
use crate::connect::attempts::Attempts;
use crate::connect::resolve::{Addresses, Lookup};
use crate::failure::Failure;
use crate::http1::exchange::{Exchange, Phase};

impl Worker {
    /// Finds a connection for an exchange, or begins to make one.
    pub(super) fn connect(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        // A request whose body is still to come can not be sent again if the connection turns out to be dead.
        if exchange.upload.is_whole()
            && exchange.socket.is_none()
            && let Some(connection) = self.connector.reuse(&exchange.endpoint, exchange.trusted, index)
        {
            self.context.counters.reused += 1;
            exchange.phase = Phase::Open { connection, reused: true };
            return self.advance(index);
        }
        self.resolve(index);
    }

    fn resolve(&mut self, index: usize) {
        let now = self.context.now;
        let exchange = &mut self.exchanges[index];
        exchange.begin_connecting(now);
        match self.connector.resolver.look_up(&exchange.endpoint.host, (index, exchange.serial), now) {
            Lookup::Known(addresses) => self.dial_first(index, &addresses),
            Lookup::Asked => self.watch_again(index),
            Lookup::Busy => {
                self.context.counters.lookups_refused += 1;
                self.fail(index, &Failure::LookupsBusy);
            }
        }
    }

    /// Answers of the resolver.
    pub(super) fn take_answers(&mut self) {
        while let Some((addresses, askers)) = self.connector.resolver.answered(self.context.now) {
            for (index, serial) in askers {
                let asked = |exchange: &Exchange| {
                    exchange.serial == serial && matches!(exchange.phase, Phase::Resolving { .. })
                };
                if self.exchanges.get(index).is_some_and(asked) {
                    self.dial_first(index, &addresses);
                }
            }
        }
    }

    fn dial_first(&mut self, index: usize, addresses: &Addresses) {
        let exchange = &mut self.exchanges[index];
        let Phase::Resolving { until } = exchange.phase else { return };
        let at_once = self.limits.connect_attempts;
        match Attempts::new(addresses, exchange.endpoint.port, exchange.trusted, at_once, until) {
            Ok(attempts) => {
                exchange.phase = Phase::Connecting(Box::new(attempts));
                if self.dial(index) {
                    self.watch_again(index);
                }
            }
            Err(failure) => self.fail(index, &failure),
        }
    }

    /// Goes on with the attempts of an exchange. `false` if the last one has failed, and the exchange with it.
    pub(super) fn dial(&mut self, index: usize) -> bool {
        let exchange = &mut self.exchanges[index];
        let (registry, now, raced) = (self.reactor.registry(), self.context.now, &mut self.context.counters.raced);
        let Phase::Connecting(attempts) = &mut exchange.phase else { return true };
        if self.connector.dial(attempts, &exchange.endpoint, index, registry, raced, now) {
            return true;
        }
        let over = Phase::Resolving { until: now };
        if let Phase::Connecting(attempts) = std::mem::replace(&mut exchange.phase, over) {
            self.fail(index, &attempts.failure());
        }
        false
    }

    /// One of the connections that are being made can not be made.
    fn connect_failed(&mut self, index: usize, number: usize, failure: Failure) {
        self.connector.close(number);
        if let Phase::Connecting(attempts) = &mut self.exchanges[index].phase {
            attempts.closed(number, failure, self.context.now);
        }
        if self.dial(index) {
            self.watch_again(index);
        }
    }

    /// A connection is made, so the others of its exchange are of no use.
    fn connected(&mut self, index: usize, number: usize) {
        self.context.counters.connected += 1;
        let open = Phase::Open { connection: number, reused: false };
        if let Phase::Connecting(attempts) = std::mem::replace(&mut self.exchanges[index].phase, open) {
            attempts.running().filter(|other| *other != number).for_each(|other| self.connector.close(other));
        }
    }

    /// A connection is ready for something.
    pub(super) fn on_ready(&mut self, number: usize, readable: bool, writable: bool, ended: bool) {
        let Some(connection) = self.connector.get_mut(number) else { return };
        let Some(index) = connection.owner else {
            // Nobody asked for anything, so what comes is the end, or nonsense.
            if readable && !connection.is_quiet() {
                self.connector.close(number);
            }
            return;
        };
        connection.readable |= readable;
        connection.ended |= ended;
        connection.writable |= writable;
        if matches!(self.exchanges[index].phase, Phase::Connecting(_)) {
            let address = connection.address;
            match connection.outcome() {
                None => return,
                Some(Err(error)) => return self.connect_failed(index, number, Failure::Connect { address, error }),
                Some(Ok(())) => match connection.stream.shake_hands() {
                    Ok(true) => {
                        // What the handshake has left unread or unwritten has no event of its own.
                        (connection.readable, connection.writable) = (true, true);
                        self.connected(index, number);
                    }
                    Ok(false) => return,
                    Err(error) => return self.connect_failed(index, number, Failure::Tls { address, error }),
                },
            }
        }
        self.advance(index);
    }

    /// Sends the request again, on a new connection.
    pub(super) fn repeat(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        tracing::debug!("connection to {} was closed while idle, trying again", exchange.endpoint);
        self.context.counters.repeated += 1;
        if let Some(number) = exchange.connection() {
            self.connector.close(number);
        }
        exchange.upload.rewind();
        self.resolve(index);
    }
}
