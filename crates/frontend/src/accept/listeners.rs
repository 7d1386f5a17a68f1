//! Listening sockets.
//!
//! They come from the runner, so that callers wait in the backlog while a frontend is replaced, or are bound here. While
//! no client may come, further ones wait in the backlog (frontend, listening).

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use nix::sys::socket::{setsockopt, sockopt};

/// The listening sockets of a worker.
pub struct Listeners {
    /// Each with whether there may be connections to accept.
    sockets: Vec<(TcpListener, bool)>,
}

impl Listeners {
    /// Takes over sockets that listen already.
    ///
    /// # Errors
    /// A socket can not be set up.
    pub fn new(sockets: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let mut listeners = Listeners { sockets: Vec::new() };
        for socket in sockets {
            socket.set_nonblocking(true)?;
            // Accepted sockets inherit both, which saves two system calls each.
            setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
            setsockopt(&socket, sockopt::KeepAlive, &true)?;
            listeners.sockets.push((TcpListener::from_std(socket), true));
        }
        Ok(listeners)
    }

    /// Watches the sockets, under tokens from 0.
    ///
    /// # Errors
    /// The system refuses to watch one.
    pub fn register(&mut self, registry: &mio::Registry) -> io::Result<()> {
        for (i, (socket, _)) in self.sockets.iter_mut().enumerate() {
            registry.register(socket, Token(i), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Notes that a socket has connections to accept; `false` if the token is not that of a listener.
    pub fn on_ready(&mut self, token: usize) -> bool {
        match self.sockets.get_mut(token) {
            Some((_, pending)) => {
                *pending = true;
                true
            }
            None => false,
        }
    }

    /// Whether there may be connections to accept.
    pub fn is_pending(&self) -> bool {
        self.sockets.iter().any(|(_, pending)| *pending)
    }

    /// Accepts a connection, if there is one.
    ///
    /// # Errors
    /// The system is out of files or memory.
    pub fn accept(&mut self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        for (socket, pending) in &mut self.sockets {
            while *pending {
                match socket.accept() {
                    Ok(accepted) => return Ok(Some(accepted)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => *pending = false,
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
