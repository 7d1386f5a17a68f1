// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is done to the processes.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client;
use pushpin_tests::suite::{Stopped, is_alive};
use pushpin_tests::until;
use simulation::random::Random;

use crate::crowd::Presence;
use crate::load::Load;
use crate::news::{News, To};
use crate::site::Site;

/// How long it may take until all clients have messages again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Handler,
    Proxy,
    Outbound,
    Frontend,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Handler, Part::Proxy, Part::Outbound, Part::Frontend];

    pub fn name(self) -> &'static str {
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
#[derive(Clone, Copy)]
pub struct Event {
    pub part: Part,
    pub deed: Deed,
    pub at: Instant,
    /// From when on it could serve again: its successor ran, or it went on.
    pub runs: Instant,
    /// Those that happened before clients had recovered from the one before have the same number.
    pub spell: usize,
}

/// All that has happened.
#[derive(Default)]
pub struct History {
    /// In the order in which it did.
    pub events: Vec<Event>,
    /// When clients had recovered from each spell.
    pub recoveries: Vec<Instant>,
}

impl Event {
    /// The process has ended, and left what it knew to its successor.
    pub fn is_end(&self) -> bool {
        matches!(self.deed, Deed::Kill | Deed::Terminate)
    }
}

/// See the module.
pub struct Trouble<'a> {
    random: Random,
    site: &'a Site,
    /// What it is done to.
    parts: Vec<Part>,
    begin: Instant,
    news: &'a News,
    presence: &'a Presence,
    spell: usize,
}

impl<'a> Trouble<'a> {
    /// What follows from a seed.
    pub fn new(load: &Load, site: &'a Site, news: &'a News, presence: &'a Presence, begin: Instant) -> Self {
        Trouble { random: Random::new(load.seed), parts: load.parts.clone(), site, news, presence, begin, spell: 0 }
    }

    /// Waits a moment and does something, to two parts at once now and then. It ends when all run again.
    pub fn next(&mut self) -> Vec<Event> {
        thread::sleep(Duration::from_millis(100 + self.random.below(1400) as u64));
        let count = self.parts.len();
        let first = self.random.below(count);
        let second = (first + 1 + self.random.below(count - 1)) % count;
        let chosen = if self.random.once_in(5) && count > 1 { vec![first, second] } else { vec![first] };
        let chosen: Vec<Part> = chosen.into_iter().map(|index| self.parts[index]).collect();
        let deeds: Vec<(Part, Deed)> = chosen.into_iter().map(|part| (part, self.deed(part))).collect();
        let pause = Duration::from_millis(50 + self.random.below(1500) as u64);
        let names: Vec<String> = deeds.iter().map(|(part, deed)| format!("{deed:?} {}", part.name())).collect();
        println!("{:6} ms: {}", self.begin.elapsed().as_millis(), names.join(" and "));
        let mut events = thread::scope(|scope| {
            let doers: Vec<_> =
                deeds.iter().map(|(part, deed)| scope.spawn(|| self.run(*part, *deed, pause))).collect();
            doers.into_iter().map(|doer| doer.join().unwrap()).collect::<Vec<Event>>()
        });
        // What was sent to one that has ended is answered by then.
        until("requests are answered", || {
            client::get(self.site.ports().clients, "/any/channel").is_ok_and(|r| r.head.status == 200)
        });
        events.sort_by_key(|event| event.at);
        events
    }

    /// Waits until all clients have messages that are published from now on, and tells when that is; but now and then not, so that what happens
    /// next comes in the middle of it.
    pub fn recover(&mut self) -> Option<Instant> {
        if self.random.once_in(4) {
            return None;
        }
        let next = To::ALL.map(|to| self.news.channel(to).newest() + 1);
        let begin = Instant::now();
        while !self.presence.have_heard(next) {
            assert!(begin.elapsed() < PATIENCE, "waited in vain until all clients have messages again");
            thread::sleep(Duration::from_millis(10));
        }
        println!("{:6} ms: clients have messages again", self.begin.elapsed().as_millis());
        self.spell += 1;
        Some(Instant::now())
    }

    fn deed(&mut self, part: Part) -> Deed {
        match self.random.below(4) {
            _ if part == Part::Frontend => Deed::Replace,
            0 => Deed::Stop,
            1 => Deed::Terminate,
            _ => Deed::Kill,
        }
    }

    /// Does it, and waits until the part serves again.
    fn run(&self, part: Part, deed: Deed, pause: Duration) -> Event {
        // One that has died several times within seconds is started again only after a while.
        until("the part runs", || !self.site.pids(part).is_empty());
        let old = self.site.pids(part);
        // Pushpin's have ended if one of the others has.
        let signal = |signal| {
            old.iter().for_each(|pid| {
                let _ = kill(Pid::from_raw(*pid), signal);
            });
        };
        let at = Instant::now();
        match deed {
            Deed::Stop => {
                let stopped: Vec<Stopped> = old.iter().map(|pid| Stopped::new(*pid)).collect();
                thread::sleep(pause);
                drop(stopped);
            }
            Deed::Kill => signal(Signal::SIGKILL),
            Deed::Terminate => signal(Signal::SIGTERM),
            Deed::Replace => self.site.replace_frontends(),
        }
        if deed != Deed::Stop {
            until("there is a successor", || {
                let new = self.site.pids(part);
                new.len() >= old.len() && !old.iter().any(|pid| is_alive(*pid))
            });
        }
        Event { part, deed, at, runs: Instant::now(), spell: self.spell }
    }
}
