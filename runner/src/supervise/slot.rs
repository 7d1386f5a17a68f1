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
use crate::services::Service;

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
}

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
