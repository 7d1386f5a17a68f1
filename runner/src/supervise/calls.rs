// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an operator asks of the supervisor: how the suite is, and to replace processes.

use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;
use process::log;
use settings::{Part, log_level};

use super::Supervisor;
use crate::control::rolling::{Action, Event, Failure, Rolling, Turn};
use crate::control::{Answer, Call, Request};
use crate::snapshot::{self, inward};

/// A restart under way, and who is told of it.
pub struct Replacing {
    rolling: Rolling,
    call: Call,
    count: usize,
}

impl Replacing {
    /// When [`Event::Time`] is due.
    pub fn deadline(&self) -> Option<tokio::time::Instant> {
        self.rolling.deadline().map(Into::into)
    }

    fn tell(&self, text: String) {
        tracing::info!("{text}");
        self.call.answer(Answer::Progress(text));
    }
}

impl Supervisor<'_> {
    /// Does what is asked.
    pub fn called(&mut self, call: Call) {
        match &call.request {
            Request::Status => {
                let config = self.configuration.name();
                let status = self.vitals.lock().status(config, Instant::now(), SystemTime::now());
                call.answer(Answer::Status(Box::new(status)));
            }
            Request::Snapshot => {
                let (vitals, config) = (self.vitals.clone(), self.configuration.name());
                let handler = inward::handler(&self.configuration.settings);
                // It waits for the handler, and nobody else may. The socket has few clients at a time, so there are few of these.
                tokio::spawn(async move {
                    let taken = snapshot::take(&vitals, &config, handler.as_ref()).await;
                    call.answer(Answer::Snapshot(Box::new(taken)));
                });
            }
            Request::Restart { component } => match self.named(component) {
                _ if self.replacing.is_some() => {
                    call.answer(Answer::Failed("another restart is under way: wait until it is done".into()));
                }
                Ok(chosen) => self.replace(chosen, call),
                Err(text) => call.answer(Answer::Failed(text)),
            },
            Request::LogLevel { component, level } => {
                let answer = self.set_log_level(component, *level);
                call.answer(answer);
            }
        }
    }

    fn set_log_level(&mut self, component: &str, level: u8) -> Answer {
        if level > log_level::MAX {
            return Answer::Failed(format!("there are log levels from 0 to {}", log_level::MAX));
        }
        let is_runner = matches!(component, "runner" | "pushpin-runner");
        let chosen = match self.named(component) {
            _ if is_runner => Vec::new(),
            Ok(chosen) => chosen,
            Err(text) => return Answer::Failed(text),
        };
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        if is_runner || component == "all" {
            log::set_level(level);
            done.push("runner".to_string());
        }
        for index in chosen {
            let slot = &mut self.slots[index];
            let name = slot.service.name();
            slot.service.set_log_level(level);
            match slot.running() {
                Some(handle) => match handle.set_log_level(level) {
                    Ok(()) => done.push(name),
                    Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                        failed.push(format!("{name} is a program of Pushpin's and takes it over when it is restarted"));
                    }
                    Err(error) => failed.push(format!("{name} does not read it: {error}")),
                },
                None => done.push(format!("{name} when it is started")),
            }
        }
        let text = format!("log level {level}: {}", if done.is_empty() { "nobody".into() } else { done.join(", ") });
        tracing::info!("{text}");
        match failed.as_slice() {
            [] => Answer::Done(text),
            failed => Answer::Failed(format!("{text}; but {}", failed.join(", "))),
        }
    }

    /// The services of this name, in the order in which they are to be replaced.
    fn named(&self, component: &str) -> Result<Vec<usize>, String> {
        let name = component.strip_prefix("pushpin-").unwrap_or(component);
        let is_meant = |index: &usize| {
            let service = &self.slots[*index].service;
            name == "all" || service.name() == name || service.part.program().strip_prefix("pushpin-") == Some(name)
        };
        let mut chosen: Vec<_> = (0..self.slots.len()).filter(is_meant).collect();
        if chosen.is_empty() {
            let names: Vec<_> = self.slots.iter().map(|slot| slot.service.name()).collect();
            return Err(format!("there is no `{component}` in this suite; there are: {}, all", names.join(", ")));
        }
        // If one fails, clients are to keep their connections.
        chosen.sort_by_key(|index| self.slots[*index].service.part == Part::Frontend);
        Ok(chosen)
    }

    fn replace(&mut self, chosen: Vec<usize>, call: Call) {
        let count = chosen.len();
        let turns = chosen.into_iter().map(|process| Turn { process, beside: self.can_stand_beside(process) });
        let (rolling, actions) = Rolling::new(turns.collect::<Vec<_>>(), Instant::now());
        self.replacing = Some(Replacing { rolling, call, count });
        self.perform(actions);
    }

    /// Tells a restart that is under way what has happened.
    pub fn replacing_sees(&mut self, event: Event) {
        let Some(replacing) = &mut self.replacing else { return };
        let actions = replacing.rolling.handle(event, Instant::now());
        self.perform(actions);
    }

    /// Whether a service is being ended so that its successor can start.
    pub fn is_replaced(&self, index: usize) -> bool {
        self.replacing.as_ref().is_some_and(|replacing| replacing.rolling.is_ending(index))
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::End(index) => self.end(index),
                Action::Kill(index) => {
                    self.tell(format!("{} takes too long to end and is killed", self.name(index)));
                    self.signal_one(index, Signal::SIGKILL);
                }
                Action::Start(index) => {
                    let slot = &mut self.slots[index];
                    slot.restarts += 1;
                    if let Err(error) = self.start(index) {
                        tracing::error!("{error}");
                        self.wait(index, std::time::Duration::ZERO);
                        self.replacing_sees(Event::Ended(index));
                    }
                }
                Action::StartBeside(index) => {
                    self.failed_beside = None;
                    self.tell(format!("starting a successor of {}", self.name(index)));
                    if let Err(error) = self.start_beside(index) {
                        tracing::error!("{error}");
                        self.replacing_sees(Event::Spared(index));
                    }
                }
                Action::Replaced(index) => {
                    let pid = self.slots[index].running().map_or(0, |handle| handle.pid);
                    self.tell(format!("{} serves again, pid {pid}", self.name(index)));
                }
                Action::Failed(index, failure) => self.give_up(index, failure),
                Action::Spared(index, failure) => self.spare(index, failure),
                Action::Done => {
                    if let Some(replacing) = self.replacing.take() {
                        let done = match replacing.count {
                            1 => "restarted 1 process".to_string(),
                            count => format!("restarted {count} processes"),
                        };
                        tracing::info!("{done}");
                        replacing.call.answer(Answer::Done(done));
                    }
                }
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

    fn give_up(&mut self, index: usize, failure: Failure) {
        let reason = self.vitals.lock().last_end(index).map(String::from);
        self.fail(index, failure, reason, "the runner keeps trying");
    }

    /// The same while the one before goes on.
    fn spare(&mut self, index: usize, failure: Failure) {
        self.drop_successor(index);
        let reason = self.failed_beside.take();
        self.fail(index, failure, reason, "the one before goes on");
    }

    fn fail(&mut self, index: usize, failure: Failure, reason: Option<String>, rest: &str) {
        let Some(replacing) = self.replacing.take() else { return };
        let name = self.name(index);
        let failed = match failure {
            Failure::Ended => match reason {
                Some(reason) => format!("the new {name} ended before it served: {reason}"),
                None => format!("the new {name} can not be started; the log says why"),
            },
            Failure::Late(time) => format!("the new {name} does not serve after {} s", time.as_secs()),
        };
        let text = format!("{failed}; {rest}, and what was to be restarted after it has been left alone");
        tracing::error!("{text}");
        replacing.call.answer(Answer::Failed(text));
    }

    fn tell(&self, text: String) {
        if let Some(replacing) = &self.replacing {
            replacing.tell(text);
        }
    }

    fn name(&self, index: usize) -> String {
        self.slots[index].service.name()
    }

    fn signal_one(&self, index: usize, signal: Signal) {
        if let Some(handle) = self.slots[index].running() {
            handle.signal(signal);
        }
    }
}
