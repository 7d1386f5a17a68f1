//! The addresses of one backend, tried one after the other within one deadline.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::connect::policy::is_internal;
use crate::failure::Failure;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// An address gets at least this much of the time, unless there is less.
const SHARE: Duration = Duration::from_secs(1);

/// What is left to try.
#[derive(Debug)]
pub struct Attempts {
    untried: std::vec::IntoIter<SocketAddr>,
    deadline: Instant,
    failed: Option<Failure>,
}

impl Attempts {
    /// Attempts until `deadline`. `trusted`: internal addresses may be reached.
    ///
    /// # Errors
    /// There is no address, or none that may be reached.
    pub fn new(addresses: &[IpAddr], port: u16, trusted: bool, deadline: Instant) -> Result<Self, Failure> {
        if addresses.is_empty() {
            return Err(Failure::Unresolved);
        }
        let allowed = |address: &&IpAddr| trusted || !is_internal(**address);
        let allowed: Vec<_> =
            addresses.iter().filter(allowed).take(MAX_ADDRESSES).map(|&ip| SocketAddr::new(ip, port)).collect();
        if allowed.is_empty() {
            return Err(Failure::Internal);
        }
        Ok(Attempts { untried: allowed.into_iter(), deadline, failed: None })
    }

    /// The next address, and when to give up on it: each gets an equal share of the time that is left, so that one that
    /// does not answer leaves some to the others.
    pub fn next(&mut self, now: Instant) -> Option<(SocketAddr, Instant)> {
        let left = self.deadline.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        let share = left / u32::try_from(self.untried.len()).unwrap_or(u32::MAX).max(1);
        let address = self.untried.next()?;
        Some((address, now + share.max(SHARE).min(left)))
    }

    /// Notes why an address failed.
    pub fn failed(&mut self, address: SocketAddr, error: io::Error) {
        self.failed = Some(Failure::Connect { address, error });
    }

    /// Why the last one failed.
    pub fn failure(self) -> Failure {
        self.failed.unwrap_or(Failure::Unresolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_address_gets_its_share_of_the_time() {
        let start = Instant::now();
        let three = addresses(&["8.8.8.1", "8.8.8.2", "8.8.8.3"]);
        let mut attempts = Attempts::new(&three, 80, false, start + 9 * SECOND).unwrap();
        assert_eq!(attempts.next(start), Some(("8.8.8.1:80".parse().unwrap(), start + 3 * SECOND)));
        // The first failed at once, so the others get more.
        assert_eq!(attempts.next(start).unwrap().1, start + 9 * SECOND / 2);
        assert_eq!(attempts.next(start + 8 * SECOND).unwrap().1, start + 9 * SECOND);
        assert_eq!(attempts.next(start + 8 * SECOND), None);
    }

    #[test]
    fn nothing_is_tried_after_the_deadline() {
        let start = Instant::now();
        let mut attempts = Attempts::new(&addresses(&["8.8.8.1", "8.8.8.2"]), 80, false, start + SECOND).unwrap();
        assert_eq!(attempts.next(start).unwrap().1, start + SECOND);
        let address = "8.8.8.1:80".parse().unwrap();
        attempts.failed(address, io::ErrorKind::TimedOut.into());
        assert_eq!(attempts.next(start + SECOND), None);
        assert_eq!(attempts.failure().condition(), "connection-timeout");
    }

    #[test]
    fn internal_addresses_are_left_out_unless_the_requester_vouches_for_them() {
        let now = Instant::now();
        let mixed = addresses(&["10.0.0.1", "8.8.8.8"]);
        let mut attempts = Attempts::new(&mixed, 80, false, now + SECOND).unwrap();
        assert_eq!(attempts.next(now).unwrap().0, "8.8.8.8:80".parse().unwrap());
        assert_eq!(attempts.next(now), None);
        assert!(matches!(Attempts::new(&mixed[..1], 80, false, now), Err(Failure::Internal)));
        assert!(Attempts::new(&mixed[..1], 80, true, now).is_ok());
        assert!(matches!(Attempts::new(&[], 80, true, now), Err(Failure::Unresolved)));
    }
}
