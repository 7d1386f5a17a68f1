//! One thread's event loop: waits until a ZeroMQ socket can be read, a TCP socket is ready, or another thread calls.
//!
//! A worker makes a reactor, adds its ZeroMQ sockets under numbers of its choice, registers its TCP sockets with
//! [`Reactor::registry`], and calls [`Reactor::wait`] in a loop. It reads a reported ZeroMQ socket until it is empty or
//! until it has done enough for one turn; what is left is reported again by the next `wait`.

use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::error::Error;
use crate::socket::{Handle, Registration};

/// Readiness reports taken from the system at once.
const EVENTS_A_TURN: usize = 1024;
/// libzmq does not say when a full ROUTER has room again, so what waits is tried again after this time.
const RETRY: Duration = Duration::from_millis(2);
/// Tokens from here on are the reactor's own.
const FIRST_SOCKET: usize = usize::MAX - 64;
const WAKE: Token = Token(usize::MAX - 65);

/// A socket that a reactor can wait for.
pub trait Polled {
    /// What the reactor needs to know of it.
    fn registration(&self) -> Registration;
}

/// Something to attend to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The ZeroMQ socket added under this number can be read.
    Socket(usize),
    /// A source registered by the worker itself, under its own token.
    Source {
        /// The token it was registered with.
        token: usize,
        /// Data, an end or an error can be read.
        readable: bool,
        /// Data can be written, or a connection attempt has ended.
        writable: bool,
        /// The peer has closed its side, or there is an error. It may have been reported together with the last data, and
        /// is not reported again.
        ended: bool,
    },
    /// Another thread used a [`Waker`].
    Wake,
}

/// Lets other threads end a [`Reactor::wait`].
#[derive(Clone)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Makes the reactor report [`Event::Wake`] soon.
    pub fn wake(&self) {
        // It fails only when the descriptor is gone, with its reactor; then nobody waits.
        let _ = self.0.wake();
    }
}

struct Watched {
    number: usize,
    core: Handle,
    paused: bool,
}

/// Waits for everything that concerns one thread.
pub struct Reactor {
    poll: Poll,
    events: Events,
    sockets: Vec<Watched>,
    waker: Waker,
}

impl Reactor {
    /// A reactor that waits for nothing yet.
    pub fn new() -> Result<Self, Error> {
        let poll = Poll::new()?;
        let waker = Waker(Arc::new(mio::Waker::new(poll.registry(), WAKE)?));
        Ok(Reactor { poll, events: Events::with_capacity(EVENTS_A_TURN), sockets: Vec::new(), waker })
    }

    /// Reports the socket as `Event::Socket(number)`.
    pub fn add(&mut self, number: usize, socket: &impl Polled) -> Result<(), Error> {
        let core = socket.registration().0;
        let token = Token(FIRST_SOCKET + self.sockets.len());
        self.poll.registry().register(&mut SourceFd(&core.fd), token, Interest::READABLE)?;
        self.sockets.push(Watched { number, core, paused: false });
        Ok(())
    }

    /// Stops or resumes reporting a socket, for a worker that can not take more from it for now. Peers then feel the
    /// socket's high-water mark.
    pub fn pause(&mut self, number: usize, paused: bool) {
        for socket in self.sockets.iter_mut().filter(|socket| socket.number == number) {
            socket.paused = paused;
            // What came in the meantime has had its edge; so ask again.
            socket.core.touched.set(true);
        }
    }

    /// Where sockets that are not ZeroMQ's are registered; any token up to `usize::MAX / 2` may be used.
    pub fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// A handle for other threads.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for events, at most `timeout` (`None`: without end), and puts them in `ready`, which is cleared first.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Error> {
        ready.clear();
        let mut waiting = false;
        for Watched { number, core, paused } in &self.sockets {
            if core.waiting() > 0 {
                core.flush();
                waiting |= core.waiting() > 0;
            }
            if !paused && core.touched.get() && core.readable() {
                core.touched.set(true);
                ready.push(Event::Socket(*number));
            }
        }
        let timeout = match timeout {
            _ if !ready.is_empty() => Some(Duration::ZERO),
            Some(timeout) if waiting => Some(timeout.min(RETRY)),
            None if waiting => Some(RETRY),
            timeout => timeout,
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        for event in &self.events {
            let token = event.token().0;
            if token >= FIRST_SOCKET {
                let Watched { number, core, paused } = &self.sockets[token - FIRST_SOCKET];
                // Reported above already if it was touched and readable.
                if *paused {
                    core.touched.set(true);
                } else if !core.touched.get() && core.readable() {
                    core.touched.set(true);
                    ready.push(Event::Socket(*number));
                }
            } else if event.token() == WAKE {
                ready.push(Event::Wake);
            } else {
                ready.push(Event::Source {
                    token,
                    readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                    writable: event.is_writable() || event.is_write_closed() || event.is_error(),
                    ended: event.is_read_closed() || event.is_error(),
                });
            }
        }
        Ok(())
    }

    /// Tries to send what waits in the sockets' backlogs, for at most `patience`. For an orderly end.
    pub fn drain(&mut self, patience: Duration) {
        let end = std::time::Instant::now() + patience;
        loop {
            self.sockets.iter().for_each(|socket| socket.core.flush());
            if self.sockets.iter().all(|socket| socket.core.waiting() == 0) || std::time::Instant::now() >= end {
                return;
            }
            std::thread::sleep(RETRY);
        }
    }
}
