// SPDX-License-Identifier: AGPL-3.0-or-later
//! Listening sockets.
//!
//! They come from the runner, so that callers wait in the backlog while a frontend is replaced, or are bound here. While
//! no client may come, further ones wait in the backlog (frontend, listening).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Token};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;

use crate::client::stream::Stream;

/// The listening sockets of a worker.
#[derive(Default)]
pub struct Listeners {
    sockets: Vec<Listener>,
}

struct Listener {
    socket: Socket,
    terms: Terms,
    /// There may be connections to accept.
    pending: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How connections of a port begin.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<ServerConfig>>,
    /// Each begins with a header of the PROXY protocol, before TLS.
    pub proxied: bool,
}

/// A client that has been accepted.
pub struct Accepted {
    /// Its connection.
    pub stream: Stream,
    /// Where it comes from; none on a Unix socket.
    pub address: Option<SocketAddr>,
    /// How it begins.
    pub terms: Terms,
}

impl Listeners {
    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    /// It can not be set up.
    pub fn add(&mut self, socket: std::net::TcpListener, terms: Terms) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit both, which saves two system calls each.
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        let socket = Socket::Tcp(TcpListener::from_std(socket));
        self.sockets.push(Listener { socket, terms, pending: true });
        Ok(())
    }

    /// Takes over a Unix socket that listens already.
    ///
    /// # Errors
    /// It can not be set up.
    pub fn add_local(&mut self, socket: std::os::unix::net::UnixListener, terms: Terms) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let socket = Socket::Unix(UnixListener::from_std(socket));
        self.sockets.push(Listener { socket, terms, pending: true });
        Ok(())
    }

    /// Watches the sockets, under tokens from 0.
    ///
    /// # Errors
    /// The system refuses to watch one.
    pub fn register(&mut self, registry: &mio::Registry) -> io::Result<()> {
        for (i, listener) in self.sockets.iter_mut().enumerate() {
            listener.socket.source().register(registry, Token(i), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Ends the watching: other processes have the same sockets, so closing them would not.
    pub fn deregister(&mut self, registry: &mio::Registry) {
        for listener in &mut self.sockets {
            // They are closed next, so an error would change nothing.
            let _ = listener.socket.source().deregister(registry);
        }
    }

    /// Notes that a socket has connections to accept; `false` if the token is not that of a listener.
    pub fn on_ready(&mut self, token: usize) -> bool {
        match self.sockets.get_mut(token) {
            Some(listener) => {
                listener.pending = true;
                true
            }
            None => false,
        }
    }

    /// Whether there may be connections to accept.
    pub fn is_pending(&self) -> bool {
        self.sockets.iter().any(|listener| listener.pending)
    }

    /// Accepts a connection, if there is one.
    ///
    /// # Errors
    /// The system is out of files or memory.
    pub fn accept(&mut self) -> io::Result<Option<Accepted>> {
        for listener in &mut self.sockets {
            while listener.pending {
                match listener.socket.accept() {
                    Ok((stream, address)) => {
                        return Ok(Some(Accepted { stream, address, terms: listener.terms.clone() }));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => listener.pending = false,
                    // The client gave up while it waited.
                    Err(e)
                        if e.kind() == io::ErrorKind::ConnectionAborted || e.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }
}

impl Socket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => socket,
        }
    }

    fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Socket::Tcp(socket) => socket.accept().map(|(stream, address)| (Stream::Tcp(stream), Some(address))),
            Socket::Unix(socket) => socket.accept().map(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}
