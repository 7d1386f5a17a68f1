// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names of backends to addresses, by the system's resolver.
//!
//! The resolver blocks, so it runs on threads of its own; [`lookups`](super::lookups) says which name is next. Answers are
//! remembered for some seconds, which is long enough to spare a busy proxy the question and short enough to follow a
//! backend that moves.
//!
//! Whoever asks has a deadline of its own and says when it is over ([`Resolver::give_up`]), so that no more wait than there
//! are exchanges, and no name waits for a thread that nobody wants any more. A thread that asks the system can not be called
//! back: it is busy for as long as `resolv.conf` allows (`timeout` and `attempts` there).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use transport::Waker;

use super::lookups::Lookups;

/// Answers remembered.
const MAX_CACHED: usize = 4096;
/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(10);
/// How long the lack of an answer is.
const FAILED: Duration = Duration::from_secs(1);

/// Addresses of a name, in the order in which to try them; empty if there are none.
pub type Addresses = Rc<[IpAddr]>;

/// What is known about a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// These addresses; none if the name has none.
    Known(Addresses),
    /// The question has been asked; the answer comes out of [`Resolver::answered`].
    Asked,
    /// Too many questions wait.
    Busy,
}

/// Someone who waits for an answer: slot and serial of an exchange.
pub type Asker = (usize, u64);

/// A name and its addresses.
type Resolved = (Box<str>, Vec<IpAddr>);

/// Asks for the addresses of a name; may block.
pub type Ask = Arc<dyn Fn(&str) -> Vec<IpAddr> + Send + Sync>;

struct Answer {
    addresses: Addresses,
    until: Instant,
}

/// The names that are known, and the threads that ask for others.
pub struct Resolver {
    known: HashMap<Box<str>, Answer>,
    asked: HashMap<Box<str>, BTreeSet<Asker>>,
    lookups: Lookups,
    threads: usize,
    ask: Ask,
    questions: Sender<Box<str>>,
    answers: Receiver<Resolved>,
    /// What threads are started with, until the first question.
    unstarted: Option<(Receiver<Box<str>>, Sender<Resolved>, Waker)>,
}

impl Resolver {
    /// A resolver that uses `waker` when there are answers. Its `threads` are started by the first question; `queue` names may
    /// wait for one.
    pub fn new(waker: Waker, threads: usize, queue: usize) -> Self {
        Self::with(Arc::new(system_lookup), waker, threads, queue)
    }

    /// The same, with another way to ask than the system's.
    pub fn with(ask: Ask, waker: Waker, threads: usize, queue: usize) -> Self {
        // Bounded by `lookups`: no name is sent that has no thread.
        let (questions, to_ask) = channel();
        let (answer, answers) = channel();
        let unstarted = Some((to_ask, answer, waker));
        Resolver {
            known: HashMap::new(),
            asked: HashMap::new(),
            lookups: Lookups::new(threads, queue),
            threads: threads.max(2),
            ask,
            questions,
            answers,
            unstarted,
        }
    }

    /// Looks a name up; an address means itself.
    pub fn look_up(&mut self, host: &str, asker: Asker, now: Instant) -> Lookup {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Lookup::Known(Rc::new([address]));
        }
        if let Some(answer) = self.known.get(host).filter(|answer| answer.until > now) {
            return Lookup::Known(answer.addresses.clone());
        }
        if let Some(askers) = self.asked.get_mut(host) {
            askers.insert(asker);
            return Lookup::Asked;
        }
        if !self.lookups.ask(host) {
            return Lookup::Busy;
        }
        self.asked.insert(host.into(), BTreeSet::from([asker]));
        self.start_threads();
        self.start(now);
        Lookup::Asked
    }

    /// An asker has come to its end without an answer.
    pub fn give_up(&mut self, host: &str, asker: Asker) {
        let Some(askers) = self.asked.get_mut(host) else { return };
        askers.remove(&asker);
        // One that is being looked up stays, so that it is not looked up by a second thread.
        if askers.is_empty() && self.lookups.withdraw(host) {
            self.asked.remove(host);
        }
    }

    fn start(&mut self, now: Instant) {
        while let Some(host) = self.lookups.start(now) {
            // Without threads nobody takes it; the deadlines of those who ask still hold.
            let _ = self.questions.send(host);
        }
    }

    /// The next answer that has come, and who waits for it. Call when woken, until there is none.
    pub fn answered(&mut self, now: Instant) -> Option<(Addresses, BTreeSet<Asker>)> {
        let (host, addresses) = self.answers.try_recv().ok()?;
        self.lookups.finished(&host, now);
        self.start(now);
        let addresses: Addresses = addresses.into();
        let askers = self.asked.remove(&host).unwrap_or_default();
        if self.known.len() >= MAX_CACHED {
            self.known.retain(|_, answer| answer.until > now);
        }
        if self.known.len() < MAX_CACHED {
            let until = now + if addresses.is_empty() { FAILED } else { FRESH };
            self.known.insert(host, Answer { addresses: addresses.clone(), until });
        }
        Some((addresses, askers))
    }

    fn start_threads(&mut self) {
        let Some((questions, answers, waker)) = self.unstarted.take() else { return };
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..self.threads {
            let (questions, answers, waker) = (questions.clone(), answers.clone(), waker.clone());
            let look_up = self.ask.clone();
            let ask = move || {
                loop {
                    // The lock is held while waiting: one thread waits for a question, the others for the lock.
                    let question = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(host) = question else { return };
                    let addresses = look_up(&host);
                    if answers.send((host, addresses)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            };
            if let Err(error) = thread::Builder::new().name("resolver".into()).spawn(ask) {
                tracing::error!("unable to start a thread for DNS lookups: {error}");
            }
        }
    }
}

fn system_lookup(host: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    match (host, 0).to_socket_addrs() {
        Ok(found) => {
            for address in found.map(|address| address.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Err(error) => tracing::debug!("unable to resolve {host}: {error}"),
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use transport::{Event, Reactor};

    #[test]
    fn addresses_mean_themselves() {
        let reactor = Reactor::new().unwrap();
        let mut resolver = Resolver::new(reactor.waker(), 4, 16);
        for host in ["127.0.0.1", "::1"] {
            let address: IpAddr = host.parse().unwrap();
            let lookup = resolver.look_up(host, (0, 0), Instant::now());
            assert_eq!(lookup, Lookup::Known(Rc::new([address])));
        }
    }

    #[test]
    fn a_name_is_answered_while_more_names_hang_than_there_are_threads() {
        let mut reactor = Reactor::new().unwrap();
        // Names hang until the sender is dropped.
        let (release, hang) = channel::<()>();
        let hang = Mutex::new(hang);
        let ask = move |host: &str| match host {
            "good" => vec![IpAddr::from([127, 0, 0, 1])],
            _ => {
                let _ = hang.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Vec::new()
            }
        };
        let mut resolver = Resolver::with(Arc::new(ask), reactor.waker(), 4, 16);
        let now = Instant::now();
        let mut good = |resolver: &mut Resolver, now| {
            assert_eq!(resolver.look_up("good", (1, 1), now), Lookup::Asked);
            let mut ready = Vec::new();
            for _ in 0..10 {
                if let Some((addresses, _)) = resolver.answered(now) {
                    return addresses;
                }
                reactor.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
            }
            panic!("no answer");
        };
        assert_eq!(good(&mut resolver, now).len(), 1);
        for number in 0..8 {
            assert_eq!(resolver.look_up(&format!("hangs-{number}"), (0, number), now), Lookup::Asked);
        }
        assert_eq!(good(&mut resolver, now + FRESH).len(), 1);
        drop(release);
    }

    #[test]
    fn names_that_nobody_waits_for_any_more_leave_room_for_others() {
        let reactor = Reactor::new().unwrap();
        let (release, hang) = channel::<()>();
        let hang = Mutex::new(hang);
        let ask = move |_: &str| {
            let _ = hang.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Vec::new()
        };
        let mut resolver = Resolver::with(Arc::new(ask), reactor.waker(), 2, 1);
        let now = Instant::now();
        let mut look_up = |host, asker| resolver.look_up(host, asker, now);
        assert_eq!(look_up("runs", (0, 0)), Lookup::Asked);
        assert_eq!(look_up("waits", (1, 1)), Lookup::Asked);
        assert_eq!(look_up("waits", (2, 2)), Lookup::Asked);
        assert_eq!(look_up("other", (3, 3)), Lookup::Busy);
        resolver.give_up("waits", (1, 1));
        assert_eq!(resolver.look_up("other", (3, 3), now), Lookup::Busy);
        resolver.give_up("waits", (2, 2));
        assert_eq!(resolver.look_up("other", (3, 3), now), Lookup::Asked);
        // A thread is at this one, so whoever asks again waits for the same answer.
        resolver.give_up("runs", (0, 0));
        assert_eq!(resolver.look_up("runs", (4, 4), now), Lookup::Asked);
        assert_eq!(resolver.asked["runs"], BTreeSet::from([(4, 4)]));
        drop(release);
    }

    #[test]
    fn a_name_is_asked_for_once_and_its_answer_remembered() {
        let mut reactor = Reactor::new().unwrap();
        let mut resolver = Resolver::new(reactor.waker(), 4, 16);
        let now = Instant::now();
        assert_eq!(resolver.look_up("localhost", (1, 10), now), Lookup::Asked);
        assert_eq!(resolver.look_up("localhost", (2, 20), now), Lookup::Asked);
        let mut ready = Vec::new();
        let (addresses, askers) = loop {
            reactor.wait(Some(Duration::from_secs(10)), &mut ready).unwrap();
            assert_eq!(ready, [Event::Wake]);
            if let Some(answer) = resolver.answered(now) {
                break answer;
            }
        };
        assert_eq!(askers, BTreeSet::from([(1, 10), (2, 20)]));
        assert!(addresses.iter().all(IpAddr::is_loopback));
        assert_eq!(resolver.look_up("localhost", (3, 30), now), Lookup::Known(addresses));
        assert_eq!(resolver.look_up("localhost", (3, 30), now + FRESH), Lookup::Asked);
    }
}
