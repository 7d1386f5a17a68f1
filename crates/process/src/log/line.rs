// SPDX-License-Identifier: AGPL-3.0-or-later
//! One log line: level, local time, text; made safe for terminals and for whoever reads it line by line.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{Local, TimeZone as _};
use tracing::Level;
use tracing::field::{Field, Visit};

/// Formats lines. The text of a second is kept: the time zone is looked up once a second, not once a line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    second: u64,
    text: String,
}

impl Lines {
    /// Appends one line, with the text that `write` gives it.
    pub(super) fn append(
        &mut self,
        level: &Level,
        now: SystemTime,
        line: &mut String,
        write: impl FnOnce(&mut OneLine<'_>),
    ) {
        line.push('[');
        line.push_str(tag(level));
        line.push_str("] ");
        self.time(now, line);
        line.push(' ');
        write(&mut OneLine(line));
        line.push('\n');
    }

    fn time(&mut self, now: SystemTime, line: &mut String) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.text.is_empty() {
            self.second = since.as_secs();
            self.text.clear();
            let local = i64::try_from(since.as_secs()).ok().and_then(|s| Local.timestamp_opt(s, 0).single());
            if let Some(local) = local {
                let _ = write!(self.text, "{}", local.format("%Y-%m-%d %H:%M:%S"));
            }
        }
        let _ = write!(line, "{}.{:03}", self.text, since.subsec_millis());
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

/// Writes the message of an event, then its other fields as ` name=value`.
impl Visit for OneLine<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self, "{value:?}"),
            name => write!(self, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => self.write_str(value),
            name => write!(self, " {name}={value}"),
        };
    }
}

/// A line stays one line, and steers no terminal: strangers' texts may have line ends that would forge another line, escape
/// sequences, or characters that turn the direction of writing. They are written as `\x1b` and `\u{202e}`.
pub(super) struct OneLine<'a>(pub(super) &'a mut String);

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

    fn line(text: &str) -> String {
        let mut line = String::new();
        Lines::default().append(&Level::INFO, UNIX_EPOCH, &mut line, |line| {
            let _ = line.write_str(text);
        });
        line
    }

    #[test]
    fn the_second_is_formatted_anew_when_it_changes() {
        let mut lines = Lines::default();
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let (mut first, mut later) = (String::new(), String::new());
        lines.time(time, &mut first);
        lines.time(time + Duration::from_secs(1), &mut later);
        assert!(first.ends_with(".123"));
        assert_ne!(first, later);
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
            let line = line(text);
            assert!(line.ends_with(&format!(" {written}\n")), "{line:?}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}
