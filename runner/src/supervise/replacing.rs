// SPDX-License-Identifier: AGPL-3.0-or-later
//! Processes that are replaced because an operator has asked for it: what [`Rolling`] says is done.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Supervisor;
use super::upgrading::Upgrading;
use crate::control::rolling::{Action, Event, Failure, Rolling, Turn};
use crate::control::{Answer, Call};

/// A restart or an upgrade under way, and who is told of it.
pub(super) struct Replacing {
    /// None before and after.
    rolling: Option<Rolling>,
    call: Call,
    count: usize,
    /// None for a restart.
    pub(super) upgrade: Option<Upgrading>,
}

impl Replacing {
    /// Nothing is done yet.
    pub(super) fn new(call: Call, count: usize, upgrade: Option<Upgrading>) -> Self {
        Self { rolling: None, call, count, upgrade }
    }

    /// When [`Event::Time`] is due.
    pub(super) fn deadline(&self) -> Option<tokio::time::Instant> {
        let report = self.upgrade.as_ref().and_then(|upgrade| upgrade.report_due);
        self.rolling.as_ref().and_then(Rolling::deadline).or(report).map(Into::into)
    }

    fn tell(&self, text: String) {
        tracing::info!("{text}");
        self.call.answer(Answer::Progress(text));
    }

    /// The last word.
    pub(super) fn end(self, answer: Answer) {
        // The report is for who has asked.
        let text = |text: &str| text.split("\nPROCESS ").next().unwrap_or_default().to_string();
        match &answer {
            Answer::Failed(failed) => tracing::error!("{}", text(failed)),
            Answer::Done(done) => tracing::info!("{}", text(done)),
            _ => {}
        }
        self.call.answer(answer);
    }
}

impl Supervisor<'_> {
    /// Replaces these, in this order, by what is on disk.
    pub(super) fn restart(&mut self, chosen: Vec<usize>, call: Call) {
        self.replacing = Some(Replacing::new(call, chosen.len(), None));
        self.roll(chosen);
    }

    /// Replaces these, in this order.
    pub(super) fn roll(&mut self, chosen: Vec<usize>) {
        let turns = chosen.into_iter().map(|process| Turn { process, beside: self.can_stand_beside(process) });
        let (rolling, actions) = Rolling::new(turns.collect::<Vec<_>>(), Instant::now());
        if let Some(replacing) = &mut self.replacing {
            replacing.rolling = Some(rolling);
        }
        self.perform(actions);
    }

    /// Tells a restart that is under way what has happened.
    pub(super) fn replacing_sees(&mut self, event: Event) {
        if event == Event::Time {
            self.report_when_told();
        }
        let rolling = self.replacing.as_mut().and_then(|replacing| replacing.rolling.as_mut());
        let Some(rolling) = rolling else { return };
        let actions = rolling.handle(event, Instant::now());
        self.perform(actions);
    }

    /// Whether a service is being ended so that its successor can start.
    pub(super) fn is_replaced(&self, index: usize) -> bool {
        let rolling = self.replacing.as_ref().and_then(|replacing| replacing.rolling.as_ref());
        rolling.is_some_and(|rolling| rolling.is_ending(index))
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::End(index) => {
                    self.begins(index);
                    self.end(index);
                }
                Action::Kill(index) => {
                    self.tell(format!("{} takes too long to end and is killed", self.name(index)));
                    self.signal_one(index, Signal::SIGKILL);
                }
                Action::Start(index) => {
                    self.choose_program(index);
                    self.slots[index].restarts += 1;
                    if let Err(error) = self.start(index) {
                        tracing::error!("{error}");
                        self.vitals.lock().end(index, error.to_string());
                        self.wait(index, Duration::ZERO);
                        self.replacing_sees(Event::Ended(index));
                    }
                }
                Action::StartBeside(index) => {
                    self.begins(index);
                    self.choose_program(index);
                    self.failed_beside = None;
                    self.tell(format!("starting a successor of {}", self.name(index)));
                    if let Err(error) = self.start_beside(index) {
                        tracing::error!("{error}");
                        self.failed_beside = Some(error.to_string());
                        self.replacing_sees(Event::Spared(index));
                    }
                }
                Action::Replaced(index) => {
                    let pid = self.slots[index].running().map(|handle| handle.pid);
                    self.replaced(index, pid);
                    self.tell(format!("{} serves again, pid {}", self.name(index), pid.unwrap_or_default()));
                }
                Action::Failed(index, failure) => self.give_up(index, failure),
                Action::Spared(index, failure) => self.spare(index, failure),
                Action::Done => self.done(),
            }
        }
    }

    fn end(&mut self, index: usize) {
        if let Some(pid) = self.slots[index].running().map(|handle| handle.pid) {
            self.tell(format!("ending {}, pid {pid}", self.name(index)));
            self.heartbeats.end(index);
            self.signal_one(index, Signal::SIGTERM);
        } else {
            self.tell(format!("{} does not run", self.name(index)));
            self.replacing_sees(Event::Ended(index));
        }
    }

    fn done(&mut self) {
        let Some(replacing) = &mut self.replacing else { return };
        replacing.rolling = None;
        if replacing.upgrade.is_some() {
            return self.report_soon();
        }
        let done = match replacing.count {
            1 => "restarted 1 process".to_string(),
            count => format!("restarted {count} processes"),
        };
        if let Some(replacing) = self.replacing.take() {
            replacing.end(Answer::Done(done));
        }
    }

    fn give_up(&mut self, index: usize, failure: Failure) {
        let reason = self.vitals.lock().last_end(index).map(String::from);
        let failed = self.describe_failure(index, failure, reason);
        if self.replacing.as_ref().is_some_and(|replacing| replacing.upgrade.is_some()) {
            self.goes_wrong(index, false, failed);
        } else {
            self.fail(&failed, "the runner keeps trying");
        }
    }

    /// The same while the one before goes on.
    fn spare(&mut self, index: usize, failure: Failure) {
        self.drop_successor(index);
        let reason = self.failed_beside.take();
        let failed = self.describe_failure(index, failure, reason);
        if self.replacing.as_ref().is_some_and(|replacing| replacing.upgrade.is_some()) {
            self.goes_wrong(index, true, failed);
        } else {
            self.fail(&failed, "the one before goes on");
        }
    }

    fn describe_failure(&self, index: usize, failure: Failure, reason: Option<String>) -> String {
        let name = self.name(index);
        match failure {
            Failure::Ended => match reason {
                Some(reason) => format!("the new {name} ended before it served: {reason}"),
                None => format!("the new {name} can not be started; the log says why"),
            },
            Failure::Late(time) => format!("the new {name} does not serve after {} s", time.as_secs()),
        }
    }

    fn fail(&mut self, failed: &str, rest: &str) {
        if let Some(replacing) = self.replacing.take() {
            let text = format!("{failed}; {rest}, and what was to be restarted after it has been left alone");
            replacing.end(Answer::Failed(text));
        }
    }

    /// Says how far it is.
    pub(super) fn tell(&self, text: String) {
        if let Some(replacing) = &self.replacing {
            replacing.tell(text);
        }
    }

    pub(super) fn name(&self, index: usize) -> String {
        self.slots[index].service.name()
    }

    fn signal_one(&self, index: usize, signal: Signal) {
        if let Some(handle) = self.slots[index].running() {
            handle.signal(signal);
        }
    }
}
