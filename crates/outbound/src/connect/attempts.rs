// SPDX-License-Identifier: AGPL-3.0-or-later
//! The addresses of one backend, tried within one deadline, several at a time if they are slow ("happy eyeballs", RFC 8305).
//!
//! The first connection that is made is used. An address that refuses gives way to the next one at once; one that is silent
//! gets company after [`DELAY`], of the other family if there is one, so that a broken IPv6 route costs no more than that.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::connect::policy::is_internal;
use crate::failure::Failure;

/// How long an address is tried alone; the value that RFC 8305 recommends.
pub const DELAY: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried at all. With more than these, a name stands for servers that fail together.
const MAX_ADDRESSES: usize = 8;
/// An address gets at least this much of the time, unless there is less.
const SHARE: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin to connect to this address, and tell how that went: [`Attempts::started`] or [`Attempts::failed`].
    Dial(Attempt),
    /// Close this connection: its address has had its time.
    GiveUp(usize),
    /// Wait until [`Attempts::due`].
    Wait,
    /// No address is left, or no time.
    Over,
}

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// When to give up on it.
    pub until: Instant,
}

/// What is tried, and what is left to try.
#[derive(Debug)]
pub struct Attempts {
    untried: VecDeque<SocketAddr>,
    /// By the number of the connection that is being made.
    running: Vec<(usize, Attempt)>,
    at_once: usize,
    /// When the next address may be tried beside those that run.
    next: Instant,
    deadline: Instant,
    failed: Option<Failure>,
}

impl Attempts {
    /// Attempts until `deadline`, so many `at_once`. `trusted`: internal addresses may be reached.
    ///
    /// # Errors
    /// There is no address, or none that may be reached.
    pub fn new(
        addresses: &[IpAddr],
        port: u16,
        trusted: bool,
        at_once: usize,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        if addresses.is_empty() {
            return Err(Failure::Unresolved);
        }
        let allowed = addresses.iter().copied().filter(|address| trusted || !is_internal(*address)).collect();
        let untried: VecDeque<_> =
            interleaved(allowed).take(MAX_ADDRESSES).map(|address| SocketAddr::new(address, port)).collect();
        if untried.is_empty() {
            return Err(Failure::Internal);
        }
        // Nothing runs, so the first is not held back.
        Ok(Attempts { untried, running: Vec::new(), at_once: at_once.max(1), next: deadline, deadline, failed: None })
    }

    /// What to do now. Call until it says to wait, or that it is over.
    pub fn step(&mut self, now: Instant) -> Step {
        if let Some(at) = self.running.iter().position(|(_, attempt)| attempt.until <= now) {
            let (number, attempt) = self.running.remove(at);
            self.failed(Failure::timed_out(attempt.address), now);
            return Step::GiveUp(number);
        }
        let has_turn = self.running.is_empty() || (self.running.len() < self.at_once && self.next <= now);
        if has_turn && let Some(attempt) = self.take(now) {
            self.next = now + DELAY;
            return Step::Dial(attempt);
        }
        if self.running.is_empty() { Step::Over } else { Step::Wait }
    }

    /// The next address. Each gets its share of the time that is left, so that those which are silent leave some to those
    /// that have to wait for them.
    fn take(&mut self, now: Instant) -> Option<Attempt> {
        let left = self.deadline.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let rounds = self.untried.len().div_ceil(self.at_once);
        let share = left / u32::try_from(rounds).unwrap_or(u32::MAX).max(1);
        let address = self.untried.pop_front()?;
        Some(Attempt { address, until: now + share.max(SHARE).min(left) })
    }

    /// When to ask for the next step, if nothing happens before.
    pub fn due(&self) -> Instant {
        let may_begin = self.running.len() < self.at_once && !self.untried.is_empty();
        let given_up = self.running.iter().map(|(_, attempt)| attempt.until);
        given_up.chain(may_begin.then_some(self.next)).fold(self.deadline, Instant::min)
    }

    /// The address is being connected to.
    pub fn started(&mut self, number: usize, attempt: Attempt) {
        self.running.push((number, attempt));
    }

    /// A connection was not made; it is closed already.
    pub fn closed(&mut self, number: usize, failure: Failure, now: Instant) {
        self.running.retain(|(other, _)| *other != number);
        self.failed(failure, now);
    }

    /// An address failed; the next one need not wait.
    pub fn failed(&mut self, failure: Failure, now: Instant) {
        self.failed = Some(failure);
        self.next = self.next.min(now);
    }

    /// Connections that are being made.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.running.iter().map(|(number, _)| *number)
    }

    /// Why the last one failed.
    pub fn failure(self) -> Failure {
        self.failed.unwrap_or(Failure::Unresolved)
    }
}

/// Families in turn, beginning with that of the first address; each in the order that the resolver has put it in.
fn interleaved(addresses: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let preferred = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turn = false;
    std::iter::from_fn(move || {
        turn = !turn;
        match turn {
            true => first.next().or_else(|| second.next()),
            false => second.next().or_else(|| first.next()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const SECOND: Duration = Duration::from_secs(1);
    const THREE: [&str; 3] = ["8.8.8.1", "8.8.8.2", "8.8.8.3"];

    fn attempts(texts: &[&str], at_once: usize, deadline: Instant) -> Attempts {
        Attempts::new(&addresses(texts), 80, false, at_once, deadline).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Does what is to be done and gives the addresses that are begun with. Connections have the numbers of their order.
    fn dialled(attempts: &mut Attempts, first: usize, now: Instant) -> Vec<String> {
        let mut begun = Vec::new();
        loop {
            match attempts.step(now) {
                Step::Dial(attempt) => {
                    attempts.started(first + begun.len(), attempt);
                    begun.push(attempt.address.ip().to_string());
                }
                Step::GiveUp(_) => {}
                Step::Wait | Step::Over => return begun,
            }
        }
    }

    fn refused(attempts: &mut Attempts, number: usize, now: Instant) {
        let (address, error) = ("8.8.8.1:80".parse().unwrap(), io::ErrorKind::ConnectionRefused.into());
        attempts.closed(number, Failure::Connect { address, error }, now);
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let now = Instant::now();
        let mixed = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "8.8.8.1", "8.8.8.2"];
        let mut attempts = attempts(&mixed, 8, now + 10 * SECOND);
        let order: Vec<_> =
            (0..5).flat_map(|number| dialled(&mut attempts, number, now + DELAY * number as u32)).collect();
        assert_eq!(order, ["2001:db8::1", "8.8.8.1", "2001:db8::2", "8.8.8.2", "2001:db8::3"]);
    }

    #[test]
    fn a_silent_address_gets_company_and_goes_on() {
        let start = Instant::now();
        let mut attempts = attempts(&THREE, 3, start + 9 * SECOND);
        assert_eq!(dialled(&mut attempts, 0, start), ["8.8.8.1"]);
        assert_eq!(attempts.due(), start + DELAY);
        assert_eq!(attempts.step(start + DELAY - Duration::from_millis(1)), Step::Wait);
        assert_eq!(dialled(&mut attempts, 1, start + DELAY), ["8.8.8.2"]);
        assert_eq!(dialled(&mut attempts, 2, start + 2 * DELAY), ["8.8.8.3"]);
        assert_eq!(attempts.running().collect::<Vec<_>>(), [0, 1, 2]);
        // None has to make way for another, so each has all of the time.
        assert_eq!(attempts.due(), start + 9 * SECOND);
    }

    #[test]
    fn the_next_one_is_tried_at_once_when_one_fails() {
        let now = Instant::now();
        let mut attempts = attempts(&THREE, 3, now + 9 * SECOND);
        dialled(&mut attempts, 0, now);
        refused(&mut attempts, 0, now);
        assert_eq!(dialled(&mut attempts, 1, now), ["8.8.8.2"]);
        assert_eq!(attempts.step(now), Step::Wait);
        refused(&mut attempts, 1, now);
        assert_eq!(dialled(&mut attempts, 2, now), ["8.8.8.3"]);
        refused(&mut attempts, 2, now);
        assert_eq!(attempts.step(now), Step::Over);
        assert_eq!(attempts.failure().condition(), "remote-connection-failed");
    }

    #[test]
    fn no_more_run_at_once_than_may_and_each_round_has_its_share_of_the_time() {
        let start = Instant::now();
        let mut attempts = attempts(&["8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4"], 2, start + 8 * SECOND);
        assert_eq!(dialled(&mut attempts, 0, start), ["8.8.8.1"]);
        assert_eq!(dialled(&mut attempts, 1, start + SECOND), ["8.8.8.2"]);
        assert_eq!(attempts.step(start + 2 * SECOND), Step::Wait);
        assert_eq!(attempts.due(), start + 4 * SECOND);
        assert_eq!(attempts.step(start + 4 * SECOND), Step::GiveUp(0));
        assert_eq!(dialled(&mut attempts, 2, start + 4 * SECOND), ["8.8.8.3"]);
        assert_eq!(attempts.running().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn one_after_the_other_if_so_set() {
        let start = Instant::now();
        let mut attempts = attempts(&THREE, 1, start + 9 * SECOND);
        for (number, address) in THREE.iter().enumerate() {
            let begin = start + 3 * SECOND * number as u32;
            assert_eq!(dialled(&mut attempts, number, begin), [*address]);
            assert_eq!(attempts.due(), begin + 3 * SECOND);
        }
    }

    #[test]
    fn nothing_is_tried_after_the_deadline() {
        let start = Instant::now();
        let mut attempts = attempts(&["8.8.8.1", "8.8.8.2"], 1, start + SECOND);
        dialled(&mut attempts, 0, start);
        assert_eq!(attempts.step(start + SECOND), Step::GiveUp(0));
        assert_eq!(attempts.step(start + SECOND), Step::Over);
        assert_eq!(attempts.failure().condition(), "connection-timeout");
    }

    #[test]
    fn internal_addresses_are_left_out_unless_the_requester_vouches_for_them() {
        let now = Instant::now();
        let mixed = addresses(&["10.0.0.1", "8.8.8.8", "::1", "2001:db8::1"]);
        let new = |addresses: &[IpAddr], trusted| Attempts::new(addresses, 80, trusted, 8, now + 9 * SECOND);
        let mut attempts = new(&mixed, false).unwrap();
        assert_eq!(dialled(&mut attempts, 0, now), ["8.8.8.8"]);
        assert_eq!(dialled(&mut attempts, 1, now + DELAY), ["2001:db8::1"]);
        assert_eq!(dialled(&mut attempts, 2, now + 2 * DELAY), [""; 0]);
        assert!(matches!(new(&mixed[..1], false), Err(Failure::Internal)));
        assert!(new(&mixed[..1], true).is_ok());
        assert!(matches!(new(&[], true), Err(Failure::Unresolved)));
    }

    #[test]
    fn a_name_with_very_many_addresses_has_only_some_of_them_tried() {
        let now = Instant::now();
        let many: Vec<IpAddr> = (1..=100).map(|last| IpAddr::from([8, 8, 8, last])).collect();
        let mut attempts = Attempts::new(&many, 80, false, 1, now + 9 * SECOND).unwrap();
        let mut begun = 0;
        while let [_] = dialled(&mut attempts, begun, now)[..] {
            refused(&mut attempts, begun, now);
            begun += 1;
        }
        assert_eq!(begun, MAX_ADDRESSES);
    }
}
