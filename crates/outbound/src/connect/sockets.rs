// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sockets of connections to backends, by the numbers that the engine gives them.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::connect::target::Endpoint;
use crate::connect::tls::Stream;

/// See the module.
#[derive(Default)]
pub(crate) struct Sockets(Vec<Option<Stream>>);

impl Sockets {
    /// Begins to connect, and has the system tell of what comes.
    ///
    /// # Errors
    /// The system refuses, or TLS can not be set up.
    pub(crate) fn connect(
        &mut self,
        number: usize,
        address: SocketAddr,
        endpoint: &Endpoint,
        registry: &Registry,
    ) -> io::Result<()> {
        let mut stream = Stream::new(TcpStream::connect(address)?, endpoint.tls.as_ref())?;
        registry.register(stream.tcp_mut(), Token(number), Interest::READABLE | Interest::WRITABLE)?;
        if number >= self.0.len() {
            self.0.resize_with(number + 1, || None);
        }
        self.0[number] = Some(stream);
        Ok(())
    }

    /// The connection of this number.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn get(&mut self, number: usize) -> io::Result<&mut Stream> {
        self.0.get_mut(number).and_then(Option::as_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Closes one. `at_once`: what it has not sent yet is lost.
    pub(crate) fn close(&mut self, number: usize, at_once: bool) {
        let Some(stream) = self.0.get_mut(number).and_then(Option::take) else { return };
        if at_once {
            let linger = linger { l_onoff: 1, l_linger: 0 };
            if let Err(error) = setsockopt(stream.tcp(), sockopt::Linger, &linger) {
                tracing::debug!("unable to break a connection off: {error}");
            }
        }
    }
}

/// Whether a connection is made; none if that is not decided yet.
pub(crate) fn outcome(tcp: &TcpStream) -> Option<io::Result<()>> {
    match tcp.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Some(Err(error)),
    }
    match tcp.peer_addr() {
        // Small requests must not wait for the answer to earlier packets.
        Ok(_) => Some(tcp.set_nodelay(true)),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}
