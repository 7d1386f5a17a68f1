//! What moves an exchange forward: a connection is found or made, the request written, the response read and passed on.

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::{Interest, Token};
use zhttp::{Headers, Ids, Kind, Packet};

use super::Worker;
use crate::connect::connection::Connection;
use crate::connect::policy::is_internal;
use crate::connect::resolve::Lookup;
use crate::http1::download::announced_length;
use crate::http1::exchange::{CONNECT_TIMEOUT, Exchange, Phase};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Reads from one connection in a turn.
const READS_A_TURN: usize = 16;
/// Read at least this much while there are no credits, to notice the end of a body.
const PEEK: usize = 512;
/// Read at least this much for a head.
const HEAD: usize = 8192;

/// Whether there is still an exchange to go on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    /// It has ended, or must wait.
    Stop,
}

impl Worker {
    /// Finds a connection for an exchange, or begins to make one.
    pub(super) fn connect(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        // A request whose body is still to come can not be sent again if the connection turns out to be dead.
        if exchange.upload.is_complete() {
            loop {
                let connections = &self.connections;
                let usable = |connection: usize| {
                    exchange.trusted || connections.get(connection).is_some_and(|c| !is_internal(c.address.ip()))
                };
                let Some(number) = self.pool.take(&exchange.endpoint, usable) else { break };
                let Some(connection) = self.connections.get_mut(number) else { continue };
                if !connection.is_quiet() {
                    self.connections.remove(number);
                    continue;
                }
                connection.owner = Some(index);
                connection.writable = true;
                exchange.phase = Phase::Open { connection: number, reused: true };
                return self.advance(index);
            }
        }
        self.resolve(index);
    }

    fn resolve(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        exchange.phase = Phase::Resolving;
        match self.resolver.look_up(&exchange.endpoint.host, (index, exchange.serial), self.now) {
            Lookup::Known(addresses) => self.dial(index, &addresses),
            Lookup::Asked => {}
            Lookup::Busy => self.fail(index, "remote-connection-failed", &"too many DNS lookups are waiting"),
        }
    }

    /// Answers of the resolver.
    pub(super) fn take_answers(&mut self) {
        while let Some((addresses, askers)) = self.resolver.answered(self.now) {
            for (index, serial) in askers {
                let asked =
                    |exchange: &Exchange| exchange.serial == serial && matches!(exchange.phase, Phase::Resolving);
                if self.exchanges.get(index).is_some_and(asked) {
                    self.dial(index, &addresses);
                }
            }
        }
    }

    fn dial(&mut self, index: usize, addresses: &[IpAddr]) {
        let exchange = &self.exchanges[index];
        if addresses.is_empty() {
            return self.fail(index, "remote-connection-failed", &"the host name does not resolve");
        }
        let allowed = |address: &&IpAddr| exchange.trusted || !is_internal(**address);
        let port = exchange.endpoint.port;
        let allowed: Vec<SocketAddr> =
            addresses.iter().filter(allowed).take(MAX_ADDRESSES).map(|&ip| SocketAddr::new(ip, port)).collect();
        if allowed.is_empty() {
            let reason = "the address is internal; only targets of the routes file may be";
            return self.fail(index, "policy-violation", &reason);
        }
        self.dial_next(index, allowed.into_iter(), ErrorKind::NotConnected.into());
    }

    /// Tries the next address; `last` is why the former one failed.
    fn dial_next(&mut self, index: usize, mut untried: std::vec::IntoIter<SocketAddr>, mut last: io::Error) {
        let exchange = &mut self.exchanges[index];
        while let Some(address) = untried.next() {
            let entry = self.connections.vacant_entry();
            let started = Connection::start(address, exchange.endpoint.clone(), index).and_then(|mut connection| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.reactor.registry().register(&mut connection.stream, Token(entry.key()), interest)?;
                Ok(connection)
            });
            match started {
                Ok(connection) => {
                    let until = self.now + CONNECT_TIMEOUT;
                    exchange.phase = Phase::Connecting { connection: entry.key(), until, untried };
                    entry.insert(connection);
                    return self.watch(index);
                }
                Err(error) => {
                    // Not the backend's fault: no files or no ports left.
                    self.warnings.warn("connect", self.now, format_args!("unable to connect to {address}: {error}"));
                    last = error;
                }
            }
        }
        exchange.phase = Phase::Resolving;
        let condition = match last.kind() {
            ErrorKind::TimedOut => "connection-timeout",
            _ => "remote-connection-failed",
        };
        self.fail(index, condition, &last);
    }

    /// The connection that is being made can not be made.
    pub(super) fn connect_failed(&mut self, index: usize, error: io::Error) {
        let exchange = &mut self.exchanges[index];
        if let Phase::Connecting { connection, untried, .. } = std::mem::replace(&mut exchange.phase, Phase::Resolving)
        {
            self.connections.remove(connection);
            self.dial_next(index, untried, error);
        }
    }

    /// A connection is ready for something.
    pub(super) fn on_ready(&mut self, number: usize, readable: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let Some(index) = connection.owner else {
            // Nobody asked for anything, so what comes is the end, or nonsense.
            if readable {
                let connection = self.connections.remove(number);
                self.pool.remove(&connection.endpoint, number);
            }
            return;
        };
        connection.readable |= readable;
        connection.writable |= writable;
        let exchange = &mut self.exchanges[index];
        if matches!(exchange.phase, Phase::Connecting { .. }) {
            match connection.outcome() {
                None => return,
                Some(Err(error)) => return self.connect_failed(index, error),
                Some(Ok(())) => exchange.phase = Phase::Open { connection: number, reused: false },
            }
        }
        self.advance(index);
    }

    /// Writes and reads as far as connection and credits allow.
    pub(super) fn advance(&mut self, index: usize) {
        if matches!(self.exchanges[index].phase, Phase::Open { .. }) && self.write(index) == Flow::On {
            self.read(index);
        }
    }

    fn write(&mut self, index: usize) -> Flow {
        let exchange = &mut self.exchanges[index];
        let Phase::Open { connection: number, .. } = exchange.phase else { return Flow::Stop };
        let connection = &mut self.connections[number];
        let mut owes_credits = false;
        while connection.writable && !exchange.upload.pending().is_empty() {
            match connection.stream.write(exchange.upload.pending()) {
                Ok(bytes) => {
                    exchange.active = self.now;
                    owes_credits |= exchange.upload.wrote(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => connection.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if exchange.may_be_repeated() => {
                    self.repeat(index);
                    return Flow::Stop;
                }
                Err(_) => {
                    // The backend takes no more, but may have answered: reading tells.
                    exchange.upload.give_up();
                    connection.readable = true;
                    return Flow::On;
                }
            }
        }
        if owes_credits && !self.grant(index) { Flow::Stop } else { Flow::On }
    }

    fn read(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut joined = std::mem::take(&mut self.joined);
        self.read_into(index, &mut buffer, &mut joined);
        self.buffer = buffer;
        self.joined = joined;
    }

    fn read_into(&mut self, index: usize, buffer: &mut [u8], joined: &mut Vec<u8>) {
        // Payload that waited for credits comes first.
        let exchange = &mut self.exchanges[index];
        if !exchange.leftover.is_empty() && exchange.download.has_head() && exchange.session.credits > 0 {
            let leftover = std::mem::take(&mut exchange.leftover);
            if self.pass_on(index, &leftover, joined) == Flow::Stop {
                return;
            }
        }
        for _ in 0..READS_A_TURN {
            let exchange = &mut self.exchanges[index];
            let Phase::Open { connection: number, .. } = exchange.phase else { return };
            let connection = &mut self.connections[number];
            let credits = exchange.session.credits as usize;
            let kept = exchange.leftover.len();
            if !connection.readable || (credits == 0 && kept > 0 && exchange.download.has_head()) {
                return;
            }
            // No more than can be passed on, so that little waits here.
            let want = if exchange.download.has_head() { credits.max(PEEK) } else { credits + HEAD };
            let end = (kept + want).min(buffer.len());
            buffer[..kept].copy_from_slice(&exchange.leftover);
            match connection.stream.read(&mut buffer[kept..end]) {
                Ok(0) => return self.ended(index, None),
                Ok(bytes) => {
                    exchange.active = self.now;
                    if !exchange.answered {
                        exchange.answered = true;
                        exchange.upload.forget_written();
                    }
                    if self.pass_on(index, &buffer[..kept + bytes], joined) == Flow::Stop {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return connection.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.ended(index, Some(error)),
            }
        }
        let serial = self.exchanges[index].serial;
        self.unread.push((index, serial));
    }

    /// Finds head and payload in what was read and sends them to the requester.
    fn pass_on(&mut self, index: usize, input: &[u8], joined: &mut Vec<u8>) -> Flow {
        let exchange = &mut self.exchanges[index];
        let credits = exchange.session.credits as usize;
        let found = match exchange.download.read(input, credits, joined) {
            Ok(found) => found,
            Err(error) => {
                self.fail(index, "undefined-condition", &error);
                return Flow::Stop;
            }
        };
        exchange.leftover.clear();
        exchange.leftover.extend_from_slice(&input[found.consumed..]);
        let announced = found.head.as_ref().and_then(announced_length);
        if !exchange.count_body(found.payload.len(), announced) {
            self.fail(index, "max-size-exceeded", &"the body is larger than the requester takes");
            return Flow::Stop;
        }
        let done = exchange.download.is_done();
        if found.head.is_none() && found.payload.is_empty() && !done {
            return Flow::On;
        }
        let seq = exchange.session.send_body(found.payload.len());
        let id = exchange.session.id;
        let mut packet = Packet {
            ids: Ids::One(id.as_bytes(), Some(seq)),
            more: !done,
            body: found.payload,
            user_data: exchange.user_data(),
            ..Packet::default()
        };
        let (headers, reason): (Vec<_>, _);
        if let Some(head) = &found.head {
            headers = head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            // Originals take no other than UTF-8.
            reason = String::from_utf8_lossy(head.reason);
            packet.code = Some(head.code);
            packet.reason = Some(reason.as_bytes());
            packet.headers = if headers.is_empty() { Headers::Absent } else { Headers::Pairs(&headers) };
        }
        let sent = self.requesters.send(&exchange.session, &packet, self.now);
        exchange.spoke = self.now;
        if !sent {
            self.lost(index);
            return Flow::Stop;
        }
        if done {
            self.finish(index);
            return Flow::Stop;
        }
        Flow::On
    }

    /// The backend has closed the connection, or it broke.
    fn ended(&mut self, index: usize, error: Option<io::Error>) {
        let exchange = &mut self.exchanges[index];
        if exchange.may_be_repeated() {
            return self.repeat(index);
        }
        if let Some(error) = error {
            return self.fail(index, "undefined-condition", &error);
        }
        match exchange.download.end_of_input() {
            Ok(()) => {
                if self.send(index, Kind::Data, Packet::default()) {
                    self.finish(index);
                }
            }
            Err(error) => self.fail(index, "undefined-condition", &error),
        }
    }

    /// Sends the request again, on a new connection.
    fn repeat(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        tracing::debug!("connection to {} was closed while idle, trying again", exchange.endpoint.host);
        if let Some(number) = exchange.connection() {
            self.connections.remove(number);
        }
        exchange.upload.rewind();
        self.resolve(index);
    }

    /// Tells the requester that its request has come, unless it knows; and begins to watch over time.
    pub(super) fn acknowledge(&mut self, index: usize) {
        let spoken = self.exchanges[index].session.has_spoken();
        if spoken || self.send(index, Kind::KeepAlive, Packet::default()) {
            self.watch(index);
        }
    }

    /// Grants credits for the body of the request. `false` if the exchange is over because of that.
    pub(super) fn grant(&mut self, index: usize) -> bool {
        let credits = self.exchanges[index].upload.take_credits();
        self.send(index, Kind::Credit, Packet { credits: Some(credits), ..Packet::default() })
    }

    /// Sends a packet without body. `false` if it is lost, and the exchange with it.
    fn send(&mut self, index: usize, kind: Kind, packet: Packet<'_>) -> bool {
        let exchange = &mut self.exchanges[index];
        let seq = exchange.session.send();
        let id = exchange.session.id;
        let ids = Ids::One(id.as_bytes(), Some(seq));
        let packet = Packet { ids, kind, user_data: exchange.user_data(), ..packet };
        let sent = self.requesters.send(&exchange.session, &packet, self.now);
        exchange.spoke = self.now;
        if !sent {
            self.lost(index);
        }
        sent
    }

    /// A packet of the exchange did not leave, so the requester's count will not be right again.
    fn lost(&mut self, index: usize) {
        self.warnings.warn("lost", self.now, "request given up: its sender is gone or does not keep up");
        self.drop_exchange(index);
    }

    /// Ends an exchange with an error.
    pub(super) fn fail(&mut self, index: usize, condition: &str, reason: &dyn Display) {
        let endpoint = self.exchanges[index].endpoint.clone();
        tracing::debug!("request to {endpoint} failed ({condition}): {reason}");
        let packet = Packet { condition: Some(condition.as_bytes()), ..Packet::default() };
        if self.send(index, Kind::Error, packet) {
            self.drop_exchange(index);
        }
    }

    /// Ends an exchange because its session is broken.
    pub(super) fn cancel(&mut self, index: usize) {
        if self.send(index, Kind::Cancel, Packet::default()) {
            self.drop_exchange(index);
        }
    }

    /// Ends an exchange whose response has been passed on, and keeps its connection if that is possible.
    fn finish(&mut self, index: usize) {
        let exchange = self.exchanges.remove(index);
        self.sessions.remove(&(exchange.session.client, exchange.session.id));
        let Some(number) = exchange.connection() else { return };
        if exchange.leaves_connection_usable() {
            let connection = &mut self.connections[number];
            connection.owner = None;
            connection.readable = false;
            if self.pool.put(&exchange.endpoint, number, self.now) {
                return;
            }
        }
        self.connections.remove(number);
    }

    /// Forgets an exchange and closes its connection.
    pub(super) fn drop_exchange(&mut self, index: usize) {
        let exchange = self.exchanges.remove(index);
        self.sessions.remove(&(exchange.session.client, exchange.session.id));
        if let Some(number) = exchange.connection() {
            self.connections.remove(number);
        }
    }
}
