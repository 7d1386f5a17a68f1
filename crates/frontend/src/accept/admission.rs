// SPDX-License-Identifier: AGPL-3.0-or-later
//! How many clients there may be, and when to stop accepting. No I/O, no clock.
//!
//! A client costs a descriptor. Some are kept back for the process's own sockets: if clients had all of them, a proxy or
//! handler that was restarted could not connect any more.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::{Duration, Instant};

/// Descriptors that are not for clients: those that are open from the start, and links to proxies and handlers, also to
/// some that are being replaced.
const KEPT_BACK: usize = 32;
/// Connections accepted in one turn, so that clients which are there already are served in between.
pub const ACCEPTS_A_TURN: usize = 64;
/// How long to wait after the system was out of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The limit of clients, and whether it is reached.
#[derive(Clone, Debug)]
pub struct Admission {
    max: usize,
    /// What sets the limit.
    reason: Reason,
    full: bool,
    paused_until: Option<Instant>,
}

/// What sets the limit of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Setting,
    Files { limit: usize },
}

impl Admission {
    /// For at most `setting` clients in a process that may have `files` descriptors.
    pub fn new(setting: usize, files: usize) -> Self {
        let room = files - KEPT_BACK.min(files / 2);
        let (max, reason) =
            if setting <= room { (setting, Reason::Setting) } else { (room, Reason::Files { limit: files }) };
        Admission { max, reason, full: false, paused_until: None }
    }

    /// Clients there may be at a time.
    pub fn max(&self) -> usize {
        self.max
    }

    /// What the operator should know before the first client: that the setting can not be kept.
    pub fn warning(&self, setting: usize) -> Option<String> {
        let Reason::Files { limit } = self.reason else { return None };
        Some(format!(
            "the limit of open files, {limit}, leaves room for {} clients, and not for client_maxconn={setting}: raise it \
             (LimitNOFILE of systemd, ulimit -n), or have more frontend_processes",
            self.max
        ))
    }

    /// Whether another client may come now.
    pub fn is_open(&self, clients: usize, now: Instant) -> bool {
        clients < self.max && self.paused_until.is_none_or(|until| until <= now)
    }

    /// Someone waits while there are as many clients as there may be. Gives a line for the log when that is new.
    pub fn on_full(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.full, true) {
            return None;
        }
        let reason = match self.reason {
            Reason::Setting => format!("client_maxconn={} is reached", self.max),
            Reason::Files { limit } => {
                format!("{} clients are all that the limit of open files, {limit}, has room for", self.max)
            }
        };
        Some(format!("{reason}: further clients wait until one leaves"))
    }

    /// A client has left.
    pub fn on_leave(&mut self, clients: usize) {
        // Not at the very limit, or there would be a line for each client that takes the place of another.
        if clients < self.max - self.max / 10 {
            self.full = false;
        }
    }

    /// The system refused to accept: waits for a moment.
    pub fn on_refused(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    /// When accepting goes on after a pause.
    pub fn resumes_at(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_back_for_the_processs_own_sockets() {
        for (setting, files, max) in [(1000, 64, 32), (1000, 1024, 992), (10, 1024, 10), (50_000, 20_000, 19_968)] {
            assert_eq!(Admission::new(setting, files).max(), max);
        }
        assert!(Admission::new(1000, 1024).warning(1000).unwrap().contains("1024"));
        assert_eq!(Admission::new(10, 1024).warning(10), None);
    }

    #[test]
    fn the_limit_is_told_once_each_time_it_is_reached() {
        let (mut admission, now) = (Admission::new(100, 1024), Instant::now());
        assert!(admission.is_open(99, now) && !admission.is_open(100, now));
        assert!(admission.on_full().unwrap().contains("client_maxconn=100"));
        admission.on_leave(99);
        assert_eq!(admission.on_full(), None);
        admission.on_leave(80);
        assert!(admission.on_full().is_some());
    }

    #[test]
    fn accepting_pauses_when_the_system_refuses() {
        let (mut admission, now) = (Admission::new(100, 1024), Instant::now());
        admission.on_refused(now);
        assert!(!admission.is_open(0, now));
        let later = admission.resumes_at(now).unwrap();
        assert!(admission.is_open(0, later));
        assert_eq!(admission.resumes_at(later), None);
    }
}
