// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is done to the processes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client;
use pushpin_tests::suite::{Stopped, Suite, is_alive};
use pushpin_tests::until;
use simulation::random::Random;

use crate::faults::{Fault, Faults};

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Handler,
    Proxy,
    Outbound,
    Frontend,
}

const PARTS: [Part; 4] = [Part::Handler, Part::Proxy, Part::Outbound, Part::Frontend];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Handler => "handler",
            Part::Proxy => "proxy",
            Part::Outbound => "outbound",
            Part::Frontend => "frontend",
        }
    }
}

/// What is done to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Kill,
    Terminate,
    /// It does nothing for a while.
    Stop,
    /// Successors take over its clients. This is for frontends only.
    Replace,
}

/// Something that has happened.
pub struct Event {
    pub part: Part,
    pub deed: Deed,
    pub at: Instant,
    /// From when on it could serve again: its successor ran, or it went on.
    pub runs: Instant,
}

/// See the module.
pub struct Trouble {
    random: Random,
    suite: Arc<Suite>,
    faults: Arc<Faults>,
    begin: Instant,
}

impl Trouble {
    /// What follows from a seed.
    pub fn new(seed: u64, suite: Arc<Suite>, faults: Arc<Faults>, begin: Instant) -> Self {
        Trouble { random: Random::new(seed), suite, faults, begin }
    }

    /// Waits a moment and does something, to two parts at once now and then. It ends when all can serve again.
    pub fn next(&mut self) -> Vec<Event> {
        thread::sleep(Duration::from_millis(100 + self.random.below(1400) as u64));
        let first = self.random.below(PARTS.len());
        let second = (first + 1 + self.random.below(PARTS.len() - 1)) % PARTS.len();
        let parts = if self.random.once_in(5) { vec![first, second] } else { vec![first] };
        let deeds: Vec<(Part, Deed)> = parts.into_iter().map(|part| (PARTS[part], self.deed(PARTS[part]))).collect();
        let pause = Duration::from_millis(50 + self.random.below(1500) as u64);
        let names: Vec<String> = deeds.iter().map(|(part, deed)| format!("{deed:?} {}", part.name())).collect();
        println!("{:6} ms: {}", self.begin.elapsed().as_millis(), names.join(" and "));
        self.expect_faults(&deeds);
        let mut events = thread::scope(|scope| {
            let doers: Vec<_> =
                deeds.iter().map(|(part, deed)| scope.spawn(|| self.run(*part, *deed, pause))).collect();
            doers.into_iter().map(|doer| doer.join().unwrap()).collect::<Vec<Event>>()
        });
        // What was sent to one that has ended is answered by then.
        until("requests are answered", || {
            client::get(self.suite.port, "/any/channel").is_ok_and(|r| r.head.status == 200)
        });
        self.faults.end();
        events.sort_by_key(|event| event.at);
        events
    }

    fn deed(&mut self, part: Part) -> Deed {
        match self.random.below(4) {
            _ if part == Part::Frontend => Deed::Replace,
            0 => Deed::Stop,
            1 => Deed::Terminate,
            _ => Deed::Kill,
        }
    }

    fn expect_faults(&self, deeds: &[(Part, Deed)]) {
        let ends = |part: Part| deeds.iter().any(|(other, deed)| *other == part && *deed != Deed::Stop);
        if ends(Part::Proxy) {
            self.faults.begin(Fault::Proxy);
        }
        if ends(Part::Outbound) {
            self.faults.begin(Fault::Outbound);
        }
        // The handler's successor does not wait for the proxy for longer than a second.
        if ends(Part::Handler) && deeds.contains(&(Part::Proxy, Deed::Stop)) {
            self.faults.begin(Fault::Both);
        }
    }

    /// Does it, and waits until the part serves again.
    fn run(&self, part: Part, deed: Deed, pause: Duration) -> Event {
        // One that has died several times within seconds is started again only after a while.
        until("the part runs", || !self.suite.pids(part.name()).is_empty());
        let old = self.suite.pids(part.name());
        let signal = |signal| old.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
        let at = Instant::now();
        match deed {
            Deed::Stop => {
                let stopped: Vec<Stopped> = old.iter().map(|pid| Stopped::new(*pid)).collect();
                thread::sleep(pause);
                drop(stopped);
            }
            Deed::Kill => signal(Signal::SIGKILL),
            Deed::Terminate => signal(Signal::SIGTERM),
            Deed::Replace => {
                let output = self.suite.run_with(&["ctl", "restart", part.name()]);
                assert!(output.status.success(), "{output:?}");
            }
        }
        if deed != Deed::Stop {
            until("there is a successor", || {
                let new = self.suite.pids(part.name());
                new.len() >= old.len() && !old.iter().any(|pid| is_alive(*pid))
            });
        }
        Event { part, deed, at, runs: Instant::now() }
    }
}
