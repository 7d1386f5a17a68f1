// SPDX-License-Identifier: AGPL-3.0-or-later
//! When to read from a client, how long to wait for it, and when to close. Decisions only: no I/O, no clock.
//!
//! The worker tells what has happened, and asks what to do. What the protocol stands at is a [`Stage`]; what the
//! connection has been through is in [`Pacing`].

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::{Duration, Instant};

use super::deadlines::{Deadlines, Late};
use crate::transplant::record::{PacingRecord, Wait, age, before};

/// Bytes of a client that are read and thrown away in one turn, once its last response is under way.
const DISCARD: usize = 65_536;

/// Where the protocol stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No request has begun.
    Idle,
    /// A part of a head has come.
    Head,
    /// The server takes this much more of the request's body.
    Body {
        /// In bytes.
        room: usize,
        /// The response has not begun, and the server waits for the body.
        awaited: bool,
    },
    /// There is more of the request's body, but no room for it.
    Stopped,
    /// The client waits, for a response or until it has read more of the one before.
    Waiting,
    /// No request can follow; the output goes out, then the connection ends.
    Closing,
    /// To be closed now.
    Closed {
        /// With a reset, so that what the client has does not look complete.
        abort: bool,
    },
}

/// What to do with bytes that the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Read so many at most.
    Take(usize),
    /// Read so many at most and forget them.
    Discard(usize),
    /// Leave them where they are.
    Pause,
}

/// What to do once the output has been written as far as the client takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: the connection goes on.
    GoOn,
    /// Close the sending side, and wait for the client to do the same: if the socket was closed while the client still
    /// sends, the system would send a reset, and the client could lose the response.
    ShutDown,
    /// Close the socket.
    Close,
    /// Close the socket with a reset.
    Abort,
}

/// The history of one connection that decides how it is treated.
#[derive(Debug)]
pub struct Pacing {
    /// When the present stage began.
    since: Instant,
    /// When the client last sent something that was wanted.
    heard: Instant,
    /// What is known of a client that does not take its output.
    lag: Option<Box<Lag>>,
    /// The stage that `since` is of.
    wait: Wait,
    /// A proxy has yet to say who the client is.
    pub unintroduced: bool,
    /// There was a request before.
    used: bool,
    /// Our side is closed.
    shut: bool,
    /// The client has closed its side; what it sent before may not have been read yet.
    pub ended: bool,
    /// The end of what the client sent has been read.
    pub drained: bool,
}

#[derive(Debug)]
struct Lag {
    since: Instant,
    /// When the client last took something.
    taken: Instant,
    /// Bytes taken since.
    bytes: u64,
}

impl Pacing {
    /// Of a connection that has just been accepted.
    pub fn new(now: Instant) -> Self {
        Pacing {
            since: now,
            heard: now,
            lag: None,
            wait: Wait::Idle,
            unintroduced: false,
            used: false,
            shut: false,
            ended: false,
            drained: false,
        }
    }

    /// Writes down what the connection has been through, for another process; none if it is about to end, or a proxy has yet to
    /// say whose it is.
    pub(crate) fn snapshot(&self, now: Instant) -> Option<PacingRecord> {
        if self.unintroduced || self.shut || self.ended || self.drained || self.wait == Wait::Closing {
            return None;
        }
        Some(PacingRecord {
            since: age(now, self.since),
            heard: age(now, self.heard),
            lag: self.lag.as_ref().map(|lag| (age(now, lag.since), age(now, lag.taken), lag.bytes)),
            wait: self.wait,
            used: self.used,
        })
    }

    /// Goes on from there.
    pub(crate) fn restore(record: &PacingRecord, now: Instant) -> Self {
        let lag = record
            .lag
            .map(|(since, taken, bytes)| Box::new(Lag { since: before(now, since), taken: before(now, taken), bytes }));
        Pacing {
            since: before(now, record.since),
            heard: before(now, record.heard),
            lag,
            wait: record.wait,
            used: record.used,
            ..Pacing::new(now)
        }
    }

    /// Whether and how much to read. `buffered` bytes have been read and not been used; `limit` of them may be.
    pub fn reading(&self, stage: Stage, buffered: usize, limit: usize) -> Reading {
        match stage {
            Stage::Body { room, .. } => Reading::Take(room),
            Stage::Idle | Stage::Head | Stage::Waiting if buffered < limit => Reading::Take(limit - buffered),
            Stage::Idle | Stage::Head | Stage::Waiting | Stage::Stopped | Stage::Closed { .. } => Reading::Pause,
            Stage::Closing => Reading::Discard(DISCARD),
        }
    }

    /// Whether a client that has closed its side is to be given up although not all it sent was read: there is nothing
    /// to be read on for.
    pub fn has_left(&self, stage: Stage, buffered: usize, limit: usize) -> bool {
        self.ended
            && self.reading(stage, buffered, limit) == Reading::Pause
            && matches!(stage, Stage::Waiting | Stage::Stopped)
    }

    /// The client has sent something.
    pub fn on_read(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Output was offered to the client: it took `written` bytes, `unsent` are left.
    pub fn on_write(&mut self, written: usize, unsent: usize, now: Instant) {
        if unsent == 0 {
            self.lag = None;
            return;
        }
        let lag = self.lag.get_or_insert_with(|| Box::new(Lag { since: now, taken: now, bytes: 0 }));
        if written > 0 {
            lag.taken = now;
            lag.bytes += written as u64;
        }
    }

    /// Notes where the connection stands now, so that its deadline runs from here if that is new.
    pub fn enter(&mut self, stage: Stage, now: Instant) {
        let wait = match stage {
            Stage::Idle => Wait::Idle,
            Stage::Head => Wait::Head,
            Stage::Body { awaited: true, .. } => Wait::Body,
            Stage::Body { .. } | Stage::Stopped | Stage::Waiting => Wait::Server,
            // From here on time runs from the shut-down.
            Stage::Closing | Stage::Closed { .. } => Wait::Closing,
        };
        if wait != self.wait {
            self.used |= matches!(wait, Wait::Body | Wait::Server);
            self.wait = wait;
            self.since = now;
        }
    }

    /// What becomes of the connection, now that `unsent` bytes of output are left.
    pub fn ending(&self, stage: Stage, unsent: usize) -> Ending {
        match stage {
            Stage::Closed { abort: true } => Ending::Abort,
            Stage::Closed { abort: false } => Ending::Close,
            Stage::Closing if unsent == 0 && self.drained => Ending::Close,
            Stage::Closing if unsent == 0 && !self.shut => Ending::ShutDown,
            _ => Ending::GoOn,
        }
    }

    /// Our side was closed.
    pub fn on_shut_down(&mut self, now: Instant) {
        (self.shut, self.since, self.heard) = (true, now, now);
    }

    /// The next deadline and what it is for; `None` if nothing of the client is waited for.
    pub fn due(&self, deadlines: &Deadlines) -> Option<(Instant, Late)> {
        let own = match self.wait {
            Wait::Idle if self.used => after(self.since, deadlines.idle, Late::Idle),
            Wait::Idle => after(self.since, deadlines.head, Late::Head),
            Wait::Head => after(self.since, deadlines.head, Late::Head),
            Wait::Body => after(self.since.max(self.heard), deadlines.body, Late::Body),
            Wait::Closing if self.shut => [
                after(self.since, deadlines.linger, Late::Linger),
                after(self.heard, deadlines.linger_quiet, Late::Linger),
            ]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due),
            Wait::Server | Wait::Closing => None,
        };
        let write = self.lag.as_ref().and_then(|lag| lag.due(deadlines));
        [own, write].into_iter().flatten().min_by_key(|(due, _)| *due)
    }
}

impl Lag {
    fn due(&self, deadlines: &Deadlines) -> Option<(Instant, Late)> {
        let (due, late) = after(self.taken, deadlines.write, Late::Write)?;
        // What was taken at the least rate lasts for so long.
        let paid = self.bytes.checked_div(deadlines.min_rate).map(Duration::from_secs);
        let slowest = paid.map_or(due, |paid| self.since + deadlines.write + paid);
        Some((due.min(slowest), late))
    }
}

fn after(since: Instant, deadline: Duration, late: Late) -> Option<(Instant, Late)> {
    (!deadline.is_zero()).then(|| (since + deadline, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8192;
    const BODY: Stage = Stage::Body { room: 100, awaited: true };

    /// A connection and a clock turned by hand, in seconds.
    struct Bench {
        pacing: Pacing,
        start: Instant,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let start = Instant::now();
            Bench { pacing: Pacing::new(start), start, now: start }
        }

        fn at(&mut self, seconds: u64, stage: Stage) {
            self.now = self.start + Duration::from_secs(seconds);
            self.pacing.enter(stage, self.now);
        }

        fn due(&self) -> Option<(u64, Late)> {
            let (due, late) = self.pacing.due(&Deadlines::default())?;
            Some((due.duration_since(self.start).as_secs(), late))
        }
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte_however_its_bytes_are_spread() {
        let mut bench = Bench::new();
        assert_eq!(bench.due(), Some((60, Late::Head)));
        for second in 10..50 {
            bench.at(second, Stage::Head);
            bench.pacing.on_read(bench.now);
        }
        assert_eq!(bench.due(), Some((70, Late::Head)));
    }

    #[test]
    fn empty_lines_before_a_request_do_not_extend_its_time() {
        let mut bench = Bench::new();
        for second in 1..50 {
            bench.at(second, Stage::Idle);
            bench.pacing.on_read(bench.now);
        }
        assert_eq!(bench.due(), Some((60, Late::Head)));
    }

    #[test]
    fn a_used_connection_may_be_idle_and_a_waiting_client_has_no_deadline() {
        let mut bench = Bench::new();
        bench.at(5, Stage::Waiting);
        assert_eq!(bench.due(), None);
        bench.at(10, Stage::Idle);
        assert_eq!(bench.due(), Some((85, Late::Idle)));
        bench.at(20, Stage::Head);
        assert_eq!(bench.due(), Some((80, Late::Head)));
    }

    #[test]
    fn a_body_has_its_time_between_reads_and_only_while_there_is_room_and_someone_waits() {
        let mut bench = Bench::new();
        bench.at(1, BODY);
        assert_eq!(bench.due(), Some((61, Late::Body)));
        bench.at(40, BODY);
        bench.pacing.on_read(bench.now);
        assert_eq!(bench.due(), Some((100, Late::Body)));
        bench.at(50, Stage::Stopped);
        assert_eq!(bench.due(), None);
        bench.at(70, BODY);
        assert_eq!(bench.due(), Some((130, Late::Body)));
        bench.at(80, Stage::Body { room: 1, awaited: false });
        assert_eq!(bench.due(), None);
    }

    #[test]
    fn a_client_that_does_not_read_has_the_time_between_two_writes() {
        let mut bench = Bench::new();
        bench.at(0, Stage::Waiting);
        bench.at(10, Stage::Waiting);
        bench.pacing.on_write(50_000, 10, bench.now);
        assert_eq!(bench.due(), Some((70, Late::Write)));
        bench.at(50, Stage::Waiting);
        bench.pacing.on_write(0, 20, bench.now);
        assert_eq!(bench.due(), Some((70, Late::Write)));
        bench.pacing.on_write(5000, 10, bench.now);
        assert_eq!(bench.due(), Some((110, Late::Write)));
        bench.pacing.on_write(10, 0, bench.now);
        assert_eq!(bench.due(), None);
    }

    #[test]
    fn a_client_that_reads_a_byte_at_a_time_has_no_more_time_than_it_pays_for() {
        let mut bench = Bench::new();
        bench.at(0, Stage::Waiting);
        bench.pacing.on_write(0, 1000, bench.now);
        for second in 1..200 {
            bench.at(second, Stage::Waiting);
            bench.pacing.on_write(1, 1000, bench.now);
        }
        assert_eq!(bench.due(), Some((61, Late::Write)));
        bench.pacing.on_write(100_000, 1000, bench.now);
        assert_eq!(bench.due(), Some((259, Late::Write)));
    }

    #[test]
    fn a_closing_connection_is_shut_down_when_all_is_written_and_closed_when_the_client_has_ended() {
        let mut bench = Bench::new();
        bench.at(3, Stage::Closing);
        assert_eq!(bench.pacing.ending(Stage::Closing, 1), Ending::GoOn);
        assert_eq!(bench.due(), None);
        assert_eq!(bench.pacing.ending(Stage::Closing, 0), Ending::ShutDown);
        bench.pacing.on_shut_down(bench.now);
        assert_eq!(bench.pacing.ending(Stage::Closing, 0), Ending::GoOn);
        assert_eq!(bench.due(), Some((8, Late::Linger)));
        for second in 4..33 {
            bench.at(second, Stage::Closing);
            bench.pacing.on_read(bench.now);
        }
        assert_eq!(bench.due(), Some((33, Late::Linger)));
        bench.pacing.ended = true;
        assert_eq!(bench.pacing.ending(Stage::Closing, 0), Ending::GoOn, "unread bytes would cause a reset");
        bench.pacing.drained = true;
        assert_eq!(bench.pacing.ending(Stage::Closing, 0), Ending::Close);
    }

    #[test]
    fn what_is_sent_ahead_is_read_up_to_the_size_of_a_head() {
        let pacing = Pacing::new(Instant::now());
        for stage in [Stage::Idle, Stage::Head, Stage::Waiting] {
            assert_eq!(pacing.reading(stage, 8000, LIMIT), Reading::Take(192));
            assert_eq!(pacing.reading(stage, LIMIT, LIMIT), Reading::Pause);
        }
        assert_eq!(pacing.reading(BODY, 5, LIMIT), Reading::Take(100));
        assert_eq!(pacing.reading(Stage::Stopped, 0, LIMIT), Reading::Pause);
        assert!(matches!(pacing.reading(Stage::Closing, 0, LIMIT), Reading::Discard(2..)));
    }

    #[test]
    fn a_client_that_ended_behind_bytes_that_can_not_be_read_has_left() {
        let mut pacing = Pacing::new(Instant::now());
        assert!(!pacing.has_left(Stage::Waiting, LIMIT, LIMIT));
        pacing.ended = true;
        assert!(pacing.has_left(Stage::Waiting, LIMIT, LIMIT));
        assert!(pacing.has_left(Stage::Stopped, 0, LIMIT));
        // Its end comes by reading.
        assert!(!pacing.has_left(Stage::Waiting, 10, LIMIT));
        assert!(!pacing.has_left(BODY, 0, LIMIT));
    }
}
