// SPDX-License-Identifier: AGPL-3.0-or-later
//! What an operator asks of the supervisor: how the suite is, and to replace processes.

use std::time::{Instant, SystemTime};

use process::log;
use settings::{Part, log_level};

use super::Supervisor;
use crate::control::{Answer, Call, Request};
use crate::snapshot::{self, inward};

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
            Request::Restart { .. } | Request::Upgrade if self.replacing.is_some() => {
                call.answer(Answer::Failed("another restart is under way: wait until it is done".into()));
            }
            Request::Restart { component } => match self.named(component) {
                Ok(chosen) => self.restart(chosen, call),
                Err(text) => call.answer(Answer::Failed(text)),
            },
            Request::Upgrade => self.upgrade(call),
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
    pub(super) fn named(&self, component: &str) -> Result<Vec<usize>, String> {
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
        chosen.sort_by_key(|index| turn(self.slots[*index].service.part));
        Ok(chosen)
    }
}

/// When a part is replaced among all.
fn turn(part: Part) -> u8 {
    match part {
        // A proxy behind the handler: until a proxy's successor has named its WebSockets, what is published to them is in the
        // handler's memory only.
        Part::Proxy => 1,
        // Clients keep their connections if another one fails.
        Part::Frontend => 2,
        _ => 0,
    }
}
