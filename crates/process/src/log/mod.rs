// SPDX-License-Identifier: AGPL-3.0-or-later
//! Log lines as Pushpin writes them: `[INFO] 2026-11-23 20:13:47.800 text`, in local time, to stdout or a file.
//!
//! The code logs with `tracing`'s macros. A level that is off costs one comparison of an atomic; a line costs its formatting
//! into a buffer. A thread writes the buffer out, so that no reader of the log can stop the process.
//!
//! - `line`: the form of a line.
//! - `writer`: the buffer and its thread.

mod line;
mod writer;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use self::writer::{Output, Writer};

/// A process that ends waits so long for its last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to open log file {}: {reason}", file.display())]
pub struct LogError {
    /// Which file.
    pub file: PathBuf,
    /// What the system says.
    pub reason: io::Error,
}

/// Starts logging: `level` from 0 (errors) to 4 (trace), to a file or else to stdout. Up to `buffer` bytes of lines wait for a
/// log that is not read; further ones are lost and counted. Only the first call of a process counts.
///
/// The writer is a thread: signals that are to be blocked must be so before.
pub fn start(level: u8, file: Option<PathBuf>, buffer: usize) -> Result<(), LogError> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let named = file.clone().unwrap_or_else(|| "stdout".into());
    let error = |reason| LogError { file: named.clone(), reason };
    let output = match &file {
        Some(path) => Output::File(path.clone(), Some(writer::append(path).map_err(error)?)),
        None => Output::Stdout(io::stdout().as_fd().try_clone_to_owned().map_err(error)?.into()),
    };
    let writer = Writer::start(output, buffer).map_err(error)?;
    let log = LOG.get_or_init(|| Log { level: AtomicU8::new(level), is_file: file.is_some(), writer });
    // Fails when it has been set already, which is as good.
    let _ = tracing::subscriber::set_global_default(log);
    let shows_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        shows_panic(info);
        flush();
    }));
    Ok(())
}

/// Logs from now on as much as this level says, from 0 (errors) to 4 (trace).
pub fn set_level(level: u8) {
    if let Some(log) = LOG.get() {
        log.level.store(level, Ordering::Relaxed);
        // What is off is remembered where it would be logged.
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Has the log file opened again, after it was renamed. Lines logged from now on go to the new one.
pub fn reopen() {
    if let Some(log) = LOG.get() {
        log.writer.reopen();
    }
}

/// Waits until all lines are written, or for half a second. To be called before the process ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.writer.flush(LAST_LINES);
    }
}

/// Lines that were lost because the log was not read in time, since the start.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.writer.lost())
}

/// Whether lines go to a file, and not to stdout.
pub fn is_file() -> bool {
    LOG.get().is_some_and(|log| log.is_file)
}

/// Writes a line, given without its end, that another process has formatted.
pub fn write_raw(line: &str) {
    if let Some(log) = LOG.get() {
        log.writer.raw(line);
    }
}

/// Whether stdout is a terminal, where a person looks.
pub fn is_watched() -> bool {
    io::stdout().is_terminal()
}

fn filter(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        3 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    level: AtomicU8,
    is_file: bool,
    writer: Writer,
}

impl Log {
    fn filter(&self) -> LevelFilter {
        filter(self.level.load(Ordering::Relaxed))
    }
}

impl Subscriber for &'static Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }

    fn event(&self, event: &Event<'_>) {
        self.writer.line(event.metadata().level(), SystemTime::now(), |line| event.record(line));
    }

    // Spans are not used: a line says all that it has to say.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_level_local_time_and_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        start(2, Some(path.clone()), 1 << 20).unwrap();
        tracing::info!("hello {}", 1);
        tracing::debug!("not this");
        tracing::error!(code = 3, "two\nlines");
        flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("[INFO] 2") && lines[0].ends_with(" hello 1"), "{text}");
        assert_eq!(lines[0].split(' ').nth(2).unwrap().len(), "20:13:47.800".len());
        assert!(lines[1].starts_with("[ERR] ") && lines[1].ends_with("two\\x0alines code=3"), "{text}");

        std::fs::rename(&path, directory.path().join("old.log")).unwrap();
        reopen();
        tracing::warn!("after");
        flush();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("[WARN] "));
        assert_eq!(lost(), 0);

        for (level, is_logged) in [(3, true), (1, false), (4, true)] {
            set_level(level);
            tracing::debug!("at level {level}");
            flush();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.contains(&format!("at level {level}")), is_logged, "{text}");
        }
    }
}
