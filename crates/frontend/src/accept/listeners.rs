//! Listening sockets.
//!
//! They come from the runner, so that callers wait in the backlog while a frontend is replaced, or are bound here. While
//! no client may come, further ones wait in the backlog (frontend, listening).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;

/// The listening sockets of a worker.
pub struct Listeners {
    sockets: Vec<Listener>,
}

struct Listener {
    socket: TcpListener,
    /// How TLS is spoken, if it is.
    tls: Option<Arc<ServerConfig>>,
    /// There may be connections to accept.
    pending: bool,
}

/// A client that has been accepted.
pub struct Accepted {
    /// Its connection.
    pub stream: TcpStream,
    /// Where it comes from.
    pub address: SocketAddr,
    /// How TLS is spoken with it, if it is.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Listeners {
    /// Takes over sockets that listen already.
    ///
    /// # Errors
    /// A socket can not be set up.
    pub fn new(sockets: Vec<(std::net::TcpListener, Option<Arc<ServerConfig>>)>) -> io::Result<Self> {
        let mut listeners = Listeners { sockets: Vec::new() };
        for (socket, tls) in sockets {
            socket.set_nonblocking(true)?;
            // Accepted sockets inherit both, which saves two system calls each.
            setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
            setsockopt(&socket, sockopt::KeepAlive, &true)?;
            listeners.sockets.push(Listener { socket: TcpListener::from_std(socket), tls, pending: true });
        }
        Ok(listeners)
    }

    /// Watches the sockets, under tokens from 0.
    ///
    /// # Errors
    /// The system refuses to watch one.
    pub fn register(&mut self, registry: &mio::Registry) -> io::Result<()> {
        for (i, listener) in self.sockets.iter_mut().enumerate() {
            registry.register(&mut listener.socket, Token(i), Interest::READABLE)?;
        }
        Ok(())
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
                        return Ok(Some(Accepted { stream, address, tls: listener.tls.clone() }));
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
