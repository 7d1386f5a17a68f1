// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients: accepting, reading, writing, closing.

use std::io::{self, ErrorKind, Read, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use limited::Limited;
use mio::Token;
use zhttp::session::client::GRANT_DELAY;

use super::{Counters, FIRST_CLIENT, Worker};
use crate::accept::admission::ACCEPTS_A_TURN;
use crate::accept::handshakes::HANDSHAKES_A_TURN;
use crate::accept::listeners::Accepted;
use crate::client::Client;
use crate::client::io::Io;
use crate::client::pacing::{Ending, Reading};
use crate::exchange::Owed;
use crate::http1::refusal::Refusal;

/// Reads from one client in a turn.
const READS_A_TURN: usize = 4;
/// Time between two rounds of throwing away what clients send after their last response. With the reads of a round,
/// this is 32 MB/s each at most: enough for an upload that nobody wants, and too little to keep a processor busy.
const DISCARD_PAUSE: Duration = Duration::from_millis(8);

/// The code with which a WebSocket is closed for the size of a message.
const TOO_LARGE: u16 = 1009;

/// What came of reading.
enum Got {
    Bytes(usize),
    End,
    /// Nothing for now.
    Nothing,
    /// The connection is broken.
    Broken,
}

impl Worker {
    pub(super) fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_A_TURN {
            if !self.admission.is_open(self.clients.len(), now) {
                if self.clients.len() >= self.admission.max()
                    && let Some(line) = self.admission.on_full()
                {
                    self.warnings.warn("full", now, line);
                }
                return;
            }
            match self.listeners.accept() {
                Ok(Some(accepted)) => self.admit(accepted, now),
                Ok(None) => return,
                Err(error) => {
                    self.admission.on_refused(now);
                    let advice = "raise the limit of open files, or lower client_maxconn";
                    self.warnings.warn("accept", now, format_args!("unable to accept connections: {error}; {advice}"));
                }
            }
        }
    }

    fn admit(&mut self, Accepted { stream, address, terms }: Accepted, now: Instant) {
        let entry = self.clients.vacant_entry();
        let slot = entry.key();
        let registered = Io::new(stream, terms.tls).and_then(|mut io| {
            io.register(self.reactor.registry(), Token(FIRST_CLIENT + slot))?;
            Ok(io)
        });
        let io = match registered {
            Ok(io) => io,
            Err(error) => {
                let text = format_args!("a connection is closed, because it can not be watched: {error}");
                return self.warnings.warn("watch", now, text);
            }
        };
        self.counters.clients += 1;
        let client = entry.insert(Client::new(io, slot as u32, address, now).proxied(terms.proxied));
        if let Some((due, _)) = client.pacing.due(&self.core.config.deadlines) {
            self.client_timers.arm(slot as u32, due);
        }
    }

    /// A client's socket can be read or written, or has ended.
    pub(super) fn on_client_ready(&mut self, slot: usize, readable: bool, writable: bool, ended: bool) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.readable |= readable;
        client.writable |= writable;
        client.pacing.ended |= ended;
        if readable && !std::mem::replace(&mut client.unread, true) {
            self.unread.push(slot);
        }
        if (writable && client.unsent() > 0 || ended) && !std::mem::replace(&mut client.dirty, true) {
            self.dirty.push(slot);
        }
    }

    /// Reads from the clients that have sent something. Handshakes have a queue of their own, and a share of the turn.
    pub(super) fn read(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.unread) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            if !client.io.is_shaking_hands() {
                self.read_client(slot, now);
            } else if !client.io.waits() {
                // It waits already if its slot was queued twice, for a client before it too.
                client.io.wait_in(self.handshakes.push(slot));
            }
        }
        for _ in 0..HANDSHAKES_A_TURN {
            let Some(slot) = self.handshakes.pop() else { return };
            self.counters.handshakes += 1;
            if let Some(client) = self.clients.get_mut(slot) {
                client.io.leave_place();
            }
            self.read_client(slot, now);
        }
        self.counters.postponed += self.handshakes.len() as u64;
    }

    fn read_client(&mut self, slot: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.unread = false;
        if client.pacing.unintroduced && !self.read_header(slot, now) {
            return;
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        for _ in 0..READS_A_TURN {
            let stage = client.stage(&self.core.exchanges, &self.core.config);
            let Reading::Take(wanted) = client.reading(stage, &self.core.config) else { break };
            if !client.readable {
                break;
            }
            let wanted = wanted.min(self.buffer.len());
            let got = client.read(&mut self.buffer[..wanted]);
            let mut cx = self.core.context(&mut client.output, now);
            match got {
                Got::Bytes(n) => {
                    client.pacing.on_read(now);
                    let refusal = client.http.on_input(&self.buffer[..n], &mut cx);
                    note(refusal, client.http.address(), &mut self.counters, &mut self.warnings, now);
                }
                Got::End => client.http.on_end(&mut cx),
                Got::Broken => client.http.on_gone(&mut cx),
                Got::Nothing => {}
            }
        }
        self.touch(slot);
    }

    /// Reads what a proxy says of a client. `false`: that is not all, or not right.
    fn read_header(&mut self, slot: usize, now: Instant) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        match client.io.read_header(&mut self.buffer) {
            Ok(who) => {
                client.introduce(who);
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                client.readable = false;
                // Nothing can follow the end, and the edge that tells of it has been seen.
                if client.pacing.ended {
                    self.close(slot);
                }
            }
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    self.counters.unintroduced += 1;
                    let address = named(client.http.address());
                    let text = format_args!("a connection of {address} is closed: {error} (proxy_protocol=true)");
                    self.warnings.warn("proxy-header", now, text);
                }
                self.close(slot);
            }
        }
        false
    }

    pub(super) fn discards_at(&self) -> Option<Instant> {
        (!self.discarding.is_empty()).then(|| self.discarded + DISCARD_PAUSE)
    }

    /// Throws away what clients send that will be closed. All are read at the same times, so that one which only sends
    /// does not cost a turn for each of its packets.
    pub(super) fn discard(&mut self, now: Instant) {
        if self.discards_at().is_none_or(|due| due > now) {
            return;
        }
        self.discarded = now;
        for slot in std::mem::take(&mut self.discarding) {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            client.unread = false;
            for _ in 0..READS_A_TURN {
                let stage = client.stage(&self.core.exchanges, &self.core.config);
                let Reading::Discard(wanted) = client.reading(stage, &self.core.config) else { break };
                if !client.readable {
                    break;
                }
                let wanted = wanted.min(self.buffer.len());
                match client.read(&mut self.buffer[..wanted]) {
                    Got::Bytes(_) => client.pacing.on_read(now),
                    Got::Broken => client.http.on_gone(&mut self.core.context(&mut client.output, now)),
                    Got::End | Got::Nothing => {}
                }
            }
            self.touch(slot);
        }
    }

    /// Writes to each client for whom something has come, and settles how it goes on with it.
    pub(super) fn attend_to_clients(&mut self, now: Instant) {
        for slot in std::mem::take(&mut self.dirty) {
            self.attend_to(slot, now);
        }
    }

    fn attend_to(&mut self, slot: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.dirty = false;
        if client.writable && client.unsent() > 0 {
            let written = client.write();
            let unsent = client.unsent();
            let mut cx = self.core.context(&mut client.output, now);
            match written {
                Ok(written) => {
                    client.writable = unsent == 0;
                    client.pacing.on_write(written, unsent, now);
                    let owed = client.http.on_written(written, &mut cx);
                    // There may be room now for a request that was sent ahead.
                    let refusal = client.http.go_on(&mut cx);
                    note(refusal, client.http.address(), &mut self.counters, &mut self.warnings, now);
                    if owed == Owed::Later
                        && let Some(exchange) = client.http.exchange().and_then(|e| self.core.exchanges.get(e))
                    {
                        self.owing.push((exchange.slot(), exchange.serial()));
                        self.grants_due.get_or_insert(now + GRANT_DELAY);
                    }
                }
                Err(_) => client.http.on_gone(&mut cx),
            }
        }
        self.settle(slot, now);
    }

    /// Decides how it goes on with a client for which something has happened.
    fn settle(&mut self, slot: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let config = &self.core.config;
        let mut stage = client.stage(&self.core.exchanges, config);
        if client.has_left(stage, config) {
            client.http.on_gone(&mut self.core.context(&mut client.output, now));
            stage = client.stage(&self.core.exchanges, &self.core.config);
        }
        client.pacing.enter(stage, now);
        match client.pacing.ending(stage, client.unsent()) {
            Ending::GoOn => {}
            Ending::ShutDown => match client.io.shut_down() {
                Ok(()) => client.pacing.on_shut_down(now),
                Err(_) => return self.close(slot),
            },
            Ending::Close => return self.close(slot),
            Ending::Abort => {
                client.io.abort();
                return self.close(slot);
            }
        }
        if let Some((due, _)) = client.pacing.due(&self.core.config.deadlines) {
            self.client_timers.arm(slot as u32, due);
        }
        if let Some(exchange) = client.http.exchange()
            && !self.exchange_timers.is_armed(exchange)
            && let Some(due) = self.core.exchanges.next_due(exchange)
        {
            self.exchange_timers.arm(exchange, due);
        }
        if client.readable && !client.unread {
            match client.reading(stage, &self.core.config) {
                Reading::Take(_) => self.unread.push(slot),
                Reading::Discard(_) => self.discarding.push(slot),
                Reading::Pause => return,
            }
            client.unread = true;
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        if let Some(mut client) = self.clients.try_remove(slot) {
            if let Some(place) = client.io.leave_place() {
                self.handshakes.remove(place);
            }
            client.io.deregister(self.reactor.registry());
            self.admission.on_leave(self.clients.len());
        }
    }
}

/// A refusal is the client's fault and of interest only to who looks for it, unless it is for a limit that can be changed.
pub(super) fn note(
    refusal: Option<Refusal>,
    client: Option<SocketAddr>,
    counters: &mut Counters,
    warnings: &mut Limited,
    now: Instant,
) {
    let Some(Refusal { code, reason }) = refusal else { return };
    counters.refused += 1;
    if code == TOO_LARGE {
        counters.oversized += 1;
        let text = format_args!("the WebSocket of {} is closed: {reason} (client_max_message_size)", named(client));
        return warnings.warn("message-size", now, text);
    }
    tracing::debug!(%code, client = client.map(tracing::field::display), "request refused: {reason}");
}

fn named(client: Option<SocketAddr>) -> String {
    client.map_or_else(|| "a client of a Unix socket".to_owned(), |address| address.to_string())
}

impl Client {
    /// Writes what it takes; gives how many bytes of the output that was.
    fn write(&mut self) -> io::Result<usize> {
        if let Err(error) = self.io.flush() {
            return if error.kind() == ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        }
        self.output.write_to(&mut self.io)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Got {
        loop {
            return match self.io.read(buffer) {
                Ok(0) => {
                    (self.readable, self.pacing.ended, self.pacing.drained) = (false, true, true);
                    Got::End
                }
                Ok(n) => {
                    // Less than asked for is all there is. The end has an edge of its own, unless it came with this one.
                    // TLS gives one record at a time.
                    self.readable = n == buffer.len() || self.pacing.ended || self.io.is_tls();
                    Got::Bytes(n)
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    Got::Nothing
                }
                Err(_) => {
                    self.readable = false;
                    Got::Broken
                }
            };
        }
    }
}
