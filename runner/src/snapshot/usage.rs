// SPDX-License-Identifier: AGPL-3.0-or-later
//! What processes take of the machine, as the kernel tells.

use serde::{Deserialize, Serialize};

/// Ticks of `/proc/PID/stat` in a second, on every system that has the file.
const TICKS: f64 = 100.0;

/// What one takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Whose it is: its successor begins anew.
    pub pid: u32,
    /// CPU time since it was started.
    pub cpu_seconds: f64,
    /// Memory that is not swapped out.
    pub memory_bytes: u64,
}

/// What this process takes; none if it has gone.
pub fn of(pid: u32) -> Option<Usage> {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    Some(Usage { pid, cpu_seconds: cpu_seconds(&read("stat")?)?, memory_bytes: memory_bytes(&read("status")?)? })
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()?.checked_add(fields.next()?.ok()?)?;
    Some(ticks as f64 / TICKS)
}

fn memory_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_whatever_a_program_is_called() {
        let stat = "7 (a) R (b)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000000 500 1844\n";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(memory_bytes("Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n"), Some(2 << 20));
        for broken in ["", "7 (a", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 x 50"] {
            assert_eq!(cpu_seconds(broken), None, "{broken}");
        }
        assert_eq!(memory_bytes("VmRSS: many kB"), None);
    }

    #[test]
    fn this_process_takes_something() {
        assert!(of(std::process::id()).unwrap().memory_bytes > 100_000);
        assert_eq!(of(u32::MAX), None);
    }
}
