// SPDX-License-Identifier: AGPL-3.0-or-later
//! A TCP connection to a backend, and what is known about its readiness.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;

use mio::net::TcpStream;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::connect::target::Endpoint;
use crate::connect::tls::Stream;

/// A connection, being made, in use, or idle in the pool. It has no buffers of its own but those of TLS.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Rc<Endpoint>,
    /// The exchange that uses it; none if it is idle.
    pub(crate) owner: Option<usize>,
    /// There may be something to read. The system says so once; then it is on us to read until nothing is left.
    pub(crate) readable: bool,
    /// The backend has closed its side; what it sent before may not have been read.
    pub(crate) ended: bool,
    /// It may take bytes.
    pub(crate) writable: bool,
}

impl Connection {
    /// Begins to connect.
    pub(crate) fn start(address: SocketAddr, endpoint: Rc<Endpoint>, owner: usize) -> io::Result<Self> {
        let stream = Stream::new(TcpStream::connect(address)?, endpoint.tls.as_ref())?;
        Ok(Connection { stream, address, endpoint, owner: Some(owner), readable: false, ended: false, writable: false })
    }

    /// Whether the connection is made; `None` if that is not decided yet.
    pub(crate) fn outcome(&self) -> Option<io::Result<()>> {
        match self.stream.tcp().take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
        }
        match self.stream.tcp().peer_addr() {
            // Small requests must not wait for the answer to earlier packets.
            Ok(_) => Some(self.stream.tcp().set_nodelay(true)),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads once, and notes whether more may be there.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(buffer);
        match &result {
            // Less than asked for is all there is. The end has an edge of its own, unless it came with this one. TLS gives one
            // record at a time.
            Ok(bytes) => self.readable = *bytes == buffer.len() || self.ended || self.stream.is_tls(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {}
        }
        result
    }

    /// Writes what TLS has kept back. What is wrong with the connection is noticed when it is read from.
    pub(crate) fn flush(&mut self) {
        if self.writable && self.stream.flush().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.writable = false;
        }
    }

    /// Has the connection broken off when it is dropped. Otherwise its end would wait behind bytes that a backend which does
    /// not read has not taken.
    pub(crate) fn break_off(&self) {
        let at_once = linger { l_onoff: 1, l_linger: 0 };
        if let Err(error) = setsockopt(self.stream.tcp(), sockopt::Linger, &at_once) {
            tracing::debug!("unable to break a connection off: {error}");
        }
    }

    /// Whether an idle connection is as it was left: still open, and nothing has come that nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }
}
