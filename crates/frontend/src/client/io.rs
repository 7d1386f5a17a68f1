// SPDX-License-Identifier: AGPL-3.0-or-later
//! A client's transport.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::{Interest, Registry, Token};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ServerConfig, ServerConnection};
use wire::proxied;

use super::stream::Stream;
use crate::accept::handshakes::Place;

/// How bytes get to and from a client.
pub enum Io {
    /// As they are.
    Plain(Stream),
    /// Through TLS, whose state is apart so that clients without it do not pay for it.
    Tls(Box<Tls>),
}

/// A connection with TLS.
pub struct Tls {
    connection: ServerConnection,
    stream: Stream,
    /// Its handshake waits for its turn.
    place: Option<Place>,
}

impl Io {
    /// With TLS if there is a configuration for it.
    ///
    /// # Errors
    /// The configuration can not be used.
    pub fn new(stream: Stream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Io::Plain(stream)) };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Io::Tls(Box::new(Tls { connection, stream, place: None })))
    }

    fn stream(&self) -> &Stream {
        match self {
            Io::Plain(stream) => stream,
            Io::Tls(tls) => &tls.stream,
        }
    }

    fn stream_mut(&mut self) -> &mut Stream {
        match self {
            Io::Plain(stream) => stream,
            Io::Tls(tls) => &mut tls.stream,
        }
    }

    /// Watches for everything that can happen. Both directions at once, edge triggered: no further system call changes
    /// this.
    ///
    /// # Errors
    /// The system refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.stream_mut(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Takes the header of the PROXY protocol once it is complete, and leaves what is behind it to TLS or HTTP.
    ///
    /// # Errors
    /// More must come ([`WouldBlock`](io::ErrorKind::WouldBlock)), it is no header
    /// ([`InvalidData`](io::ErrorKind::InvalidData)), or the connection has ended.
    pub fn read_header(&mut self, buffer: &mut [u8]) -> io::Result<proxied::Client> {
        let seen = self.stream().peek(buffer)?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let invalid = |wrong| io::Error::new(io::ErrorKind::InvalidData, wrong);
        // Until it is complete it stays with the system, and further bytes are an edge of their own.
        let header = proxied::read(&buffer[..seen]).map_err(invalid)?;
        let (length, client) = header.ok_or(io::Error::from(io::ErrorKind::WouldBlock))?;
        // What was seen is there.
        self.stream_mut().read_exact(&mut buffer[..length])?;
        Ok(client)
    }

    /// Ends the watching.
    pub fn deregister(&mut self, registry: &Registry) {
        // Closing the descriptor ends it as well, so an error here would change nothing.
        let _ = registry.deregister(self.stream_mut());
    }

    /// Whether less may be read at once than is there.
    pub fn is_tls(&self) -> bool {
        matches!(self, Io::Tls(_))
    }

    /// The stream, if nothing else is between us and the client.
    pub fn plain(&self) -> Option<&Stream> {
        match self {
            Io::Plain(stream) => Some(stream),
            Io::Tls(_) => None,
        }
    }

    /// Whether its next read goes on with a handshake.
    pub fn is_shaking_hands(&self) -> bool {
        matches!(self, Io::Tls(tls) if tls.connection.is_handshaking())
    }

    /// The handshake is to wait in this place.
    pub fn wait_in(&mut self, place: Place) {
        if let Io::Tls(tls) = self {
            tls.place = Some(place);
        }
    }

    /// Whether the handshake waits for its turn.
    pub fn waits(&self) -> bool {
        matches!(self, Io::Tls(tls) if tls.place.is_some())
    }

    /// The place in which the handshake waits, which it leaves.
    pub fn leave_place(&mut self) -> Option<Place> {
        match self {
            Io::Plain(_) => None,
            Io::Tls(tls) => tls.place.take(),
        }
    }

    /// Whether bytes that were taken have not been given to the system.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Io::Tls(tls) if tls.connection.wants_write())
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn shut_down(&mut self) -> io::Result<()> {
        if let Io::Tls(tls) = self {
            tls.connection.send_close_notify();
            // A few bytes; one who has no room for them has been given all else and does not need them.
            let _ = tls.flush();
        }
        self.stream().shut_down()
    }

    /// Makes the coming close a reset.
    pub fn abort(&mut self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        // If it fails, the connection is gone already.
        let _ = setsockopt(self.stream(), sockopt::Linger, &linger);
    }
}

impl Tls {
    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    fn both(&mut self) -> rustls::Stream<'_, ServerConnection, Stream> {
        rustls::Stream::new(&mut self.connection, &mut self.stream)
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.read(buffer),
            Io::Tls(tls) => tls.both().read(buffer),
        }
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.write(bytes),
            Io::Tls(tls) => tls.both().write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.write_vectored(slices),
            Io::Tls(tls) => tls.both().write_vectored(slices),
        }
    }

    /// Gives the system what it had no room for before.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Io::Plain(_) => Ok(()),
            Io::Tls(tls) => tls.flush(),
        }
    }
}
