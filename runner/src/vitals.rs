//! How the suite is: its processes, what they tell, and whether it is ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use metrics::catalogue::{BUILD, PROCESS_RESTARTS, PROCESS_START, PROCESS_UP};
use metrics::{FRESH, Page, Suite};

/// What the supervisor knows and those who ask are told.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Vitals>>);

impl Shared {
    /// About these processes, none of which runs yet.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        Self(Arc::new(Mutex::new(Vitals::new(names))))
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
    stopping: bool,
}

struct Process {
    name: String,
    state: State,
    started: Option<SystemTime>,
    restarts: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Starting,
    Serving,
}

impl Vitals {
    fn new(names: impl Iterator<Item = String>) -> Self {
        let process = |name| Process { name, state: State::Down, started: None, restarts: 0 };
        Self { processes: names.map(process).collect(), suite: Suite::default(), stopping: false }
    }

    /// One is started.
    pub fn start(&mut self, process: usize) {
        let Some(process) = self.processes.get_mut(process) else { return };
        process.restarts += u64::from(process.started.is_some());
        process.started = Some(SystemTime::now());
        process.state = State::Starting;
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

    /// One has ended.
    pub fn end(&mut self, process: usize) {
        if let Some(process) = self.processes.get_mut(process) {
            process.state = State::Down;
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
        }
        self.suite.text(prefix, &own, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals() -> Vitals {
        Vitals::new(["proxy", "handler"].into_iter().map(String::from))
    }

    #[test]
    fn it_is_ready_when_all_serve() {
        let (mut vitals, now) = (vitals(), Instant::now());
        assert_eq!(vitals.missing(now), ["proxy does not run", "handler does not run"]);
        for process in 0..2 {
            vitals.start(process);
            vitals.serve(process);
        }
        assert_eq!(vitals.missing(now), [""; 0]);
        vitals.end(1);
        assert_eq!(vitals.missing(now), ["handler does not run"]);
        vitals.start(1);
        assert_eq!(vitals.missing(now), ["handler is starting"]);
        vitals.serve(1);
        vitals.stop();
        assert_eq!(vitals.missing(now), ["the suite is stopping"]);
    }

    #[test]
    fn one_that_told_something_and_no_longer_does_is_missing() {
        let (mut vitals, now) = (vitals(), Instant::now());
        for process in 0..2 {
            vitals.start(process);
            vitals.serve(process);
        }
        vitals.tell(0, String::new(), now);
        assert_eq!(vitals.missing(now + FRESH), ["proxy has not answered for 5 s"]);
        // Its successor may be of another kind.
        vitals.end(0);
        vitals.start(0);
        vitals.serve(0);
        assert_eq!(vitals.missing(now + FRESH), [""; 0]);
    }

    #[test]
    fn restarts_are_counted() {
        let (mut vitals, now) = (vitals(), Instant::now());
        vitals.start(0);
        vitals.end(0);
        vitals.start(0);
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
