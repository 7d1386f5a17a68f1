// SPDX-License-Identifier: AGPL-3.0-or-later
//! One thread's event loop: waits until a ZeroMQ socket can be read, a TCP socket is ready, or another thread calls.
//!
//! A worker makes a reactor, adds its ZeroMQ sockets under numbers of its choice, registers its TCP sockets with
//! [`Reactor::registry`], and calls [`Reactor::wait`] in a loop. It reads a reported ZeroMQ socket until it is empty or
//! until it has done enough for one turn; what is left is reported again by the next `wait`. What it sends to peers on
//! this machine is collected and leaves with the next `wait`, so that a turn costs one system call for each peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::error::Error;
use crate::socket::{Engine, Handle, Polled};

/// Readiness reports taken from the system at once.
const EVENTS_A_TURN: usize = 1024;
/// libzmq does not say when a full ROUTER has room again, so what waits is tried again after this time.
const RETRY: Duration = Duration::from_millis(2);
/// Tokens from here on are the reactor's own: a socket has this many, for its connections.
const FIRST_SOCKET: usize = usize::MAX / 2 + 1;
const TOKENS_A_SOCKET: usize = 1 << 32;
const WAKE: Token = Token(usize::MAX - 1);

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
        let base = FIRST_SOCKET + self.sockets.len() * TOKENS_A_SOCKET;
        let registry = self.poll.registry();
        match &core.engine {
            Engine::Direct(socket) => socket.attach(registry.try_clone()?, base)?,
            Engine::Libzmq(socket) => {
                registry.register(&mut SourceFd(&socket.fd()), Token(base), Interest::READABLE)?
            }
        }
        self.sockets.push(Watched { number, core, paused: false });
        Ok(())
    }

    /// Stops or resumes reporting a socket, for a worker that can not take more from it for now. Peers then feel the
    /// socket's high-water mark.
    pub fn pause(&mut self, number: usize, paused: bool) {
        for socket in self.sockets.iter_mut().filter(|socket| socket.number == number) {
            socket.paused = paused;
            // What came in the meantime has had its edge; so ask again.
            socket.core.touch();
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
        let now = Instant::now();
        let (mut retrying, mut due) = (false, None);
        for Watched { number, core, paused } in &self.sockets {
            core.flush(now);
            retrying |= core.is_retrying();
            due = [due, core.next_due(now)].into_iter().flatten().min();
            match &core.engine {
                Engine::Direct(socket) => {
                    if !paused && socket.is_readable() {
                        ready.push(Event::Socket(*number));
                    }
                }
                Engine::Libzmq(socket) => {
                    if !paused && socket.readable_after_use() {
                        ready.push(Event::Socket(*number));
                    }
                }
            }
        }
        let own = [retrying.then_some(RETRY), due.map(|due| due.saturating_duration_since(now))];
        let timeout = match timeout {
            _ if !ready.is_empty() => Some(Duration::ZERO),
            timeout => [timeout].into_iter().chain(own).flatten().min(),
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let now = Instant::now();
        for event in &self.events {
            let token = event.token().0;
            let readable = event.is_readable() || event.is_read_closed() || event.is_error();
            let writable = event.is_writable() || event.is_write_closed() || event.is_error();
            let ended = event.is_read_closed() || event.is_error();
            if event.token() == WAKE {
                ready.push(Event::Wake);
            } else if token < FIRST_SOCKET {
                ready.push(Event::Source { token, readable, writable, ended });
            } else if let Some(number) = self.on_socket(token - FIRST_SOCKET, (readable, writable, ended), now) {
                let event = Event::Socket(number);
                // A socket has several connections, and may have been reported above.
                if !ready.iter().rev().any(|earlier| *earlier == event) {
                    ready.push(event);
                }
            }
        }
        Ok(())
    }

    /// Readiness of one of a ZeroMQ socket's descriptors; the socket's number if it can be read.
    fn on_socket(&self, token: usize, ready: (bool, bool, bool), now: Instant) -> Option<usize> {
        let Watched { number, core, paused } = self.sockets.get(token / TOKENS_A_SOCKET)?;
        let report = match &core.engine {
            Engine::Direct(socket) => {
                let (readable, writable, ended) = ready;
                socket.on_ready(token % TOKENS_A_SOCKET, readable, writable, ended, now);
                !paused && socket.is_readable()
            }
            Engine::Libzmq(socket) if *paused => {
                socket.touch();
                false
            }
            Engine::Libzmq(socket) => socket.readable_after_edge(),
        };
        report.then_some(*number)
    }

    /// Adds the warnings about its sockets so far, by kind.
    pub fn add_warnings(&self, totals: &mut BTreeMap<&'static str, u64>) {
        self.sockets.iter().for_each(|socket| socket.core.add_warnings(totals));
    }

    /// Sends what has been collected, as far as peers take it; otherwise it leaves with the next [`Reactor::wait`].
    pub fn flush(&self) {
        let now = Instant::now();
        self.sockets.iter().for_each(|socket| socket.core.flush(now));
    }

    /// Leaves the addresses that the sockets have bound on this machine to a successor, which has bound them already. Links
    /// go on, and peers are told to connect to the successor as well; those of libzmq do so only when their link ends.
    pub fn give_way(&self) {
        self.sockets.iter().for_each(|socket| socket.core.give_way());
    }

    /// The addresses of sockets that another process has packed are ours from now on.
    pub fn claim(&self) {
        self.sockets.iter().for_each(|socket| socket.core.claim());
    }

    /// Another process has addresses and links of the sockets from now on; they are of no use here any more.
    pub fn let_go(&self) {
        self.sockets.iter().for_each(|socket| socket.core.let_go());
    }

    /// Takes back the addresses on this machine that a successor has bound, which has failed.
    ///
    /// # Errors
    /// One can not be bound.
    pub fn bind_again(&self) -> Result<(), Error> {
        self.sockets.iter().try_for_each(|socket| socket.core.bind_again())
    }

    /// Sends what waits, for at most `patience`; whether all of it has left. For an orderly end. What peers send in the
    /// meantime is not read.
    pub fn drain(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut ready = Vec::new();
        // What can be read does not end the waiting.
        let paused: Vec<bool> = self.sockets.iter_mut().map(|s| std::mem::replace(&mut s.paused, true)).collect();
        let done = loop {
            let now = Instant::now();
            self.sockets.iter().for_each(|socket| socket.core.flush(now));
            let done = self.sockets.iter().all(|socket| socket.core.unsent() == 0);
            if done || now >= end || self.wait(Some(RETRY), &mut ready).is_err() {
                break done;
            }
        };
        for (socket, paused) in self.sockets.iter_mut().zip(paused) {
            socket.paused = paused;
            socket.core.touch();
        }
        done
    }
}
