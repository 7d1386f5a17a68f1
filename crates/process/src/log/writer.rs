// SPDX-License-Identifier: AGPL-3.0-or-later
//! Lines on their way out of the process.
//!
//! Whoever logs only appends to a buffer; a thread of its own writes. A reader that stops, a disk that hangs or a terminal
//! that is held by Ctrl-S stops this thread and nothing else. The buffer has a limit: lines that do not fit are lost, and
//! counted in a line of their own as soon as the reader goes on. `tracing-appender` has such a thread as well, but bounds
//! lines and not bytes, allocates for each, cannot open its file again, and does not tell in the log what is missing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::Level;

use super::line::{Fields, Lines};

/// The thread rests so long after each write: of a thousand lines a second few wake it, and most share a system call.
const PAUSE: Duration = Duration::from_millis(5);

/// A buffer that grew beyond this by a burst is given back.
const KEPT: usize = 64 * 1024;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Output {
    /// Stdout, or what has taken its place when it is opened again.
    Stdout(File),
    /// A file that is opened again when it was renamed.
    File(PathBuf, Option<File>),
}

impl Output {
    fn reopen(&mut self) {
        match self {
            Self::File(path, file) => {
                *file = append(path)
                    .inspect_err(|reason| eprintln!("failed to open log file {}: {reason}", path.display()))
                    .ok();
            }
            Self::Stdout(file) => {
                if let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() {
                    *file = stdout.into();
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(file) | Self::File(_, Some(file)) => io::Write::write_all(file, bytes),
            Self::File(_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Opens a file to append lines to it. A named pipe is opened for reading as well, and so does not wait for its reader.
///
/// # Errors
/// It can not be opened, or made.
pub fn append(path: &Path) -> io::Result<File> {
    let is_pipe = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    File::options().append(true).read(is_pipe).create(true).open(path)
}

/// Takes lines and never waits.
#[derive(Clone, Debug)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
    /// For the thread: there is something to do.
    wake: Condvar,
    /// For those who flush: all is written.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: String,
    lines: Lines,
    /// Lines lost and not yet told.
    untold: u64,
    /// Lines lost in all.
    lost: u64,
    reopen: bool,
    /// The last write failed. What is lost is told when there are new lines to try it with.
    failing: bool,
    /// Somebody flushes: no pauses.
    hurry: bool,
    /// The thread waits for something to do.
    idle: bool,
}

impl State {
    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.reopen || (self.untold > 0 && !self.failing)
    }

    fn lose(&mut self, lines: u64) {
        self.untold += lines;
        self.lost += lines;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread. At most `limit` bytes of lines wait while another part of that size is being written.
    pub(super) fn start(output: Output, limit: usize, lines: Lines) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            limit,
            state: Mutex::new(State { lines: lines.clone(), ..State::default() }),
            wake: Condvar::new(),
            empty: Condvar::new(),
        });
        let writer = Self(shared.clone());
        std::thread::Builder::new().name("log".into()).spawn(move || write_all(&shared, output, lines))?;
        Ok(writer)
    }

    /// Takes a line with level and time.
    pub(super) fn line(&self, level: &Level, now: SystemTime, is_request: bool, write: impl FnOnce(&mut Fields<'_>)) {
        self.add(|waiting, lines| lines.append(level, now, waiting, is_request, write));
    }

    /// Takes a line that the process of this name has written, of this level if it does not say.
    pub(super) fn pass_on(&self, name: &str, text: &str, level: Level, now: SystemTime) {
        self.add(|waiting, lines| lines.pass_on(name, text, level, now, waiting));
    }

    fn add(&self, append: impl FnOnce(&mut String, &mut Lines)) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let before = state.waiting.len();
        if before < self.0.limit {
            append(&mut state.waiting, &mut state.lines);
        }
        if before >= self.0.limit || state.waiting.len() > self.0.limit {
            state.waiting.truncate(before);
            state.lose(1);
        }
        // In its pause the thread comes back by itself, unless the buffer would be full before.
        let half = self.0.limit / 2;
        let crossed = before < half && state.waiting.len() >= half;
        let wake = std::mem::take(&mut state.idle) || crossed;
        drop(guard);
        if wake {
            self.0.wake.notify_one();
        }
    }

    /// Has the file opened again.
    pub(super) fn reopen(&self) {
        let mut state = self.0.lock();
        state.reopen = true;
        state.idle = false;
        self.0.wake.notify_one();
    }

    /// Waits until all is written, but not longer than this.
    pub(super) fn flush(&self, longest: Duration) {
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.wake.notify_one();
        let waits = |state: &mut State| !state.idle || state.has_work();
        // Whether or not it was in time, there is nothing more to be done.
        let (mut state, _) =
            self.0.empty.wait_timeout_while(state, longest, waits).unwrap_or_else(PoisonError::into_inner);
        state.hurry = false;
    }

    /// Lines lost in all.
    pub(super) fn lost(&self) -> u64 {
        self.0.lock().lost
    }
}

fn write_all(shared: &Shared, mut output: Output, mut lines: Lines) {
    let mut batch = String::new();
    let mut state = shared.lock();
    loop {
        while !state.has_work() {
            state.idle = true;
            shared.empty.notify_all();
            state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        std::mem::swap(&mut batch, &mut state.waiting);
        let untold = std::mem::take(&mut state.untold);
        let reopen = std::mem::take(&mut state.reopen);
        drop(state);
        if reopen {
            output.reopen();
        }
        let written = output.write(batch.as_bytes());
        let lost = if written.is_err() { batch.lines().count() as u64 } else { 0 };
        batch.clear();
        if untold > 0 {
            lines.append(&Level::WARN, SystemTime::now(), &mut batch, false, |fields| {
                fields.message(format_args!(
                    "{untold} log lines are missing here: the log was not read, or not written, in time"
                ));
            });
        }
        let written = written.and_then(|()| output.write(batch.as_bytes()));
        batch.clear();
        batch.shrink_to(KEPT);
        state = shared.lock();
        state.failing = written.is_err();
        if state.failing {
            state.untold += untold;
            state.lose(lost);
        }
        let rests = |state: &mut State| !state.hurry && state.waiting.len() < shared.limit / 2;
        (state, _) = shared.wake.wait_timeout_while(state, PAUSE, rests).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Instant;

    use super::*;

    fn to_pipe(limit: usize) -> (Writer, File) {
        let (reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        (
            Writer::start(Output::Stdout(file), limit, Lines::default()).unwrap(),
            File::from(std::os::fd::OwnedFd::from(reader)),
        )
    }

    #[test]
    fn a_named_pipe_is_not_waited_for_and_its_reader_gets_what_was_written_before_it_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut output = append(&path).unwrap();
        io::Write::write_all(&mut output, b"line\n").unwrap();
        let mut line = [0; 5];
        File::open(&path).unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"line\n");
    }

    #[test]
    fn a_reader_that_stops_stops_nobody_and_is_told_later_what_it_missed() {
        let (writer, mut reader) = to_pipe(100_000);
        let began = Instant::now();
        for number in 0..10_000 {
            raw(&writer, &format!("{number} {}", "x".repeat(100)));
        }
        let lost = writer.lost();
        assert!(lost > 0 && began.elapsed() < Duration::from_secs(2), "{lost} {:?}", began.elapsed());
        // 64 KB in the pipe, one batch under way, one in the buffer.
        assert!(lost < 10_000 - 600, "{lost}");
        let mut text = String::new();
        let mut buffer = [0; 65536];
        while told(&text) < lost {
            let count = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert_eq!(told(&text), lost);
        assert_eq!(text.lines().filter(|line| line.contains("xxx")).count() as u64, 10_000 - lost);
        raw(&writer, "after it");
        writer.flush(Duration::from_secs(5));
        let count = reader.read(&mut buffer).unwrap();
        assert!(std::str::from_utf8(&buffer[..count]).unwrap().ends_with("after it\n"));
    }

    fn raw(writer: &Writer, text: &str) {
        writer.pass_on("x", text, Level::INFO, SystemTime::now());
    }

    /// Lines that the log itself says are missing.
    fn told(text: &str) -> u64 {
        let notes = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix(": the log was not read, or not written, in time\n"));
        notes.filter_map(|note| note.split(' ').find_map(|word| word.parse::<u64>().ok())).sum()
    }

    #[test]
    fn nothing_is_lost_while_the_reader_reads() {
        let (writer, mut reader) = to_pipe(1 << 20);
        let lines = std::thread::spawn(move || {
            let (mut text, mut buffer) = (String::new(), [0; 65536]);
            while !text.contains("last\n") {
                let count = reader.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            text.lines().count()
        });
        for number in 0..5000 {
            raw(&writer, &number.to_string());
        }
        raw(&writer, "last");
        assert_eq!(lines.join().unwrap(), 5001);
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn flushing_into_a_pipe_that_is_full_ends_in_time() {
        let (writer, _reader) = to_pipe(100_000);
        for _ in 0..2000 {
            raw(&writer, &"x".repeat(100));
        }
        let began = Instant::now();
        writer.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_lost_and_the_others_are_not() {
        let (writer, mut reader) = to_pipe(1000);
        raw(&writer, "before");
        raw(&writer, &"x".repeat(2000));
        writer.flush(Duration::from_secs(5));
        let mut buffer = [0; 4096];
        let count = reader.read(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        assert!(text.starts_with("before\n"), "{text}");
        assert_eq!(writer.lost(), 1);
    }
}
