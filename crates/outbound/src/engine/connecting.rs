// SPDX-License-Identifier: AGPL-3.0-or-later
//! From a new exchange to its connection.

use super::Engine;
use crate::connect::attempts::Attempts;
use crate::connect::resolve::{Addresses, Asker, Lookup};
use crate::context::{Context, Note};
use crate::failure::Failure;
use crate::http1::exchange::{Exchange, Phase};

impl Engine {
    /// Finds a connection for an exchange, or begins to make one.
    pub(super) fn connect(&mut self, index: usize, cx: &mut Context<'_>) {
        let exchange = &mut self.exchanges[index];
        // A request whose body is still to come can not be sent again if the connection turns out to be dead.
        if exchange.upload.is_whole()
            && exchange.socket.is_none()
            && let Some(connection) = self.connections.reuse(&exchange.endpoint, exchange.trusted, index, cx)
        {
            self.counters.reused += 1;
            exchange.phase = Phase::Open { connection, reused: true };
            return self.advance(index, cx);
        }
        self.resolve(index, cx);
    }

    fn resolve(&mut self, index: usize, cx: &mut Context<'_>) {
        let now = cx.now;
        let exchange = &mut self.exchanges[index];
        exchange.begin_connecting(now);
        match cx.actions.look_up(&exchange.endpoint.host, (index, exchange.serial), now) {
            Lookup::Known(addresses) => self.dial_first(index, &addresses, cx),
            Lookup::Asked => self.watch_again(index),
            Lookup::Busy => {
                self.counters.lookups_refused += 1;
                self.fail(index, &Failure::LookupsBusy, cx);
            }
        }
    }

    /// A name has been looked up, for these.
    pub fn resolved(&mut self, addresses: &Addresses, askers: impl IntoIterator<Item = Asker>, cx: &mut Context<'_>) {
        for (index, serial) in askers {
            let asked =
                |exchange: &Exchange| exchange.serial == serial && matches!(exchange.phase, Phase::Resolving { .. });
            if self.exchanges.get(index).is_some_and(asked) {
                self.dial_first(index, addresses, cx);
            }
        }
    }

    fn dial_first(&mut self, index: usize, addresses: &Addresses, cx: &mut Context<'_>) {
        let exchange = &mut self.exchanges[index];
        let Phase::Resolving { until } = exchange.phase else { return };
        let at_once = self.limits.connect_attempts;
        match Attempts::new(addresses, exchange.endpoint.port, exchange.trusted, at_once, until) {
            Ok(attempts) => {
                exchange.phase = Phase::Connecting(Box::new(attempts));
                if self.dial(index, cx) {
                    self.watch_again(index);
                }
            }
            Err(failure) => self.fail(index, &failure, cx),
        }
    }

    /// Goes on with the attempts of an exchange. `false` if the last one has failed, and the exchange with it.
    pub(super) fn dial(&mut self, index: usize, cx: &mut Context<'_>) -> bool {
        let exchange = &mut self.exchanges[index];
        let raced = &mut self.counters.raced;
        let Phase::Connecting(attempts) = &mut exchange.phase else { return true };
        if self.connections.dial(attempts, &exchange.endpoint, index, raced, cx) {
            return true;
        }
        let over = Phase::Resolving { until: cx.now };
        if let Phase::Connecting(attempts) = std::mem::replace(&mut exchange.phase, over) {
            self.fail(index, &attempts.failure(), cx);
        }
        false
    }

    /// One of the connections that are being made can not be made.
    fn connect_failed(&mut self, index: usize, number: usize, failure: Failure, cx: &mut Context<'_>) {
        self.connections.close(number, cx);
        if let Phase::Connecting(attempts) = &mut self.exchanges[index].phase {
            attempts.closed(number, failure, cx.now);
        }
        if self.dial(index, cx) {
            self.watch_again(index);
        }
    }

    /// A connection is made, so the others of its exchange are of no use.
    fn connected(&mut self, index: usize, number: usize, cx: &mut Context<'_>) {
        self.counters.connected += 1;
        let open = Phase::Open { connection: number, reused: false };
        if let Phase::Connecting(attempts) = std::mem::replace(&mut self.exchanges[index].phase, open) {
            attempts.running().filter(|other| *other != number).for_each(|other| self.connections.close(other, cx));
        }
    }

    /// A connection is ready for something. `ended`: the backend has closed its side.
    pub fn on_ready(&mut self, number: usize, readable: bool, writable: bool, ended: bool, cx: &mut Context<'_>) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let Some(index) = connection.owner else {
            // Nobody asked for anything, so what comes is the end, or nonsense.
            if readable && !cx.actions.is_quiet(number) {
                self.connections.close(number, cx);
            }
            return;
        };
        connection.readable |= readable;
        connection.ended |= ended;
        connection.writable |= writable;
        if matches!(self.exchanges[index].phase, Phase::Connecting(_)) {
            let address = connection.address;
            match cx.actions.outcome(number) {
                None => return,
                Some(Err(error)) => return self.connect_failed(index, number, Failure::Connect { address, error }, cx),
                Some(Ok(())) => match cx.actions.shake_hands(number) {
                    Ok(true) => {
                        // What the handshake has left unread or unwritten has no event of its own.
                        (connection.readable, connection.writable) = (true, true);
                        self.connected(index, number, cx);
                    }
                    Ok(false) => return,
                    Err(error) => return self.connect_failed(index, number, Failure::Tls { address, error }, cx),
                },
            }
        }
        self.advance(index, cx);
    }

    /// Sends the request again, on a new connection.
    pub(super) fn repeat(&mut self, index: usize, cx: &mut Context<'_>) {
        let exchange = &mut self.exchanges[index];
        cx.actions.log(&Note::Repeated(&exchange.endpoint));
        self.counters.repeated += 1;
        if let Some(number) = exchange.connection() {
            self.connections.close(number, cx);
        }
        exchange.upload.rewind();
        self.resolve(index, cx);
    }
}
