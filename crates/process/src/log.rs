//! Log lines as Pushpin writes them: `[INFO] 2026-11-23 20:13:47.800 text`, in local time, to stdout or a file.
//!
//! The code logs with `tracing`'s macros. A level that is off costs one comparison of an atomic; a line costs its formatting
//! into a buffer that is kept and one `write`.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Local, TimeZone as _};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// The log cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to open log file {}: {reason}", file.display())]
pub struct LogError {
    /// Which file.
    pub file: PathBuf,
    /// What the system says.
    pub reason: io::Error,
}

/// Starts logging: `level` from 0 (errors) to 4 (trace), to a file or else to stdout. Only the first call of a process counts.
pub fn start(level: u8, file: Option<PathBuf>) -> Result<(), LogError> {
    let output = match &file {
        Some(path) => append(path)?,
        None => File::from(
            io::stdout().as_fd().try_clone_to_owned().map_err(|reason| LogError { file: "stdout".into(), reason })?,
        ),
    };
    let log = LOG.get_or_init(|| Log { level: filter(level), file, state: Mutex::new(State::new(output)) });
    // Fails when it has been set already, which is as good.
    let _ = tracing::subscriber::set_global_default(log);
    Ok(())
}

/// Opens the log file again, after it was renamed. On failure nothing is logged until the next time.
pub fn reopen() {
    let Some(log) = LOG.get() else { return };
    let Some(path) = &log.file else { return };
    let output = append(path);
    if let Err(error) = &output {
        eprintln!("{error}");
    }
    log.state.lock().unwrap_or_else(PoisonError::into_inner).output = output.ok();
}

/// Whether lines go to a file, and not to stdout.
pub fn is_file() -> bool {
    LOG.get().is_some_and(|log| log.file.is_some())
}

/// Writes a line that another process has formatted.
pub fn write_raw(line: &[u8]) {
    let Some(log) = LOG.get() else { return };
    if let Some(output) = &mut log.state.lock().unwrap_or_else(PoisonError::into_inner).output {
        // There is nowhere to say that the log cannot be written.
        let _ = output.write_all(line);
    }
}

fn append(path: &Path) -> Result<File, LogError> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map_err(|reason| LogError { file: path.into(), reason })
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

fn tag(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "ERR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    level: LevelFilter,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    output: Option<File>,
    line: String,
    clock: Clock,
}

impl State {
    fn new(output: File) -> Self {
        Self { output: Some(output), line: String::new(), clock: Clock::default() }
    }

    fn write(&mut self, level: &Level, event: &Event<'_>) {
        self.line.clear();
        let _ = write!(self.line, "[{}] ", tag(level));
        self.clock.write(SystemTime::now(), &mut self.line);
        self.line.push(' ');
        event.record(&mut Fields(&mut self.line));
        self.line.push('\n');
        if let Some(output) = &mut self.output {
            // There is nowhere to say that the log cannot be written.
            let _ = output.write_all(self.line.as_bytes());
        }
    }
}

/// Writes times. The text of a second is kept: the time zone is looked up once a second, not once a line.
#[derive(Default)]
struct Clock {
    second: u64,
    text: String,
}

impl Clock {
    fn write(&mut self, now: SystemTime, line: &mut String) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.text.is_empty() {
            self.second = since.as_secs();
            self.text.clear();
            let local = Local.timestamp_opt(since.as_secs() as i64, 0).single();
            if let Some(local) = local {
                let _ = write!(self.text, "{}", local.format("%Y-%m-%d %H:%M:%S"));
            }
        }
        let _ = write!(line, "{}.{:03}", self.text, since.subsec_millis());
    }
}

/// Writes the message of an event, then its other fields as ` name=value`. A line stays one line: what outsiders send may
/// have line ends that would forge another.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut line = OneLine(self.0);
        let _ = match field.name() {
            "message" => write!(line, "{value:?}"),
            name => write!(line, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut line = OneLine(self.0);
        let _ = match field.name() {
            "message" => line.write_str(value),
            name => write!(line, " {name}={value}"),
        };
    }
}

struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().any(|b| b.is_ascii_control()) {
            for c in text.chars() {
                match c.is_ascii_control() {
                    true => write!(self.0, "\\x{:02x}", u32::from(c))?,
                    false => self.0.push(c),
                }
            }
        } else {
            self.0.push_str(text);
        }
        Ok(())
    }
}

impl Subscriber for &'static Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).write(event.metadata().level(), event);
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

/// Whether stdout is a terminal, where a person looks.
pub fn is_watched() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_have_level_local_time_and_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        start(2, Some(path.clone())).unwrap();
        tracing::info!("hello {}", 1);
        tracing::debug!("not this");
        tracing::error!(code = 3, "two\nlines");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("[INFO] 2") && lines[0].ends_with(" hello 1"), "{text}");
        assert_eq!(lines[0].split(' ').nth(2).unwrap().len(), "20:13:47.800".len());
        assert!(lines[1].starts_with("[ERR] ") && lines[1].ends_with("two\\x0alines code=3"), "{text}");

        std::fs::rename(&path, directory.path().join("old.log")).unwrap();
        reopen();
        tracing::warn!("after");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("[WARN] "));
    }

    #[test]
    fn the_second_is_formatted_anew_when_it_changes() {
        let mut clock = Clock::default();
        let mut line = String::new();
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        clock.write(time, &mut line);
        assert!(line.ends_with(".123"));
        let mut later = String::new();
        clock.write(time + Duration::from_secs(1), &mut later);
        assert_ne!(line, later);
    }

    #[test]
    fn a_log_file_that_cannot_be_opened_is_named() {
        assert!(append(Path::new("/nowhere/x.log")).unwrap_err().to_string().contains("/nowhere/x.log"));
    }
}
