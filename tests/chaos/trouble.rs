// SPDX-License-Identifier: AGPL-3.0-or-later
//! What happens to the processes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pushpin_tests::client;
use pushpin_tests::suite::{Stopped, Suite};
use pushpin_tests::until;
use simulation::random::Random;

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Handler,
    Proxy,
    Outbound,
}

const PARTS: [Part; 3] = [Part::Handler, Part::Proxy, Part::Outbound];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Handler => "handler",
            Part::Proxy => "proxy",
            Part::Outbound => "outbound",
        }
    }
}

/// How often the state of each part has changed: it is ending, or there is a successor.
#[derive(Default)]
pub struct Deaths([AtomicUsize; 3]);

impl Deaths {
    pub fn of(&self, part: Part) -> usize {
        self.0[part as usize].load(Ordering::SeqCst)
    }

    /// Whether a part has been ending at some time since its count was this.
    pub fn since(&self, part: Part, count: usize) -> bool {
        count % 2 == 1 || self.of(part) > count
    }

    fn change(&self, part: Part) {
        self.0[part as usize].fetch_add(1, Ordering::SeqCst);
    }
}

/// What is done to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Kill,
    Terminate,
    Stop,
}

/// Something that has happened.
pub struct Event {
    pub part: Part,
    pub deed: Deed,
    pub at: Instant,
    /// From when on it could be served again: its successor ran, or it went on.
    pub runs: Instant,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.deed, self.part.name())
    }
}

/// See the module.
pub struct Trouble {
    random: Random,
    suite: Arc<Suite>,
    deaths: Arc<Deaths>,
}

impl Trouble {
    /// What follows from a seed.
    pub fn new(seed: u64, suite: Arc<Suite>, deaths: Arc<Deaths>) -> Self {
        Trouble { random: Random::new(seed), suite, deaths }
    }

    /// Waits a moment and does something, to two parts at once now and then. It ends when all can serve again.
    pub fn next(&mut self) -> Vec<Event> {
        thread::sleep(Duration::from_millis(100 + self.random.below(1400) as u64));
        let first = PARTS[self.random.below(3)];
        let second = PARTS[(first as usize + 1 + self.random.below(2)) % 3];
        let parts = if self.random.once_in(5) { vec![first, second] } else { vec![first] };
        let deeds: Vec<Deed> = parts.iter().map(|_| self.deed()).collect();
        let pause = Duration::from_millis(50 + self.random.below(1500) as u64);
        let before = self.suite.children();
        let (mut events, mut stopped) = (Vec::new(), Vec::new());
        let parts_end = deeds.iter().any(|deed| *deed != Deed::Stop);
        for (part, deed) in parts.into_iter().zip(deeds) {
            let at = Instant::now();
            match deed {
                // The handler's successor does not wait for it for longer than a second.
                Deed::Stop if part == Part::Proxy && parts_end => {
                    self.deaths.change(part);
                    stopped.push(Stopped::new(self.suite.pid(part.name())));
                }
                Deed::Stop => stopped.push(Stopped::new(self.suite.pid(part.name()))),
                Deed::Kill => self.end(part, Signal::SIGKILL),
                Deed::Terminate => self.end(part, Signal::SIGTERM),
            }
            events.push(Event { part, deed, at, runs: at });
        }
        if !stopped.is_empty() {
            thread::sleep(pause);
            stopped.clear();
        }
        for event in &mut events {
            let name = format!("pushpin-{}", event.part.name());
            let name = &name[..name.len().min(15)];
            if event.deed != Deed::Stop {
                until("there is a successor", || {
                    self.suite.children().get(name).is_some_and(|pid| before.get(name) != Some(pid))
                });
            }
            event.runs = Instant::now();
        }
        // What was sent to one that has ended is answered by then.
        let port = self.suite.port;
        until("requests are answered", || client::get(port, "/poll?0").is_ok_and(|r| r.head.status == 200));
        for event in events.iter().filter(|event| self.deaths.of(event.part) % 2 == 1) {
            self.deaths.change(event.part);
        }
        println!("{}", events.iter().map(|event| event.to_string()).collect::<Vec<_>>().join(" and "));
        events
    }

    fn deed(&mut self) -> Deed {
        match self.random.below(4) {
            0 => Deed::Stop,
            1 => Deed::Terminate,
            _ => Deed::Kill,
        }
    }

    fn end(&self, part: Part, signal: Signal) {
        self.deaths.change(part);
        self.suite.send(part.name(), signal);
    }
}
