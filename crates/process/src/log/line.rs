// SPDX-License-Identifier: AGPL-3.0-or-later
//! One log line, in the form of Pushpin (`[INFO] 2026-11-23 20:13:47.800 text`) or as a JSON object; made safe for terminals and
//! for whoever reads it line by line.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Local, TimeZone as _};
use tracing::Level;
use tracing::field::{Field, Visit};

use super::journal::priority;

/// Name that `tracing` gives the text of an event.
const MESSAGE: &str = "message";
/// How a line in JSON begins.
const JSON_START: &str = "{\"time\":\"";
/// What stands before the level, behind the time.
const LEVEL: &str = "\",\"level\":\"";

/// Formats lines. The text of a second is kept: the time zone is looked up once a second, not once a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    second: u64,
    date: String,
    /// The time zone of a JSON line.
    zone: String,
    /// The process that lines in JSON name; none for lines in Pushpin's form.
    process: Option<String>,
    /// Each line begins with its priority.
    priorities: bool,
}

impl Lines {
    /// With the name of the process if they are to be JSON.
    pub(super) fn new(process: Option<String>) -> Self {
        Self { process, ..Self::default() }
    }

    /// Has each line begin with its priority, for systemd.
    pub(super) fn with_priorities(self, priorities: bool) -> Self {
        Self { priorities, ..self }
    }

    fn begin(&self, level: Level, line: &mut String) {
        if self.priorities {
            let _ = write!(line, "<{}>", priority(level));
        }
    }

    /// Appends one line with what `write` says; of a line of a `request` in Pushpin's form only the message.
    pub(super) fn append(
        &mut self,
        level: &Level,
        now: SystemTime,
        line: &mut String,
        is_request: bool,
        write: impl FnOnce(&mut Fields<'_>),
    ) {
        let process = self.process.take();
        self.append_for(process.as_deref(), level, now, line, is_request, write);
        self.process = process;
    }

    fn append_for(
        &mut self,
        process: Option<&str>,
        level: &Level,
        now: SystemTime,
        line: &mut String,
        is_request: bool,
        write: impl FnOnce(&mut Fields<'_>),
    ) {
        self.look_at_the_clock(now, process.is_some());
        self.begin(*level, line);
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
        let (date, zone) = (&self.date, &self.zone);
        let Some(process) = process else {
            let _ = write!(line, "[{}] {date}.{millis:03} ", tag(level));
            write(&mut Fields { line, is_json: false, only_message: is_request });
            line.push('\n');
            return;
        };
        let level = level.as_str().to_ascii_lowercase();
        let _ = write!(line, "{JSON_START}{date}.{millis:03}{zone}{LEVEL}{level}\"");
        let mut fields = Fields { line, is_json: true, only_message: false };
        fields.text("process", format_args!("{process}"));
        write(&mut fields);
        line.push_str("}\n");
    }

    /// Appends a line that the process of this name has written, of this level if it does not say: with the name if it is a log
    /// line in Pushpin's form; in JSON, if that is wanted and it is not.
    pub(super) fn pass_on(&mut self, name: &str, text: &str, level: Level, now: SystemTime, line: &mut String) {
        let parts = split(text);
        if self.process.is_some() && !is_json(text) {
            let (level, at) = parts.unwrap_or((level, 0));
            self.append_for(Some(name), &level, now, line, false, |fields| fields.message(&text[at..]));
            return;
        }
        self.begin(parts.map_or_else(|| level_in_json(text).unwrap_or(level), |(level, _)| level), line);
        let mut safe = OneLine(line);
        let _ = match parts {
            Some((_, at)) => write!(safe, "{}[{name}] {}", &text[..at], &text[at..]),
            None => safe.write_str(text),
        };
        line.push('\n');
    }

    fn look_at_the_clock(&mut self, now: SystemTime, json: bool) {
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.second == second && !self.date.is_empty() {
            return;
        }
        self.second = second;
        let local = i64::try_from(second).ok().and_then(|s| Local.timestamp_opt(s, 0).single());
        let (date, zone) = if json { ("%Y-%m-%dT%H:%M:%S", "%:z") } else { ("%Y-%m-%d %H:%M:%S", "") };
        for (text, form) in [(&mut self.date, date), (&mut self.zone, zone)] {
            text.clear();
            if let Some(local) = local {
                let _ = write!(text, "{}", local.format(form));
            }
        }
    }
}

/// Whether a line is one of ours, in either form.
pub(super) fn is_log_line(line: &str) -> bool {
    split(line).is_some() || is_json(line)
}

fn is_json(line: &str) -> bool {
    line.starts_with(JSON_START) && line.ends_with('}')
}

/// Level of one of our lines in JSON.
fn level_in_json(line: &str) -> Option<Level> {
    let (_, level) = line.strip_prefix(JSON_START)?.split_once(LEVEL)?;
    level.split('"').next()?.parse().ok()
}

/// Level of a line in Pushpin's form, and where its text begins.
fn split(line: &str) -> Option<(Level, usize)> {
    let level = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE].into_iter().find(|level| {
        line.strip_prefix('[').and_then(|line| line.strip_prefix(tag(level))).is_some_and(|line| line.starts_with("] "))
    })?;
    let (space, _) = line.match_indices(' ').nth(2)?;
    Some((level, space + 1))
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

/// What a line says: the message, then other fields as ` name=value`, or each as a member of the object.
pub(super) struct Fields<'a> {
    line: &'a mut String,
    is_json: bool,
    /// Lines of requests have in their message what stands in the fields too, so that it can be read by machines.
    only_message: bool,
}

impl Fields<'_> {
    pub(super) fn message(&mut self, text: impl fmt::Display) {
        self.text(MESSAGE, format_args!("{text}"));
    }

    fn text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let _ = if self.is_json {
            self.line.push_str(",\"");
            self.line.push_str(name);
            self.line.push_str("\":\"");
            let written = Quoted(self.line).write_fmt(value);
            self.line.push('"');
            written
        } else if name == MESSAGE {
            OneLine(self.line).write_fmt(value)
        } else if self.only_message {
            Ok(())
        } else {
            write!(OneLine(self.line), " {name}={value}")
        };
    }

    fn number(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if !self.is_json {
            return self.text(name, value);
        }
        let _ = write!(self.line, ",\"{name}\":{value}");
    }

    /// With a point or an exponent in any case, so that readers which tell kinds of numbers apart see the same one in each line.
    /// JSON has no infinite numbers.
    fn fraction(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.number(name, format_args!("{value:?}"));
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fraction(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), format_args!("{value}"));
    }
}

/// The inside of a string of JSON. What steers a terminal is escaped there as well.
struct Quoted<'a>(&'a mut String);

impl fmt::Write for Quoted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if steers(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// A line stays one line, and steers no terminal: strangers' texts may have line ends that would forge another line, escape
/// sequences, or characters that turn the direction of writing. They are written as `\x1b` and `\u{202e}`.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
            self.0.push_str(text);
            return Ok(());
        }
        for c in text.chars() {
            match u32::from(c) {
                _ if !steers(c) => self.0.push(c),
                code @ ..0x100 => write!(self.0, "\\x{code:02x}")?,
                code => write!(self.0, "\\u{{{code:x}}}")?,
            }
        }
        Ok(())
    }
}

/// Control characters of both blocks, line and paragraph separators, and what changes the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ZERO: SystemTime = UNIX_EPOCH;

    fn line_of(process: Option<&str>, write: impl FnOnce(&mut Fields<'_>)) -> String {
        let mut line = String::new();
        Lines::new(process.map(String::from)).append(&Level::INFO, ZERO, &mut line, false, write);
        line
    }

    fn passed_on(json: bool, text: &str) -> String {
        let mut line = String::new();
        let own = json.then(|| "runner".to_string());
        Lines::new(own).pass_on("handler", text, Level::ERROR, ZERO, &mut line);
        line
    }

    #[test]
    fn the_second_is_formatted_anew_when_it_changes() {
        let mut lines = Lines::default();
        lines.look_at_the_clock(ZERO + Duration::from_millis(1_700_000_000_123), false);
        let first = lines.date.clone();
        lines.look_at_the_clock(ZERO + Duration::from_millis(1_700_000_001_123), false);
        assert_ne!(first, lines.date);
    }

    #[test]
    fn nothing_in_a_text_ends_the_line_or_steers_a_terminal() {
        for (text, written) in [
            ("a\nb\r", "a\\x0ab\\x0d"),
            ("\u{1b}[31m\u{7f}", "\\x1b[31m\\x7f"),
            ("\u{9b}31m\u{85}", "\\x9b31m\\x85"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}", "a\\u{202e}b\\u{2066}c\\u{200f}\\u{61c}"),
            ("grüße 你好 😀", "grüße 你好 😀"),
        ] {
            let line = line_of(None, |fields| fields.message(text));
            assert!(line.ends_with(&format!(" {written}\n")), "{line:?}");
            assert_eq!(line.lines().count(), 1);
        }
    }

    #[test]
    fn a_line_in_json_is_an_object_with_whatever_was_in_the_text() {
        for text in ["a\nb\r\t", "\u{1b}[31m\u{7f}\u{85}\u{2028}\u{202e}", "\"quoted\" \\ back", "grüße 你好 😀", ""]
        {
            let line = line_of(Some("frontend-1"), |fields| {
                fields.message(text);
                fields.number("code", format_args!("{}", 200));
                fields.fraction("seconds", 0.0);
                fields.fraction("infinite", f64::INFINITY);
            });
            assert_eq!(line.lines().count(), 1);
            assert!(!line.trim_end().chars().any(steers), "{line:?}");
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(object["message"], text);
            assert_eq!((&object["level"], &object["process"]), (&"info".into(), &"frontend-1".into()));
            assert_eq!(object["code"], 200);
            assert!(object["seconds"].is_f64() && object["infinite"].is_null(), "{line:?}");
            let time = object["time"].as_str().unwrap();
            assert_eq!(chrono::DateTime::parse_from_rfc3339(time).map(SystemTime::from), Ok(ZERO), "{time}");
        }
    }

    #[test]
    fn a_log_line_of_another_process_gets_its_name_behind_the_time() {
        let line = passed_on(false, "[INFO] 2026-11-23 20:13:42.229 started");
        assert_eq!(line, "[INFO] 2026-11-23 20:13:42.229 [handler] started\n");
        for line in ["thread panicked at x y z", "[a b", "[INFO] a", ""] {
            assert_eq!(passed_on(false, line).trim_end(), line);
            assert!(!is_log_line(line));
        }
    }

    #[test]
    fn each_line_begins_with_its_priority_if_that_is_wanted_whoever_has_written_it() {
        const WARNING: &str = "[WARN] 2026-11-23 20:13:42.229 a";
        for process in [None, Some("runner".to_string())] {
            let mut lines = Lines::new(process.clone()).with_priorities(true);
            let mut text = String::new();
            lines.append(&Level::DEBUG, ZERO, &mut text, false, |fields| fields.message("own"));
            lines.pass_on("x", WARNING, Level::INFO, ZERO, &mut text);
            lines.pass_on("x", "thread panicked", Level::ERROR, ZERO, &mut text);
            let mut theirs = String::new();
            Lines::new(Some("x".into())).append(&Level::WARN, ZERO, &mut theirs, false, |fields| fields.message("b"));
            lines.pass_on("x", theirs.trim_end(), Level::INFO, ZERO, &mut text);
            let priorities: Vec<&str> = text.lines().map(|line| &line[..3]).collect();
            assert_eq!(priorities, ["<7>", "<4>", "<3>", "<4>"], "{text}");
            let form = if process.is_some() { "<7>{" } else { "<7>[DEBUG] " };
            assert!(text.starts_with(form), "{text}");
        }
    }

    #[test]
    fn a_line_of_another_process_becomes_json_unless_it_is() {
        let object = |line: &str| serde_json::from_str::<serde_json::Value>(&passed_on(true, line)).unwrap();
        let warning = object("[WARN] 2026-11-23 20:13:42.229 a \"b\"");
        assert_eq!((&warning["level"], &warning["message"]), (&"warn".into(), &"a \"b\"".into()));
        assert_eq!(warning["process"], "handler");
        assert_eq!(object("thread panicked")["level"], "error");
        let line = line_of(Some("handler"), |fields| fields.message("hello"));
        assert!(is_log_line(line.trim_end()));
        assert_eq!(passed_on(true, line.trim_end()), line);
    }
}
