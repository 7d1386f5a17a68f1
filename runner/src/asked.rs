// SPDX-License-Identifier: AGPL-3.0-or-later
//! What signals ask of the runner.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// One wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// TERM or INT.
    Stop,
    /// HUP: read again what may have changed.
    Reload,
    /// USR1: open log files again.
    Reopen,
}

/// Signals to the runner.
#[derive(Debug)]
pub struct Asked {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
    /// These mean nothing, and would else end the runner and with it the suite.
    ignored: [Signal; 2],
}

impl Asked {
    /// Takes them over from now on.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            ignored: [signal(SignalKind::user_defined2())?, signal(SignalKind::quit())?],
        })
    }

    /// Waits for the next. Can be dropped and called again without losing one.
    pub async fn next(&mut self) -> Ask {
        let [usr2, quit] = &mut self.ignored;
        loop {
            tokio::select! {
                _ = self.term.recv() => return Ask::Stop,
                _ = self.int.recv() => return Ask::Stop,
                _ = self.hup.recv() => return Ask::Reload,
                _ = self.usr1.recv() => return Ask::Reopen,
                _ = usr2.recv() => tracing::info!("USR2 is ignored; TERM stops the suite"),
                _ = quit.recv() => tracing::info!("QUIT is ignored; TERM stops the suite"),
            }
        }
    }
}
