// SPDX-License-Identifier: AGPL-3.0-or-later
//! How the suite is: its processes, what they tell, and whether it is ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use metrics::catalogue::{
    BACKEND_OPEN, BUILD, CLIENTS, DASHBOARD_REFUSALS, HOLDS, PROCESS_HANGS, PROCESS_RESTARTS, PROCESS_START,
    PROCESS_UP, REQUESTS_OPEN,
};
use metrics::{FRESH, Metric, Page, Suite};

use crate::service::{self, OWN_FILE};
use crate::status::{self, LastEnd, Status};

/// What the supervisor knows and those who ask are told.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Vitals>>);

impl Shared {
    /// About processes with these names, which will listen at these places. None of them runs yet.
    pub fn new(processes: impl Iterator<Item = (String, Vec<String>)>) -> Self {
        Self(Arc::new(Mutex::new(Vitals::new(processes))))
    }

    /// For a short look or change.
    pub fn lock(&self) -> MutexGuard<'_, Vitals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct Vitals {
    processes: Vec<Process>,
    suite: Suite,
    /// When the runner was started.
    since: SystemTime,
    stopping: bool,
    /// Requests that the dashboard refused with 401, and with 403.
    refused: [u64; 2],
}

struct Process {
    name: String,
    /// Where it listens.
    listens: Vec<String>,
    state: State,
    pid: u32,
    program: String,
    version: Option<String>,
    started: Option<SystemTime>,
    restarts: u64,
    hangs: u64,
    last_end: Option<(String, SystemTime)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Starting,
    Serving,
}

impl Vitals {
    fn new(processes: impl Iterator<Item = (String, Vec<String>)>) -> Self {
        let process = |(name, listens)| Process {
            name,
            listens,
            state: State::Down,
            pid: 0,
            program: String::new(),
            version: None,
            started: None,
            restarts: 0,
            hangs: 0,
            last_end: None,
        };
        let processes = processes.map(process).collect();
        Self { processes, suite: Suite::default(), since: SystemTime::now(), stopping: false, refused: [0; 2] }
    }

    /// What the processes have told.
    pub fn suite(&self) -> &Suite {
        &self.suite
    }

    /// The dashboard refuses a request: for want of a good token, or whoever asks.
    pub fn refuse(&mut self, wants_token: bool) {
        self.refused[usize::from(!wants_token)] += 1;
    }

    /// One is started, from this program.
    pub fn start(&mut self, process: usize, pid: u32, program: String) {
        let Some(process) = self.processes.get_mut(process) else { return };
        process.pid = pid;
        process.program = program;
        process.version = None;
        process.restarts += u64::from(process.started.is_some());
        process.started = Some(SystemTime::now());
        process.state = State::Starting;
    }

    /// One was started before this runner.
    pub fn began(&mut self, process: usize, time: SystemTime) {
        if let Some(process) = self.processes.get_mut(process) {
            process.started = Some(time);
        }
    }

    /// One says that it serves.
    pub fn serve(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process).filter(|process| process.state == State::Starting) {
            process.state = State::Serving;
        }
    }

    /// One tells its metrics.
    pub fn tell(&mut self, process: usize, page: String, now: Instant) {
        if let Some(process) = self.processes.get(process) {
            self.suite.tell(&process.name, page, now);
        }
    }

    /// One tells its version. So it is one that will tell more, also if it hangs before it has.
    pub fn tell_version(&mut self, process: usize, version: String, now: Instant) {
        if let Some(process) = self.processes.get_mut(process) {
            process.version = Some(version);
            self.suite.tell(&process.name, String::new(), now);
        }
    }

    /// The version that one has told.
    pub fn version(&self, process: usize) -> Option<&str> {
        self.processes.get(process)?.version.as_deref()
    }

    /// What one has told last of a metric.
    pub fn value(&self, process: usize, metric: &Metric, now: Instant) -> Option<u64> {
        self.suite.value(&self.processes.get(process)?.name, metric, now)
    }

    /// One hangs and is killed.
    pub fn hang(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.hangs += 1;
        }
    }

    /// Why the last one of a kind ended.
    pub fn last_end(&self, process: usize) -> Option<&str> {
        self.processes.get(process)?.last_end.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// One has ended, for this reason.
    pub fn end(&mut self, process: usize, reason: String) {
        if let Some(process) = self.processes.get_mut(process) {
            process.state = State::Down;
            process.last_end = Some((reason, SystemTime::now()));
            self.suite.end(&process.name);
        }
    }

    /// All are told to end.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Why requests should not be sent here, a line each; nothing if they may.
    pub fn missing(&self, now: Instant) -> Vec<String> {
        let wrong = self
            .processes
            .iter()
            .filter_map(|process| Some(format!("{} {}", process.name, self.trouble(process, now)?)));
        self.stopping.then(|| "the suite is stopping".to_owned()).into_iter().chain(wrong).collect()
    }

    /// What is wrong with a process. One that never tells anything, as programs of others, is right as long as it runs.
    fn trouble(&self, process: &Process, now: Instant) -> Option<String> {
        match process.state {
            State::Down => Some("does not run".into()),
            State::Starting => Some("is starting".into()),
            State::Serving if self.suite.is_fresh(&process.name, now) == Some(false) => {
                Some(format!("has not answered for {} s", FRESH.as_secs()))
            }
            State::Serving => None,
        }
    }

    /// How the suite is that has this configuration.
    pub fn status(&self, config: String, now: Instant, time: SystemTime) -> Status {
        let missing = self.missing(now);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            program: service::describe(OWN_FILE.as_ref()),
            config,
            pid: std::process::id(),
            uptime_seconds: seconds(self.since, time),
            ready: missing.is_empty(),
            missing,
            processes: self.processes.iter().map(|process| self.status_of(process, now, time)).collect(),
        }
    }

    fn status_of(&self, process: &Process, now: Instant, time: SystemTime) -> status::Process {
        let runs = process.state != State::Down;
        let state = match process.state {
            State::Down => "down",
            State::Starting => "starting",
            State::Serving if self.trouble(process, now).is_some() => "silent",
            State::Serving => "serving",
        };
        let mut open = [CLIENTS, REQUESTS_OPEN, HOLDS, BACKEND_OPEN].iter();
        status::Process {
            name: process.name.clone(),
            state: state.into(),
            pid: runs.then_some(process.pid),
            uptime_seconds: process.started.filter(|_| runs).map(|started| seconds(started, time)),
            restarts: process.restarts,
            last_end: process
                .last_end
                .as_ref()
                .map(|(reason, at)| LastEnd { reason: reason.clone(), seconds_ago: seconds(*at, time) }),
            open: open.find_map(|metric| self.suite.value(&process.name, metric, now)),
            version: process.version.clone().filter(|_| runs),
            program: process.program.clone(),
            listens: process.listens.clone(),
        }
    }

    /// The metrics of the suite, with names that begin with `prefix`.
    pub fn text(&self, prefix: &str, now: Instant) -> String {
        let mut own = Page::default();
        own.add(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
        for process in &self.processes {
            let labels = &[process.name.as_str()];
            own.add(&PROCESS_UP, labels, u8::from(self.trouble(process, now).is_none()));
            if let Some(since) = process.started.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
                own.add(&PROCESS_START, labels, since.as_secs_f64());
            }
            own.add(&PROCESS_RESTARTS, labels, process.restarts);
            own.add(&PROCESS_HANGS, labels, process.hangs);
        }
        own.add_each(&DASHBOARD_REFUSALS, ["401", "403"].into_iter().zip(self.refused));
        self.suite.text(prefix, &own, now)
    }
}

/// Whole seconds between these; none if the clock was set back.
fn seconds(since: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(since).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn vitals() -> Vitals {
        Vitals::new(["proxy", "handler"].into_iter().map(|name| (name.into(), Vec::new())))
    }

    #[test]
    fn the_status_tells_why_a_process_ended_and_how_old_its_successor_is() {
        let (mut vitals, now) = (vitals(), Instant::now());
        vitals.start(0, 7, "old".into());
        vitals.serve(0);
        vitals.tell_version(0, "1".into(), now);
        vitals.tell(0, "requests_open{kind=\"http\"} 3\nrequests_open{kind=\"ws\"} 4\n".into(), now);
        let status = vitals.status("c".into(), now, SystemTime::now());
        assert_eq!(status.processes[0].open, Some(7));
        assert_eq!(status.processes[0].version.as_deref(), Some("1"));
        vitals.end(0, "SIGKILL".into());
        let status = vitals.status("c".into(), now, SystemTime::now());
        assert_eq!((status.processes[0].pid, status.processes[0].uptime_seconds, status.ready), (None, None, false));
        vitals.start(0, 8, "new".into());
        let later = SystemTime::now() + Duration::from_secs(5);
        let process = &vitals.status("c".into(), now, later).processes[0];
        assert_eq!((process.pid, process.restarts, process.state.as_str()), (Some(8), 1, "starting"));
        assert_eq!((process.program.as_str(), process.uptime_seconds, &process.version), ("new", Some(5), &None));
        assert_eq!(process.last_end, Some(LastEnd { reason: "SIGKILL".into(), seconds_ago: 5 }));
    }

    #[test]
    fn it_is_ready_when_all_serve() {
        let (mut vitals, now) = (vitals(), Instant::now());
        assert_eq!(vitals.missing(now), ["proxy does not run", "handler does not run"]);
        for process in 0..2 {
            vitals.start(process, 1, String::new());
            vitals.serve(process);
        }
        assert_eq!(vitals.missing(now), [""; 0]);
        vitals.end(1, String::new());
        assert_eq!(vitals.missing(now), ["handler does not run"]);
        vitals.start(1, 1, String::new());
        assert_eq!(vitals.missing(now), ["handler is starting"]);
        vitals.serve(1);
        vitals.stop();
        assert_eq!(vitals.missing(now), ["the suite is stopping"]);
    }

    #[test]
    fn one_that_told_something_and_no_longer_does_is_missing() {
        let (mut vitals, now) = (vitals(), Instant::now());
        for process in 0..2 {
            vitals.start(process, 1, String::new());
            vitals.serve(process);
        }
        vitals.tell(0, String::new(), now);
        assert_eq!(vitals.missing(now + FRESH), ["proxy has not answered for 5 s"]);
        // Its successor may be of another kind.
        vitals.end(0, String::new());
        vitals.start(0, 1, String::new());
        vitals.serve(0);
        assert_eq!(vitals.missing(now + FRESH), [""; 0]);
    }

    #[test]
    fn one_that_hangs_before_it_has_told_anything_but_its_version_is_silent() {
        let (mut vitals, now) = (vitals(), Instant::now());
        for process in 0..2 {
            vitals.start(process, 1, String::new());
            vitals.serve(process);
        }
        vitals.tell_version(1, "1".into(), now);
        assert_eq!(vitals.missing(now), [""; 0]);
        assert_eq!(vitals.missing(now + FRESH), ["handler has not answered for 5 s"]);
    }

    #[test]
    fn restarts_are_counted() {
        let (mut vitals, now) = (vitals(), Instant::now());
        vitals.start(0, 1, String::new());
        vitals.end(0, String::new());
        vitals.start(0, 1, String::new());
        let text = vitals.text("", now);
        for line in [
            "pushpin_process_restarts_total{process=\"proxy\"} 1",
            "pushpin_process_restarts_total{process=\"handler\"} 0",
            "pushpin_process_up{process=\"proxy\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
