//! Listening sockets, and when to accept from them.
//!
//! They come from the runner, so that callers wait in the backlog while a frontend is replaced, or are bound here. When
//! the frontend has as many clients as it may have, it stops accepting; further ones wait in the backlog until one
//! leaves (frontend, listening).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use nix::sys::socket::{setsockopt, sockopt};

/// How long to wait after the system was out of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening sockets of a worker.
pub struct Listeners {
    /// Clients at once; more wait in the backlog.
    pub max_clients: usize,
    sockets: Vec<(TcpListener, bool)>,
    paused_until: Option<Instant>,
}

impl Listeners {
    /// Takes over sockets that listen already.
    ///
    /// # Errors
    /// A socket can not be set up.
    pub fn new(sockets: Vec<std::net::TcpListener>, max_clients: usize) -> io::Result<Self> {
        let mut listeners = Listeners { max_clients, sockets: Vec::new(), paused_until: None };
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

    /// Whether there may be connections to accept now.
    pub fn is_pending(&self) -> bool {
        self.paused_until.is_none_or(|until| until <= Instant::now())
            && self.sockets.iter().any(|(_, pending)| *pending)
    }

    /// Accepts a connection, if there is one.
    ///
    /// # Errors
    /// The system is out of files or memory; accepting pauses for a moment.
    pub fn accept(&mut self) -> io::Result<Option<(TcpStream, Option<SocketAddr>)>> {
        for (socket, pending) in &mut self.sockets {
            while *pending {
                match socket.accept() {
                    Ok((stream, address)) => return Ok(Some((stream, Some(address)))),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => *pending = false,
                    // The client gave up while it waited.
                    Err(e)
                        if e.kind() == io::ErrorKind::ConnectionAborted || e.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.paused_until = Some(Instant::now() + PAUSE);
                        return Err(error);
                    }
                }
            }
        }
        Ok(None)
    }

    /// When accepting goes on after a pause.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until.filter(|_| self.sockets.iter().any(|(_, pending)| *pending))
    }
}
