// SPDX-License-Identifier: AGPL-3.0-or-later
//! An upgrade: all processes of ours from the programs that are on disk now, or none of them.
//!
//! Programs are examined first, beside the loop, which goes on. What ran before is kept open, so that it can run again, whatever
//! has become of its file. From then on each process that has to be started again comes from what was kept, until its turn has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::catalogue::CLIENTS_TAKEN_OVER;
use settings::Part;

use super::Supervisor;
use super::replacing::Replacing;
use super::upgrading::Upgrading;
use crate::candidates::{self, Candidate, Fit, PATIENCE, Unfit};
use crate::child::News;
use crate::control::upgrade::Version;
use crate::control::{Answer, Call};
use crate::kept::Kept;
use crate::service::{OWN_FILE, Program, beside};

/// How long the report waits for what processes tell of themselves.
const REPORT: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Has the programs examined.
    pub(super) fn upgrade(&mut self, call: Call) {
        let all = self.named("all").unwrap_or_default();
        let (chosen, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|index| self.can_upgrade(*index));
        if chosen.is_empty() {
            let text = "there is nothing to upgrade: no program of ours is beside the runner's";
            return call.answer(Answer::Failed(text.into()));
        }
        let mut upgrading = Upgrading::default();
        let mut candidates = BTreeMap::new();
        for index in &chosen {
            let slot = &self.slots[*index];
            let part = slot.service.part;
            let pid = slot.running().map(|handle| handle.pid);
            let version = self.vitals.lock().version(*index).filter(|_| pid.is_some()).map(String::from);
            upgrading.ledger.add(*index, slot.service.name(), Version { version, pid });
            let arguments = slot.service.arguments.clone();
            candidates.entry(part.program()).or_insert_with(|| {
                // One that was there and is gone is examined too, and found missing.
                let program = beside(part).unwrap_or_default();
                Candidate { part, program, arguments }
            });
        }
        self.replacing = Some(Replacing::new(call, chosen.len(), Some(upgrading)));
        for index in others {
            self.tell(format!(
                "{} is left alone: its program is not one of ours beside the runner's",
                self.name(index)
            ));
        }
        if self.configuration.settings.frontend.recover_wait.is_zero() {
            self.tell("recover_wait is 0: clients that the handler holds, and WebSockets, will be closed".into());
        }
        let (configuration, news) = (self.handed_down.clone(), self.news.clone());
        let examine = |candidate: Candidate| {
            let configuration = configuration.clone();
            let (part, program) = (candidate.part, candidate.program.clone());
            (part, program, tokio::spawn(async move { candidate.examine(configuration, PATIENCE).await }))
        };
        let examined: Vec<_> = candidates.into_values().map(examine).collect();
        tokio::spawn(async move {
            let mut verdicts = Vec::new();
            for (part, program, task) in examined {
                verdicts.push((part, candidates::verdict(program, task).await));
            }
            let _ = news.send(News::Examined(verdicts));
        });
    }

    /// Whether a service is one of ours, in a program of its own. What the runner has inside is as old as the runner.
    fn can_upgrade(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let is_inside = slot.running().is_some_and(|handle| handle.program.to_str() == Some(OWN_FILE));
        let is_there = beside(slot.service.part).is_some_and(|program| program.is_file());
        slot.service.program == Program::Own && (is_there || !is_inside)
    }

    /// Begins, if all programs can do their work.
    pub(super) fn examined(&mut self, verdicts: Vec<(Part, Result<Fit, Unfit>)>) {
        let wrong: Vec<_> =
            verdicts.iter().filter_map(|(_, verdict)| Some(verdict.as_ref().err()?.to_string())).collect();
        if !wrong.is_empty() {
            if let Some(replacing) = self.replacing.take() {
                replacing.end(Answer::Failed(format!("nothing has been changed: {}", wrong.join("\n"))));
            }
            return;
        }
        for (part, fit) in verdicts.into_iter().filter_map(|(part, verdict)| Some((part, verdict.ok()?))) {
            let checked =
                if fit.has_checked { "takes the configuration" } else { "can not be asked about the configuration" };
            self.tell(format!("{} {} is on disk and {checked}", part.program(), fit.version));
        }
        let Some(upgrading) = self.upgrading() else { return };
        let chosen: Vec<_> = upgrading.ledger.processes().collect();
        for index in &chosen {
            self.keep(*index);
        }
        self.roll(chosen);
    }

    /// Keeps what runs. From now on that is what the service is started from.
    fn keep(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // It may have been kept in an earlier upgrade, and is still what is started.
        let kept = match (&slot.kept, slot.running()) {
            (Some(kept), _) => kept.clone(),
            (None, Some(handle)) => match Kept::of(handle.pid) {
                Ok(kept) => Arc::new(kept),
                Err(error) => {
                    let name = slot.service.name();
                    return self
                        .tell(format!("there will be no way back for {name}: its program can not be kept: {error}"));
                }
            },
            (None, None) => return,
        };
        slot.kept = Some(kept.clone());
        if let Some(upgrading) = self.upgrading() {
            upgrading.kept.insert(index, kept);
        }
    }

    /// Before a successor is started: what it is started from.
    pub(super) fn choose_program(&mut self, index: usize) {
        let kept = self.upgrading().filter(|upgrading| upgrading.goes_back());
        let kept = kept.and_then(|upgrading| upgrading.kept.get(&index).cloned());
        self.slots[index].kept = kept;
    }

    /// A process is about to be replaced.
    pub(super) fn begins(&mut self, index: usize) {
        if let Some(upgrading) = self.upgrading() {
            upgrading.ledger.begin(index, Instant::now());
        }
    }

    /// A successor serves.
    pub(super) fn replaced(&mut self, index: usize, pid: Option<u32>) {
        if let Some(upgrading) = self.upgrading() {
            upgrading.ledger.replaced(index, pid, Instant::now());
        }
    }

    /// A successor has failed, and its predecessor goes on if it was `spared`. All go back, unless they do already.
    pub(super) fn goes_wrong(&mut self, index: usize, spared: bool, failed: String) {
        let Some(upgrading) = self.upgrading() else { return };
        if upgrading.goes_back() {
            upgrading.stuck = Some(failed);
            return self.report_soon();
        }
        let way = upgrading.ledger.way_back(index, spared, failed.clone());
        let kept = upgrading.kept.clone();
        for (process, kept) in kept {
            self.slots[process].kept = Some(kept);
        }
        self.tell(format!("{failed}; all go back to the programs that they had before"));
        self.roll(way);
    }

    /// Nothing remains to be done but to say what has been.
    pub(super) fn report_soon(&mut self) {
        if let Some(upgrading) = self.upgrading() {
            upgrading.report_due = Some(Instant::now() + REPORT);
        }
        self.report_when_told();
    }

    /// Says what has been done, when all that is of interest is known or has not come in time.
    pub(super) fn report_when_told(&mut self) {
        let now = Instant::now();
        let Some(upgrading) = self.replacing.as_mut().and_then(|replacing| replacing.upgrade.as_mut()) else { return };
        let Some(due) = upgrading.report_due else { return };
        let mut missing = false;
        for index in upgrading.ledger.done() {
            let vitals = self.vitals.lock();
            let is_frontend = self.slots[index].is_frontend();
            let version = vitals.version(index).map(String::from);
            let moved = vitals.value(index, &CLIENTS_TAKEN_OVER, now).filter(|_| is_frontend);
            missing |= version.is_none() || is_frontend && moved.is_none();
            upgrading.ledger.told(index, version, moved);
        }
        if missing && now < due {
            return;
        }
        let Some(replacing) = self.replacing.take() else { return };
        let Some(upgrading) = &replacing.upgrade else { return };
        let table = &upgrading.ledger;
        let answer = match (upgrading.ledger.reason(), &upgrading.stuck) {
            (None, _) => Answer::Done(format!("upgraded {} processes\n{table}", upgrading.ledger.done().len())),
            (Some(reason), None) => {
                Answer::Failed(format!("{reason}; all processes run the programs that they had before\n{table}"))
            }
            (Some(reason), Some(stuck)) => Answer::Failed(format!(
                "{reason}; on the way back, {stuck}; the runner keeps trying, and the others are as the table says\n{table}"
            )),
        };
        replacing.end(answer);
    }

    fn upgrading(&mut self) -> Option<&mut Upgrading> {
        self.replacing.as_mut()?.upgrade.as_mut()
    }
}
