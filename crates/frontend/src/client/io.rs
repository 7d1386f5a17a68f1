//! A client's transport. TLS will be a second kind.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{setsockopt, sockopt};

/// How bytes get to and from a client.
pub enum Io {
    /// As they are.
    Plain(TcpStream),
}

impl Io {
    /// Watches for everything that can happen. Both directions at once, edge triggered: no further system call changes
    /// this.
    ///
    /// # Errors
    /// The system refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Io::Plain(stream) => registry.register(stream, token, Interest::READABLE | Interest::WRITABLE),
        }
    }

    /// Ends the watching.
    pub fn deregister(&mut self, registry: &Registry) {
        match self {
            // Closing the descriptor ends it as well, so an error here would change nothing.
            Io::Plain(stream) => drop(registry.deregister(stream)),
        }
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn shut_down(&mut self) -> io::Result<()> {
        match self {
            Io::Plain(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Makes the coming close a reset.
    pub fn abort(&mut self) {
        match self {
            Io::Plain(stream) => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                // If it fails, the connection is gone already.
                let _ = setsockopt(stream, sockopt::Linger, &linger);
            }
        }
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.read(buffer),
        }
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Io::Plain(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
