// SPDX-License-Identifier: AGPL-3.0-or-later
//! All clients, in one thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};

use crate::client::Client;
use crate::news::To;
use crate::socket::Socket;

const TICK: Duration = Duration::from_millis(20);
/// So many may be on their way in at a time.
const ARRIVING: usize = 50;

/// How many are there, for those who wait for them.
#[derive(Default)]
pub struct Presence {
    pub open: AtomicUsize,
    pub satisfied: AtomicUsize,
    /// By [`To`]: the last message that all have who are to hear them.
    heard: [AtomicUsize; 4],
}

impl Presence {
    /// Whether all have these messages, by [`To`], or later ones.
    pub fn have_heard(&self, numbers: [usize; 4]) -> bool {
        self.heard.iter().zip(numbers).all(|(heard, number)| heard.load(Ordering::SeqCst) >= number)
    }
}

/// See the module.
pub struct Crowd {
    port: u16,
    poll: Poll,
    places: Vec<(Client, Option<Socket>)>,
}

impl Crowd {
    pub fn new(port: u16, clients: Vec<Client>) -> Self {
        let places = clients.into_iter().map(|client| (client, None)).collect();
        Crowd { port, poll: Poll::new().unwrap(), places }
    }

    /// Serves them until it is over.
    pub fn run(mut self, presence: &Presence, is_over: impl Fn() -> bool) -> Vec<Client> {
        let mut events = Events::with_capacity(1024);
        let mut tick_at = Instant::now();
        while !is_over() {
            let timeout = tick_at.saturating_duration_since(Instant::now());
            // It may be interrupted.
            let _ = self.poll.poll(&mut events, Some(timeout));
            for event in &events {
                self.ready(event.token().0);
            }
            if tick_at <= Instant::now() {
                self.tick();
                let count = |of: fn(&Client) -> bool| self.places.iter().filter(|(client, _)| of(client)).count();
                presence.open.store(count(Client::is_open), Ordering::SeqCst);
                presence.satisfied.store(count(Client::has_enough), Ordering::SeqCst);
                for to in To::ALL {
                    let hearers = self.places.iter().filter(|(client, _)| client.kind.hears().contains(&to));
                    let last = |client: &Client| if client.is_open() { client.hearing(to).last() } else { 0 };
                    let heard = hearers.map(|(client, _)| last(client)).min();
                    presence.heard[to as usize].store(heard.unwrap_or(usize::MAX), Ordering::SeqCst);
                }
                tick_at = Instant::now() + TICK;
            }
        }
        self.places.into_iter().map(|(client, _)| client).collect()
    }

    fn ready(&mut self, index: usize) {
        let (client, socket) = &mut self.places[index];
        let Some(connected) = socket else { return };
        let read = connected.read().map_err(|error| error.to_string());
        // What came before the end counts.
        let heard = client.hear(&mut connected.input, &mut connected.output, Instant::now());
        let written = connected.write().map_err(|error| error.to_string());
        if let Err(why) = heard.and(read).and(written) {
            client.closed(&why, Instant::now());
            *socket = None;
        }
    }

    fn tick(&mut self) {
        let mut arriving = self.places.iter().filter(|(client, _)| client.is_opening()).count();
        for (index, (client, socket)) in self.places.iter_mut().enumerate() {
            let now = Instant::now();
            if client.wants_connection(now) && arriving < ARRIVING {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
                let connected = TcpStream::connect(address);
                *socket = connected.and_then(|stream| Socket::new(stream, Token(index), self.poll.registry())).ok();
                if let Some(socket) = socket {
                    arriving += 1;
                    client.connect(now, &mut socket.output);
                }
            }
            let Some(connected) = socket else { continue };
            if client.leaves(now) {
                *socket = None;
                continue;
            }
            let ticked = client.tick(now, &mut connected.output);
            if let Err(why) = ticked.and(connected.write().map_err(|error| error.to_string())) {
                client.closed(&why, now);
                *socket = None;
            }
        }
    }
}
