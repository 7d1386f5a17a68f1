// SPDX-License-Identifier: AGPL-3.0-or-later
//! What carries out the engine's actions: the ZeroMQ sockets towards requesters, those of connections to backends, the resolver and the
//! log.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use limited::Limited;
use mio::Registry;
use settings::specs::OutboundSpecs;
use tnetstring::Writer;
use transport::error::{SendError, Taken};
use transport::{Context, Error, Options, Publisher, Pull, Reactor, Router};
use wire::request_id;
use zhttp::{Id, Packet};

use crate::connect::resolve::{Asker, Lookup, Resolver};
use crate::connect::sockets::{self, Sockets};
use crate::connect::target::Endpoint;
use crate::context::{Actions, Note, Sent};

/// Numbers of the ZeroMQ sockets in the reactor.
pub(super) const INPUT: usize = 0;
pub(super) const STREAM: usize = 1;
pub(super) const OUT: usize = 2;

/// See the module.
pub(super) struct Links {
    pub(super) input: Pull,
    pub(super) stream: Router,
    pub(super) out: Publisher,
    pub(super) resolver: Resolver,
    pub(super) warnings: Limited,
    registry: Registry,
    sockets: Sockets,
    writer: Writer,
    /// The time of this turn.
    pub(super) now: Instant,
}

impl Links {
    /// Bytes that requesters have not taken.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.stream.load().bytes + self.out.load().bytes
    }

    /// Binds the sockets and adds them to the reactor.
    pub(super) fn bind(
        reactor: &mut Reactor,
        instance: &str,
        specs: &OutboundSpecs,
        options: Options,
        resolver: Resolver,
    ) -> Result<Self, Error> {
        let context = Context::new();
        let options = options.named(instance);
        let links = Links {
            input: Pull::bind(&context, &specs.input, &options)?,
            stream: Router::bind(&context, &specs.in_stream, &options)?,
            out: Publisher::bind(&context, &specs.out, &options)?,
            resolver,
            warnings: Limited::default(),
            registry: reactor.registry().try_clone()?,
            sockets: Sockets::default(),
            writer: Writer::new(4096),
            now: Instant::now(),
        };
        reactor.add(INPUT, &links.input)?;
        reactor.add(STREAM, &links.stream)?;
        reactor.add(OUT, &links.out)?;
        Ok(links)
    }
}

impl Actions for Links {
    fn send(&mut self, to: &[u8], by_router: bool, packet: &Packet<'_>) -> Sent {
        let sent = match by_router {
            true => self.stream.send(to, packet.encode(None, &mut self.writer)),
            false => self.out.send(to, packet.encode(Some(to), &mut self.writer)),
        };
        match sent {
            Ok(Taken::More) => Sent::Taken,
            Ok(Taken::Full) => Sent::Full,
            Err(SendError::Full) => Sent::Refused,
            Err(SendError::Unreachable) => Sent::Lost,
        }
    }

    fn look_up(&mut self, host: &str, asker: Asker, now: Instant) -> Lookup {
        self.resolver.look_up(host, asker, now)
    }

    fn give_up(&mut self, host: &str, asker: Asker) {
        self.resolver.give_up(host, asker);
    }

    fn connect(&mut self, number: usize, address: SocketAddr, endpoint: &Endpoint) -> io::Result<()> {
        self.sockets.connect(number, address, endpoint, &self.registry)
    }

    fn outcome(&mut self, number: usize) -> Option<io::Result<()>> {
        match self.sockets.get(number) {
            Ok(stream) => sockets::outcome(stream.tcp()),
            Err(error) => Some(Err(error)),
        }
    }

    fn shake_hands(&mut self, number: usize) -> io::Result<bool> {
        self.sockets.get(number)?.shake_hands()
    }

    fn read(&mut self, number: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.sockets.get(number)?.read(buffer)
    }

    fn write(&mut self, number: usize, bytes: &[u8]) -> io::Result<usize> {
        self.sockets.get(number)?.write(bytes)
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        self.sockets.get(number)?.flush()
    }

    fn is_quiet(&mut self, number: usize) -> bool {
        self.sockets.get(number).is_ok_and(|stream| stream.is_quiet())
    }

    fn close(&mut self, number: usize, at_once: bool) {
        self.sockets.close(number, at_once);
    }

    fn log(&mut self, note: &Note<'_>) {
        match note {
            Note::Warning { kind, text } => self.warnings.warn(kind, self.now, text),
            Note::Request { session, packet } => log_request(session, packet),
            Note::Repeated(endpoint) => {
                tracing::debug!("connection to {endpoint} was closed while idle, trying again");
            }
            Note::RequesterLeft { name, cancelled, kept } => tracing::info!(
                "{} has left: {cancelled} of its requests are cancelled, {kept} wait for its successor",
                name.escape_ascii()
            ),
        }
    }
}

fn log_request(session: &Id, packet: &Packet<'_>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let (method, uri) = (packet.method.unwrap_or_default(), packet.uri.unwrap_or_default());
        let shown = request_id::shown(uri);
        let id = request_id::of(packet.headers.iter()).map(tracing::field::display);
        tracing::debug!(%session, id, "request to a backend: {} {shown}", method.escape_ascii());
    }
}
