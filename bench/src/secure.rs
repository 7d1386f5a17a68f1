// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection to the system under test, plain or with TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::net;

/// The name that the certificates of the systems under test have.
const NAME: &str = "localhost";

/// What clients with TLS have in common: they trust this one certificate.
///
/// # Errors
/// The file can not be read, or has no certificate.
pub fn trusting(certificate: &str) -> io::Result<Arc<ClientConfig>> {
    let certificate = CertificateDer::from_pem_slice(&fs::read(certificate)?).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate).map_err(io::Error::other)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

pub enum Stream {
    Plain(TcpStream),
    Tls(TcpStream, Box<ClientConnection>),
}

impl Stream {
    /// Starts a non-blocking connect, as `net::connect` does.
    pub fn connect(target: SocketAddr, index: usize, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let stream = net::connect(target, index)?;
        let Some(config) = tls else { return Ok(Stream::Plain(stream)) };
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Stream::Tls(stream, Box::new(connection)))
    }

    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Stream::Plain(stream) | Stream::Tls(stream, _) => stream,
        }
    }
}

/// Writes what TLS has to say, as far as the socket takes it; the rest follows with the next read or write.
fn flush(stream: &mut TcpStream, connection: &mut ClientConnection) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(stream) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

impl Read for Stream {
    /// Fills the buffer as far as the socket has something: a short read means that it is drained, with TLS too.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (stream, connection) = match self {
            Stream::Plain(stream) => return stream.read(buffer),
            Stream::Tls(stream, connection) => (stream, connection),
        };
        let mut filled = 0;
        loop {
            match connection.reader().read(&mut buffer[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(size) => filled += size,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match connection.read_tls(stream) {
                    Ok(0) => return Ok(filled),
                    Ok(_) => {
                        connection.process_new_packets().map_err(io::Error::other)?;
                        flush(stream, connection)?;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && filled > 0 => return Ok(filled),
                    Err(e) => return Err(e),
                },
                Err(e) => return Err(e),
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream, connection) => {
                // Before the socket is connected nothing may be kept, or it would be written twice.
                if connection.is_handshaking() && connection.wants_write() {
                    connection.write_tls(stream)?;
                }
                let size = connection.writer().write(bytes)?;
                flush(stream, connection)?;
                Ok(size)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream, connection) => flush(stream, connection),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.socket().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket().deregister(registry)
    }
}
