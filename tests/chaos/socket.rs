// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection that never waits. Thousands of them share a thread.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// See the module.
pub struct Socket {
    stream: TcpStream,
    /// Has come and was not understood yet.
    pub input: Vec<u8>,
    /// Is to be sent.
    pub output: Vec<u8>,
}

impl Socket {
    /// Watches a connection from now on.
    pub fn new(mut stream: TcpStream, token: Token, registry: &Registry) -> io::Result<Self> {
        // It may not be connected yet, and works without.
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Socket { stream, input: Vec::new(), output: Vec::new() })
    }

    /// Reads all that has come.
    pub fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what fits.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                // It may not be connected yet.
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::NotConnected].contains(&error.kind()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
