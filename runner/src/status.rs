// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the suite is, for an operator: as JSON and as a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::table;

/// The suite. Fields may be added, and keep their names and meanings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the runner.
    pub version: String,
    /// The runner's executable.
    pub program: String,
    /// The configuration file, or what stands in for it.
    pub config: String,
    /// Process id of the runner.
    pub pid: u32,
    /// How long the runner has run.
    pub uptime_seconds: u64,
    /// Whether requests may be sent here.
    pub ready: bool,
    /// Why not, a line each.
    pub missing: Vec<String>,
    /// All processes.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `proxy`, `frontend-1`.
    pub name: String,
    /// `serving`, `starting`, `down`, or `silent` when it has not told anything for a while.
    pub state: String,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// How long it has run.
    pub uptime_seconds: Option<u64>,
    /// How often it was started again.
    pub restarts: u64,
    /// Why the process before this one ended.
    pub last_end: Option<LastEnd>,
    /// What it has open: clients, requests or holds.
    pub open: Option<u64>,
    /// Of the process that runs, not of the file on disk. Programs of others do not tell.
    pub version: Option<String>,
    /// Its executable.
    pub program: String,
    /// Where it listens for clients and publishers.
    pub listens: Vec<String>,
}

/// The end of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// Signal, exit status, or who asked for it.
    pub reason: String,
    /// How long ago.
    pub seconds_ago: u64,
}

const HEADINGS: [&str; 8] = ["PROCESS", "STATE", "PID", "UPTIME", "RESTARTS", "OPEN", "VERSION", "PROGRAM"];

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.ready { "ready" } else { "not ready" };
        let uptime = duration(self.uptime_seconds);
        writeln!(f, "pushpin-runner {}, pid {}, up {uptime}, {ready}", self.version, self.pid)?;
        writeln!(f, "configuration: {}", self.config)?;
        for reason in &self.missing {
            writeln!(f, "not ready: {reason}")?;
        }
        writeln!(f)?;
        let rows: Vec<_> = std::iter::once(HEADINGS.map(String::from)).chain(self.processes.iter().map(row)).collect();
        for line in table::lines(&rows) {
            writeln!(f, "{line}")?;
        }
        writeln!(f)?;
        for process in self.processes.iter().filter(|process| !process.listens.is_empty()) {
            writeln!(f, "{} listens on {}", process.name, process.listens.join(", "))?;
        }
        for process in &self.processes {
            if let Some(end) = &process.last_end {
                writeln!(f, "{} ended {} ago: {}", process.name, duration(end.seconds_ago), end.reason)?;
            }
        }
        Ok(())
    }
}

fn row(process: &Process) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        process.name.clone(),
        process.state.clone(),
        or_dash(process.pid.map(|pid| pid.to_string())),
        or_dash(process.uptime_seconds.map(duration)),
        process.restarts.to_string(),
        or_dash(process.open.map(|open| open.to_string())),
        or_dash(process.version.clone()),
        process.program.clone(),
    ]
}

/// `5s`, `3m 20s`, `2h 5m`, `4d 3h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_an_operator_looks_for() {
        let end = LastEnd { reason: "SIGKILL".into(), seconds_ago: 200 };
        let process = Process {
            name: "proxy".into(),
            state: "serving".into(),
            pid: Some(12),
            uptime_seconds: Some(90_000),
            restarts: 1,
            last_end: Some(end),
            open: Some(7),
            program: "/usr/bin/pushpin-proxy".into(),
            ..Process::default()
        };
        let down = Process { name: "frontend-10".into(), state: "down".into(), ..Process::default() };
        let status = Status {
            version: "2.0.0".into(),
            program: "/usr/bin/pushpin-runner".into(),
            config: "/etc/pushpin/pushpin.conf".into(),
            pid: 11,
            uptime_seconds: 4000,
            ready: false,
            missing: vec!["frontend-10 does not run".into()],
            processes: vec![process, down],
        };
        let expected = "\
pushpin-runner 2.0.0, pid 11, up 1h 6m, not ready
configuration: /etc/pushpin/pushpin.conf
not ready: frontend-10 does not run

PROCESS      STATE    PID  UPTIME  RESTARTS  OPEN  VERSION  PROGRAM
proxy        serving  12   1d 1h   1         7     -        /usr/bin/pushpin-proxy
frontend-10  down     -    -       0         -     -

proxy ended 3m 20s ago: SIGKILL
";
        assert_eq!(status.to_string(), expected);
    }
}
