//! TERM, INT and HUP as events of the component's loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM or INT: end in order.
    Stop,
    /// HUP: open the log again, read again what may have changed.
    Reload,
}

/// Signals that wait to be taken. Its file descriptor is readable when there are any, so that a loop can poll it.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Takes over the signals in this thread, and in all threads that it starts from now on.
    pub fn block() -> io::Result<Self> {
        let mut set = stop_signals();
        set.add(signal::SIGHUP);
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd })
    }

    /// The next signal, if there is one. After the first [`Signal::Stop`] another one ends the process at once, in case the
    /// orderly end does not.
    pub fn take(&mut self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        if info.ssi_signo == signal::SIGHUP as u32 {
            return Some(Signal::Reload);
        }
        let _ = stop_signals().thread_unblock();
        Some(Signal::Stop)
    }

    /// Does what all waiting signals ask for, as most components do: opens the log again, and returns whether to stop.
    pub fn attend(&mut self) -> bool {
        let mut stop = false;
        while let Some(signal) = self.take() {
            match signal {
                Signal::Stop => stop = true,
                Signal::Reload => crate::log::reopen(),
            }
        }
        stop
    }
}

fn stop_signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(signal::SIGTERM);
    set.add(signal::SIGINT);
    set
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
    use super::*;

    #[test]
    fn signals_wait_until_they_are_taken() {
        let mut signals = Signals::block().unwrap();
        assert_eq!(signals.take(), None);
        signal::raise(signal::SIGHUP).unwrap();
        assert_eq!(signals.take(), Some(Signal::Reload));
        signal::raise(signal::SIGTERM).unwrap();
        assert_eq!(signals.take(), Some(Signal::Stop));
        assert_eq!(signals.take(), None);
    }
}
