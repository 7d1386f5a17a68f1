//! A component and the runner that started it.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Variable in which the runner tells its process id to the components that it starts.
pub const RUNNER: &str = "PUSHPIN_RUNNER";

fn runner() -> Option<Pid> {
    Some(Pid::from_raw(std::env::var(RUNNER).ok()?.parse().ok()?))
}

/// Whether the runner started this process.
pub(crate) fn started_by_runner() -> bool {
    runner().is_some()
}

/// Has this process stopped when its runner dies, however it dies: a suite without runner would hold its ports for ever.
pub(crate) fn die_with_runner() {
    let Some(runner) = runner() else { return };
    // Fails on no system that has the call.
    let _ = prctl::set_pdeathsig(Signal::SIGTERM);
    if getppid() != runner {
        // It died before the line above.
        std::process::exit(0);
    }
}

/// Shows `name` in `ps` and `/proc`, of which the kernel keeps 15 bytes.
pub fn name_this_process(name: &str) {
    let short: Vec<u8> = name.bytes().filter(|b| *b != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        // A name is for people; without it all works.
        let _ = prctl::set_name(&name);
    }
}
