// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tells the runner how a process is, over the line on which it has said that it serves.
//!
//! Twice a second a heartbeat shows that the work loop goes round: it comes from the loop itself, and from no timer or thread that
//! would go on while the loop hangs. Every other one is a page of metrics. A component without runner tells nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::mpsc;
use std::time::Duration;

use metrics::Page;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::adoption::DoorFile;
use crate::parent::{BEAT, PAGE, frame_head};

/// How often a process says that its loop goes round.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// How many heartbeats have one page of metrics.
const BEATS_A_PAGE: u32 = 2;

/// Bytes that a page may have.
pub const MAX_PAGE: usize = 1 << 20;

/// The way of a component's heartbeats and pages. Its descriptor is readable when one is due, so that a loop can poll it.
#[derive(Debug, Default)]
pub struct Reporter(Option<Line>);

#[derive(Debug)]
struct Line {
    timer: TimerFd,
    runner: File,
    page: Page,
    beats: u32,
    /// What the runner has not taken yet. Until it has, there is nothing else.
    unsent: Vec<u8>,
    sent: usize,
    /// Lines to runners that come later.
    others: Option<(DoorFile, mpsc::Receiver<File>)>,
}

impl Reporter {
    /// Tells the runner at the other end; the first page is due at once.
    pub(crate) fn new(runner: File, others: Option<(DoorFile, mpsc::Receiver<File>)>) -> io::Result<Self> {
        fcntl(runner.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let (first, interval) = (TimeSpec::from(Duration::from_nanos(1)), TimeSpec::from(HEARTBEAT));
        timer.set(Expiration::IntervalDelayed(first, interval), TimerSetTimeFlags::empty())?;
        Ok(Self(Some(Line { timer, runner, page: Page::default(), beats: 0, unsent: Vec::new(), sent: 0, others })))
    }

    /// The descriptor to poll; none if nothing is to be told.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.0.as_ref().map(|line| line.timer.as_fd().as_raw_fd())
    }

    /// Says that the loop goes round, if it is time, and each second tells what `write` puts on the page.
    pub fn attend(&mut self, write: impl FnOnce(&mut Page)) {
        let Some(line) = &mut self.0 else { return };
        // Without blocking: it has not passed yet if there is nothing to be read.
        if line.timer.wait().is_ok() {
            line.look_for_another();
            if line.beats.is_multiple_of(BEATS_A_PAGE) {
                line.tell(write);
            } else {
                line.beat();
            }
            line.beats = line.beats.wrapping_add(1);
        }
    }
}

impl Line {
    /// Goes on with another runner if one has come.
    fn look_for_another(&mut self) {
        let Some((_, others)) = &self.others else { return };
        let Ok(runner) = others.try_recv() else { return };
        if fcntl(runner.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
            self.runner = runner;
            self.unsent.clear();
            self.sent = 0;
        }
    }

    fn beat(&mut self) {
        if self.has_sent() {
            self.put(BEAT, |_| {});
        }
        self.send();
    }

    fn tell(&mut self, write: impl FnOnce(&mut Page)) {
        if self.has_sent() {
            self.put(PAGE, write);
        }
        self.send();
    }

    fn has_sent(&self) -> bool {
        self.sent == self.unsent.len()
    }

    fn put(&mut self, kind: u8, write: impl FnOnce(&mut Page)) {
        self.page.clear();
        write(&mut self.page);
        // One that is too long is no reason to be taken for one that hangs.
        let page = Some(self.page.as_str()).filter(|page| page.len() <= MAX_PAGE).unwrap_or_default().as_bytes();
        let Some(head) = frame_head(kind, page.len()) else { return };
        self.unsent.clear();
        self.unsent.extend_from_slice(&head);
        self.unsent.extend_from_slice(page);
        self.sent = 0;
    }

    fn send(&mut self) {
        // A runner that takes nothing now may do so in a second; what happens when it is gone is decided elsewhere.
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.runner.write(rest) {
                Ok(0) | Err(_) => return,
                Ok(count) => self.sent += count,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use metrics::catalogue::WARNINGS;

    use super::*;

    fn line() -> (Line, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let Reporter(line) = Reporter::new(File::from(OwnedFd::from(ours)), None).unwrap();
        (line.unwrap(), theirs)
    }

    fn read(stream: &mut UnixStream) -> String {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let [PAGE, length @ ..] = head else { panic!("{head:?} is not the head of a page") };
        let mut page = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn pages_come_whole_and_in_order_however_slowly_the_runner_reads() {
        let (mut line, mut runner) = line();
        let kind = "x".repeat(MAX_PAGE / 2);
        for number in 0..3 {
            line.tell(|page| page.add(&WARNINGS, &[&kind], number));
        }
        // The first did not fit, so that there were no others meanwhile.
        let reader = std::thread::spawn(move || (read(&mut runner), read(&mut runner)));
        while !reader.is_finished() {
            line.tell(|page| page.add(&WARNINGS, &["y"], 7));
            std::thread::yield_now();
        }
        let (first, second) = reader.join().unwrap();
        assert!(first.ends_with("x\"} 0\n") && first.len() > MAX_PAGE / 2);
        assert_eq!(second, "warnings_total{kind=\"y\"} 7\n");
    }

    #[test]
    fn a_heartbeat_is_a_frame_with_nothing_in_it() {
        let (mut line, mut runner) = line();
        line.beat();
        line.tell(|page| page.add(&WARNINGS, &["y"], 7));
        let mut beat = [0; 5];
        runner.read_exact(&mut beat).unwrap();
        assert_eq!(beat, [BEAT, 0, 0, 0, 0]);
        assert_eq!(read(&mut runner), "warnings_total{kind=\"y\"} 7\n");
    }

    #[test]
    fn a_runner_that_is_gone_is_no_reason_to_fail() {
        let (mut line, runner) = line();
        drop(runner);
        line.tell(|page| page.add(&WARNINGS, &["y"], 7));
    }

    #[test]
    fn nothing_is_due_where_nobody_asks() {
        let mut reporter = Reporter::default();
        reporter.attend(|_| panic!("nobody asked"));
        assert_eq!(reporter.descriptor(), None);
    }
}
