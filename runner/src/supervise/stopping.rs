// SPDX-License-Identifier: AGPL-3.0-or-later
//! The end of all processes, in order.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::slot::{Slot, State};
use super::{Supervisor, describe};
use crate::asked::{Ask, Asked};
use crate::child::{Ended, News};

/// How long services may take to stop before they are killed.
const GRACE: Duration = Duration::from_secs(4);

/// For how long the others wait for frontends to stop, so that clients are not told that their servers are gone.
const FRONTENDS_FIRST: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    fn signal(&self, signal: Signal) {
        self.slots.iter().flat_map(Slot::processes).for_each(|process| process.signal(signal));
    }

    /// Stops all that run: asks, waits, and kills those that take too long. To be asked again changes nothing: init systems
    /// and impatient people do so, and what stops in order needs its time.
    pub(super) async fn stop(&mut self, told: &mut mpsc::UnboundedReceiver<News>, asked: &mut Asked) {
        self.vitals.lock().stop();
        self.ask_to_stop(true);
        let (deadline, others) = (tokio::time::sleep(GRACE), tokio::time::sleep(FRONTENDS_FIRST));
        tokio::pin!(deadline, others);
        let (mut asked_others, mut killed) = (false, false);
        while self.slots.iter().any(Slot::has_processes) {
            if !asked_others && !self.slots.iter().any(|slot| slot.is_frontend() && slot.has_processes()) {
                asked_others = true;
                self.ask_to_stop(false);
            }
            tokio::select! {
                () = &mut others, if !asked_others => {
                    asked_others = true;
                    self.ask_to_stop(false);
                }
                Some(news) = told.recv() => if let News::Ended(end) = news { self.stopped(&end) },
                ask = asked.next() => if let Ask::Stop = ask {
                    tracing::info!("still stopping; what has not stopped after {} s is killed", GRACE.as_secs());
                },
                () = &mut deadline, if !killed => {
                    killed = true;
                    for slot in &self.slots {
                        if slot.has_processes() {
                            tracing::warn!("{} taking too long, forcing quit", slot.service.name());
                        }
                    }
                    self.signal(Signal::SIGKILL);
                }
            }
        }
    }

    /// Asks frontends, or the others, to stop.
    fn ask_to_stop(&self, frontends: bool) {
        let slots = self.slots.iter().filter(|slot| slot.is_frontend() == frontends);
        slots.flat_map(Slot::processes).for_each(|process| process.signal(Signal::SIGTERM));
    }

    fn stopped(&mut self, end: &Ended) {
        let runs = self.runs(end.service, end.pid);
        let slot = &mut self.slots[end.service];
        self.files.remove_door(&slot.service.file_name, end.pid);
        slot.successor.take_if(|handle| handle.pid == end.pid);
        slot.leaving.retain(|leaving| leaving.process.pid != end.pid);
        if runs {
            slot.state = State::Stopped;
            self.files.remove_pid(&slot.service.file_name);
        }
        // TERM may have come before it was ready to take it.
        let by_signal = end.status.and_then(|status| status.signal()) == Some(Signal::SIGTERM as i32);
        if !end.ended_well() && !by_signal {
            self.unclean = true;
            tracing::error!("{}: Exited uncleanly ({})", slot.service.name(), describe(end.status));
        }
    }
}
