// SPDX-License-Identifier: AGPL-3.0-or-later
//! One service of the supervisor and its processes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use settings::Part;
use tokio::time::Instant;

use super::beside::Leaving;
use crate::backoff::Backoff;
use crate::child::{Ended, Handle};
use crate::kept::Kept;
use crate::service::Service;

/// One service and how it is.
pub(super) struct Slot {
    pub(super) service: Service,
    /// The program that it is started from instead of the one on disk, after an upgrade to that one has failed.
    pub(super) kept: Option<Arc<Kept>>,
    pub(super) state: State,
    /// One that was started beside the one that runs, and does not serve yet.
    pub(super) successor: Option<Handle>,
    /// Those that were replaced so and have not finished their work, the oldest first.
    pub(super) leaving: VecDeque<Leaving>,
    pub(super) backoff: Backoff,
    pub(super) restarts: u32,
    /// For how long its process had not answered when it was killed for that.
    pub(super) hung: Option<Duration>,
    /// Whether it has served since it was started first.
    pub(super) has_served: bool,
    /// How often it has ended at its start without ever having been seen to work.
    failed_starts: u32,
    /// Whether it has been seen to work: it has said so, or lived for a while if it is one that says nothing.
    works: bool,
}

/// A service that fails with a message of its own so soon after its start will not do better the next time.
pub(super) const STARTING: Duration = Duration::from_secs(5);
/// One that has never worked and fails without a message as often as this will not either. With the waits in between that is
/// most of a second, in which a predecessor may give up its port.
const STARTS: u32 = 6;

impl From<Service> for Slot {
    fn from(service: Service) -> Self {
        Self {
            service,
            kept: None,
            state: State::Stopped,
            successor: None,
            leaving: VecDeque::new(),
            backoff: Backoff::default(),
            restarts: 0,
            hung: None,
            has_served: false,
            failed_starts: 0,
            works: false,
        }
    }
}

impl Slot {
    /// All its processes.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Handle> {
        self.running().into_iter().chain(&self.successor).chain(self.leaving.iter().map(|leaving| &leaving.process))
    }

    /// The one that serves, or is to.
    pub(super) fn running(&self) -> Option<&Handle> {
        if let State::Running(handle) = &self.state { Some(handle) } else { None }
    }

    /// What to start.
    pub(super) fn program(&self) -> PathBuf {
        let on_disk = || self.service.program.path(self.service.part);
        self.kept.as_ref().map_or_else(on_disk, |kept| kept.path())
    }

    pub(super) fn has_processes(&self) -> bool {
        self.processes().next().is_some()
    }

    pub(super) fn is_frontend(&self) -> bool {
        self.service.part == Part::Frontend
    }

    /// Its process has ended after so long. Whether it is of no use to start another one: none of them has ever worked.
    pub(super) fn is_hopeless(&mut self, lived: Duration) -> bool {
        self.works |= if self.service.tells_when_ready() { self.has_served } else { lived >= STARTING };
        self.failed_starts += u32::from(!self.works);
        self.failed_starts >= STARTS
    }

    /// What its process said last on stderr, without its name.
    pub(super) fn words(&self, end: &Ended) -> String {
        let own = format!("{}: ", self.service.part.program());
        let words: Vec<_> = end.last_words.iter().map(|line| line.strip_prefix(&own).unwrap_or(line)).collect();
        words.join("\n")
    }
}

pub(super) enum State {
    Running(Handle),
    /// To be started then.
    Waiting(Instant),
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Program;

    fn slot(program: Program) -> Slot {
        let file_name = "pushpin-handler".into();
        let (part, arguments) = (Part::Handler, Vec::new());
        Service { part, number: 0, program, file_name, arguments, output: None, instance_option: None }.into()
    }

    /// After how many ends at its start another start is of no use.
    fn starts(slot: &mut Slot) -> Option<u32> {
        (1..100).find(|_| slot.is_hopeless(Duration::from_millis(10)))
    }

    #[test]
    fn one_that_has_never_served_is_given_up() {
        assert_eq!(starts(&mut slot(Program::Own)), Some(STARTS));
        assert_eq!(starts(&mut slot(Program::Other("/usr/bin/pushpin-handler".into()))), Some(STARTS));
    }

    #[test]
    fn one_that_has_served_or_lived_is_started_again_for_ever() {
        let mut own = slot(Program::Own);
        own.has_served = true;
        assert_eq!(starts(&mut own), None);
        let mut other = slot(Program::Other("/usr/bin/pushpin-handler".into()));
        // Of one of Pushpin's nobody hears that it serves; the runner takes it for granted.
        other.has_served = true;
        assert!(!other.is_hopeless(STARTING));
        assert_eq!(starts(&mut other), None);
    }
}
