// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a former runner has left behind: processes that go on under this one.

use frontend::accept::tickets::Chain;
use nix::sys::signal::Signal;
use process::Secret;
use process::adoption::About;
use settings::Part;
use tokio::sync::mpsc;

use super::Supervisor;
use super::beside::Leaving;
use crate::adopted;
use crate::arguments::Arguments;
use crate::child::Handle;
use crate::configuration::Configuration;
use crate::control::{Call, Request};
use crate::files::RunFiles;
use crate::listeners::{self, Given};
use crate::orphans::{self, Orphan};
use crate::service::{OWN_FILE, Program, Service};
use crate::services;
use crate::succession::{self, Lot, Wanted};

/// Processes that go on, each with what becomes of it.
#[derive(Debug, Default)]
pub struct Estate(Vec<Heir>);

#[derive(Debug)]
struct Heir {
    orphan: Orphan,
    about: About,
    lot: Lot,
}

impl Estate {
    /// Looks who is there, and has those end that do not fit. Sockets that this runner can use are given to it.
    pub fn find(configuration: &Configuration, arguments: &Arguments, files: &RunFiles, given: &mut Given) -> Self {
        let global = &configuration.settings.global;
        let mut found = orphans::find(&global.rundir, &global.ipc_prefix);
        if found.is_empty() {
            return Self::default();
        }
        let wanted: Vec<_> = services::of(configuration, arguments, files)
            .iter()
            .map(|service| wanted(service, configuration))
            .collect();
        let abouts: Vec<_> = found.iter().map(|orphan| orphan.about.as_ref()).collect();
        let lots = succession::decide(&abouts, &wanted, &configuration.to_bytes(), |other| configuration.fits(other));
        for orphan in &mut found {
            let sockets = std::mem::take(&mut orphan.sockets);
            // Whoever has other ports may have opened the same ones in another way.
            let Some(about) = orphan.about.as_ref().filter(|about| configuration.fits(&about.handed_down)) else {
                continue;
            };
            for (name, socket) in about.sockets.iter().zip(sockets) {
                given.add(&about.name, name, socket);
            }
        }
        let (mut heirs, mut others) = (Vec::new(), Vec::new());
        for (orphan, lot) in found.into_iter().zip(lots) {
            match (&orphan.about, lot) {
                (Some(about), Lot::GoOn { .. } | Lot::Leave { .. }) => {
                    heirs.push(Heir { about: about.clone(), orphan, lot });
                }
                _ => others.push(orphan),
            }
        }
        for orphan in &others {
            let name = orphan.about.as_ref().map_or("a process", |about| &about.name);
            tracing::info!("{name}, pid {}, of a former runner does not fit this one and is ended", orphan.process.pid);
        }
        orphans::end(&others);
        Self(heirs)
    }

    /// Whether nobody goes on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of session tickets that frontends have.
    pub(super) fn tickets(&self) -> Option<Chain> {
        let frontends = self.0.iter().filter(|heir| matches!(heir.lot, Lot::GoOn { .. }));
        let mut chains =
            frontends.filter_map(|heir| Chain::from_bytes(&Secret::behind_configuration(&heir.about.handed_down)?));
        chains.next()
    }
}

fn wanted(service: &Service, configuration: &Configuration) -> Wanted {
    let own = service.program == Program::Own;
    let settings = &configuration.settings;
    Wanted {
        // Programs of others do not wait for a runner.
        name: if own { service.file_name.clone() } else { String::new() },
        arguments: service.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        sockets: listeners::names(settings, service.part),
        beside: service.part == Part::Frontend,
    }
}

impl Supervisor<'_> {
    /// Goes on with these; gives those that have to be replaced.
    pub(super) fn take_over(&mut self, estate: Estate) -> Vec<usize> {
        let mut outdated = Vec::new();
        for Heir { orphan, about, lot } in estate.0 {
            let (Lot::GoOn { service, .. } | Lot::Leave { service }) = lot else { continue };
            let (name, pid) = (self.name(service), orphan.process.pid);
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let program =
                if std::env::current_exe().is_ok_and(|own| own == program) { OWN_FILE.into() } else { program };
            let handle = match adopted::adopt(service, name.clone(), program, about.since(), orphan, self.news.clone())
            {
                Ok(handle) => handle,
                Err(error) => {
                    tracing::warn!("{name}, pid {pid}, of a former runner can not go on: {error}");
                    continue;
                }
            };
            match lot {
                Lot::GoOn { outdated: is_outdated, .. } => {
                    tracing::info!("{name}, pid {pid}, of a former runner goes on");
                    self.goes_on(service, handle, &about);
                    outdated.extend(is_outdated.then_some(service));
                }
                _ => {
                    tracing::info!("{name}: a predecessor of a former runner, pid {pid}, still serves clients");
                    // Its successor may have come when nobody could tell it any more.
                    handle.signal(Signal::SIGUSR2);
                    let leaving = Leaving::new(handle, self.configuration.settings.frontend.drain_timeout);
                    self.slots[service].leaving.push_back(leaving);
                }
            }
        }
        outdated
    }

    fn goes_on(&mut self, index: usize, handle: Handle, about: &About) {
        let service = &self.slots[index].service;
        let level = self.configuration.settings.runner.log_levels.of(service.part.program());
        if let Err(error) = handle.set_log_level(level) {
            tracing::warn!("{}: does not take its log level: {error}", service.name());
        }
        self.runs_now(index, handle);
        self.slots[index].has_served = true;
        self.vitals.lock().began(index, about.since());
        // It serves. If it does not say so soon, it hangs.
        self.heartbeats.begin(index);
    }

    /// Replaces those whose configuration is that of the former runner, as an operator would.
    pub(super) fn replace_outdated(&mut self, outdated: Vec<usize>) {
        if outdated.is_empty() {
            return;
        }
        tracing::info!("the configuration has changed meanwhile; replacing {} processes", outdated.len());
        // Nobody has asked, and nobody hears the answers.
        let (answers, _) = mpsc::unbounded_channel();
        let request = Request::Restart { component: "all".into() };
        let mut ordered = self.named("all").unwrap_or_default();
        ordered.retain(|index| outdated.contains(index));
        self.restart(ordered, Call { request, answers });
    }
}
