// SPDX-License-Identifier: AGPL-3.0-or-later
//! Log lines of a child on their way into the runner's log.

use std::borrow::Cow;
use std::collections::VecDeque;

use process::log;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Longer lines are broken.
const MAX_LINE: u64 = 64 * 1024;
/// Lines kept to say why a child ended.
const KEPT: usize = 10;

/// Passes on lines until the child closes its end; returns the last ones that are not log lines, where errors are told.
pub async fn pass_on(name: &str, stream: impl AsyncRead + Unpin) -> VecDeque<String> {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    let mut last = VecDeque::new();
    loop {
        bytes.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        if !line.starts_with('[') {
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(line.to_string());
        }
        log::write_raw(&name_line(line, name));
    }
}

/// Puts `[name] ` behind level, date and time of a log line; other lines stay as they are.
fn name_line<'a>(line: &'a str, name: &str) -> Cow<'a, str> {
    match line.match_indices(' ').map(|(at, _)| at + 1).nth(2) {
        Some(at) if line.starts_with('[') => Cow::Owned([&line[..at], "[", name, "] ", &line[at..]].concat()),
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_gets_the_name_behind_its_time() {
        let line = name_line("[INFO] 2026-11-23 20:13:42.229 started", "handler");
        assert_eq!(&*line, "[INFO] 2026-11-23 20:13:42.229 [handler] started");
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in ["thread panicked at x y z", "[a b", ""] {
            assert_eq!(&*name_line(line, "handler"), line);
        }
    }

    #[tokio::test]
    async fn the_last_lines_that_are_no_log_lines_are_kept() {
        let text = b"[INFO] 1 2 started\npushpin-x: port in use\nlast".as_slice();
        assert_eq!(pass_on("x", text).await, ["pushpin-x: port in use", "last"]);
    }
}
