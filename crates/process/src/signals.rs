// SPDX-License-Identifier: AGPL-3.0-or-later
//! Signals as events of the component's loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::signal::{self, SigSet, SigmaskHow, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or INT: end in order.
    Stop,
    /// HUP: open the log again, read again what may have changed.
    Reload,
    /// USR2: a successor serves; go on for those that are here, and end when they have left.
    GiveWay,
}

/// What is taken over. Those that mean nothing here would else end the process.
const TAKEN: [Number; 6] =
    [signal::SIGTERM, signal::SIGINT, signal::SIGHUP, signal::SIGUSR1, signal::SIGUSR2, signal::SIGQUIT];

/// Signals that wait to be taken. Its file descriptor is readable when there are any, so that a loop can poll it.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Takes over the signals in this thread, and in all threads that it starts from now on.
    pub fn block() -> io::Result<Self> {
        let set: SigSet = TAKEN.into_iter().collect();
        // A runner has held them back from the start, see [`hold_back`].
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd })
    }

    /// The next signal that asks for something, if there is one. USR1 opens the log again here and now; QUIT is
    /// said to mean nothing.
    ///
    /// TERM may come more than once, from an init system and from a runner, and does not cut the orderly end short. A second
    /// INT does: it comes from a person.
    pub fn take(&mut self) -> Option<Signal> {
        loop {
            let info = self.fd.read_signal().ok().flatten()?;
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Number::try_from(number).ok())? {
                signal::SIGHUP => return Some(Signal::Reload),
                signal::SIGTERM => return Some(Signal::Stop),
                signal::SIGINT => {
                    let _ = SigSet::from(signal::SIGINT).thread_unblock();
                    return Some(Signal::Stop);
                }
                signal::SIGUSR1 => crate::log::reopen(),
                signal::SIGUSR2 => return Some(Signal::GiveWay),
                other => ignore(other),
            }
        }
    }

    /// Does what all waiting signals ask for, as most components do: opens the log again, and returns whether to stop.
    pub fn attend(&mut self) -> bool {
        let mut stop = false;
        while let Some(signal) = self.take() {
            match signal {
                Signal::Stop => stop = true,
                Signal::Reload => crate::log::reopen(),
                Signal::GiveWay => ignore_give_way(),
            }
        }
        stop
    }
}

/// For components that can not have a successor beside them.
pub fn ignore_give_way() {
    ignore(signal::SIGUSR2);
}

fn ignore(number: Number) {
    tracing::info!("{number} is ignored; TERM ends this process");
}

/// Starts a component, by `spawn`, so that signals wait for it until it takes them over. One that comes before, as when logs are
/// rotated, would else end it.
///
/// # Errors
/// The system does not let signals be blocked.
pub fn hold_back<T>(spawn: impl FnOnce() -> T) -> io::Result<T> {
    // A new process inherits which signals are blocked in the thread that starts it.
    let set: SigSet = TAKEN.into_iter().collect();
    let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let spawned = spawn();
    before.thread_set_mask()?;
    Ok(spawned)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn signals_wait_until_they_are_taken() {
        let mut signals = Signals::block().unwrap();
        assert_eq!(signals.take(), None);
        for number in [signal::SIGQUIT, signal::SIGUSR1] {
            signal::raise(number).unwrap();
        }
        assert_eq!(signals.take(), None);
        signal::raise(signal::SIGUSR2).unwrap();
        assert_eq!(signals.take(), Some(Signal::GiveWay));
        signal::raise(signal::SIGHUP).unwrap();
        assert_eq!(signals.take(), Some(Signal::Reload));
        for _ in 0..2 {
            signal::raise(signal::SIGTERM).unwrap();
            assert_eq!(signals.take(), Some(Signal::Stop));
        }
        assert_eq!(signals.take(), None);
    }

    #[test]
    fn signals_wait_for_a_process_that_has_just_been_started() {
        let status = |command: &mut Command| {
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        let mut command = Command::new("grep");
        command.args(["SigBlk", "/proc/self/status"]);
        let before = status(&mut command);
        let held = hold_back(|| status(&mut command)).unwrap();
        for number in TAKEN {
            assert_ne!(held & 1 << (number as u32 - 1), 0, "{number}");
        }
        assert_eq!(status(&mut command), before);
    }
}
