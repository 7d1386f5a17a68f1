// SPDX-License-Identifier: AGPL-3.0-or-later
//! Log lines as Pushpin writes them (`[INFO] 2026-11-23 20:13:47.800 text`, in local time), or as JSON, to stdout or a file.
//!
//! The code logs with `tracing`'s macros. A level that is off costs one comparison of an atomic; a line costs its formatting
//! into a buffer. A thread writes the buffer out, so that no reader of the log can stop the process.
//!
//! - `line`: the form of a line.
//! - `journal`: what that of systemd wants besides.
//! - `writer`: the buffer and its thread.

mod journal;
mod line;
mod writer;

pub use writer::append;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use settings::LogFormat;

use self::line::Lines;
use self::writer::{Output, Writer};

/// Target of events that are lines of requests: their fields say again what their message says, for lines that are JSON.
pub const REQUESTS: &str = "requests";

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

/// How and where to log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this process in lines that are JSON.
    pub process: String,
    /// From 0 (errors) to 4 (trace).
    pub level: u8,
    /// Lines are appended to this file, or else go to stdout.
    pub file: Option<PathBuf>,
    /// So many bytes of lines wait for a log that is not read; further ones are lost and counted.
    pub buffer: usize,
    /// Form of a line.
    pub format: LogFormat,
}

/// Starts logging. Only the first call of a process counts.
///
/// The writer is a thread: signals that are to be blocked must be so before.
pub fn start(options: Options) -> Result<(), LogError> {
    let Options { process, level, file, buffer, format } = options;
    if LOG.get().is_some() {
        return Ok(());
    }
    let named = file.clone().unwrap_or_else(|| "stdout".into());
    let error = |reason| LogError { file: named.clone(), reason };
    let output = match &file {
        Some(path) => Output::File(path.clone(), Some(writer::append(path).map_err(error)?)),
        None => Output::Stdout(io::stdout().as_fd().try_clone_to_owned().map_err(error)?.into()),
    };
    let lines = Lines::new((format == LogFormat::Json).then_some(process))
        .with_priorities(file.is_none() && journal::is_at(io::stdout()));
    let writer = Writer::start(output, buffer, lines).map_err(error)?;
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

/// Writes a line, given without its end, that the process of this name has written; it is of this level if it does not say.
pub fn pass_on(name: &str, line: &str, level: Level) {
    if let Some(log) = LOG.get() {
        log.writer.pass_on(name, line, level, SystemTime::now());
    }
}

/// Whether a line is a log line of Pushpin's form or ours.
pub fn is_log_line(line: &str) -> bool {
    line::is_log_line(line)
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
        let metadata = event.metadata();
        let is_request = metadata.target() == REQUESTS;
        self.writer.line(metadata.level(), SystemTime::now(), is_request, |fields| event.record(fields));
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
        let (process, format) = ("x".to_string(), LogFormat::Pushpin);
        start(Options { process, level: 2, file: Some(path.clone()), buffer: 1 << 20, format }).unwrap();
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
