// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that are replaced while they run: the successor is started beside its predecessor, and gets new clients from when it
//! serves. The predecessor is told so, and ends when those that it has are gone.
//!
//! A successor that fails changes nothing: its predecessor has not been told anything.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use settings::Part;

use super::{State, Supervisor, describe, with_words};
use crate::child::{Ended, Handle, SpawnError};
use crate::control::rolling::Event;
use crate::service::Program;

/// A predecessor that has not ended so long after its time is killed.
const GRACE: Duration = Duration::from_secs(10);
/// Predecessors of one process that may go on at a time.
const MAX_LEAVING: usize = 4;

/// A predecessor whose successor serves.
pub(super) struct Leaving {
    pub(super) process: Handle,
    /// When it has to have ended.
    due: Instant,
}

impl Leaving {
    /// One that has so long for its clients from now on.
    pub(super) fn new(process: Handle, drain_timeout: Duration) -> Self {
        Self { process, due: Instant::now() + drain_timeout + GRACE }
    }
}

impl Supervisor<'_> {
    /// Has predecessors and successors open their logs again. HUP would have predecessors take new clients.
    pub(super) fn reopen_beside(&self) {
        for slot in &self.slots {
            let leaving = slot.leaving.iter().map(|leaving| &leaving.process);
            leaving.chain(&slot.successor).for_each(|process| process.signal(Signal::SIGUSR1));
        }
    }

    /// Kills predecessors that do not end.
    pub(super) fn kill_late(&mut self) {
        let now = Instant::now();
        for slot in &mut self.slots {
            for leaving in slot.leaving.iter_mut().filter(|leaving| leaving.due <= now) {
                let (name, pid) = (slot.service.name(), leaving.process.pid);
                tracing::error!("{name}: the predecessor, pid {pid}, does not end and is killed");
                leaving.process.signal(Signal::SIGKILL);
                leaving.due = now + GRACE;
            }
        }
    }

    /// Whether a service can have two processes for a while. For a frontend, proxy and handler must be ours: others have one link to
    /// an address, and would not find the successor as long as they have it to the predecessor.
    pub(super) fn can_stand_beside(&self, index: usize) -> bool {
        let settings = &self.configuration.settings;
        let slot = &self.slots[index];
        let ours = |part| settings.runner.own_parts().any(|own| own == part);
        let specs = settings.frontend.processes.get(slot.service.number);
        let local = specs.is_some_and(|specs| {
            [&specs.out, &specs.out_stream, &specs.input].iter().all(|spec| spec.starts_with("ipc:"))
        });
        slot.service.part == Part::Frontend
            && slot.service.program == Program::Own
            && slot.running().is_some()
            && slot.has_served
            && local
            && ours(Part::Proxy)
            && ours(Part::Handler)
    }

    /// Starts a successor beside the process that runs.
    pub(super) fn start_beside(&mut self, index: usize) -> Result<(), SpawnError> {
        let handle = self.spawn(index, true)?;
        self.slots[index].successor = Some(handle);
        Ok(())
    }

    /// Whether this is a successor that has not taken over yet.
    pub(super) fn is_successor(&self, index: usize, pid: u32) -> bool {
        self.slots[index].successor.as_ref().is_some_and(|handle| handle.pid == pid)
    }

    /// A successor serves: its predecessor may go.
    pub(super) fn takes_over(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(successor) = slot.successor.take() else { return };
        if let State::Running(predecessor) = std::mem::replace(&mut slot.state, State::Stopped) {
            predecessor.signal(Signal::SIGUSR2);
            slot.leaving.push_back(Leaving::new(predecessor, self.configuration.settings.frontend.drain_timeout));
            if slot.leaving.len() > MAX_LEAVING
                && let Some(Leaving { process: oldest, .. }) = slot.leaving.front()
            {
                let name = slot.service.name();
                tracing::warn!(
                    "{name}: {MAX_LEAVING} predecessors still serve clients; the one before them, pid {}, is ended",
                    oldest.pid
                );
                oldest.signal(Signal::SIGTERM);
            }
        }
        slot.restarts += 1;
        self.runs_now(index, successor);
        self.serves(index);
    }

    /// A successor is not wanted any more.
    pub(super) fn drop_successor(&mut self, index: usize) {
        if let Some(successor) = &self.slots[index].successor {
            successor.signal(Signal::SIGKILL);
        }
    }

    /// Whether a service is served although one of its processes has ended.
    pub(super) fn has_another(&mut self, end: &Ended) -> bool {
        let index = end.service;
        let slot = &mut self.slots[index];
        let (name, status) = (slot.service.name(), describe(end.status));
        if let Some(at) = slot.leaving.iter().position(|leaving| leaving.process.pid == end.pid) {
            slot.leaving.remove(at);
            match end.ended_well() {
                true => tracing::info!("{name}: the predecessor, pid {}, has ended", end.pid),
                false => tracing::error!("{name}: the predecessor, pid {}, Exited uncleanly ({status})", end.pid),
            }
            return true;
        }
        if self.is_successor(index, end.pid) {
            let slot = &mut self.slots[index];
            slot.successor = None;
            let words = slot.words(end);
            tracing::error!("{name}: the successor ended before it served ({status}); the one before goes on. {words}");
            if let Some(predecessor) = slot.running() {
                // It has its addresses to itself again.
                predecessor.signal(Signal::SIGHUP);
            }
            self.failed_beside = Some(with_words(&status, &words));
            self.replacing_sees(Event::Spared(index));
            return true;
        }
        match self.slots[index].successor.take() {
            Some(successor) if self.runs(index, end.pid) => {
                tracing::error!("{name}: Exited unexpectedly ({status}) while its successor starts");
                self.promote(index, successor);
                true
            }
            successor => {
                self.slots[index].successor = successor;
                false
            }
        }
    }

    fn promote(&mut self, index: usize, successor: Handle) {
        self.slots[index].restarts += 1;
        self.heartbeats.end(index);
        self.runs_now(index, successor);
    }
}
