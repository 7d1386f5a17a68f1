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
    let mut line = Vec::new();
    let mut last = VecDeque::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        if line.first() != Some(&b'[') {
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(String::from_utf8_lossy(&line).trim_end().to_string());
        }
        log::write_raw(&name_line(&line, name));
    }
}

/// Puts `[name] ` behind level, date and time of a log line; other lines stay as they are.
fn name_line<'a>(line: &'a [u8], name: &str) -> Cow<'a, [u8]> {
    let spaces = line.iter().enumerate().filter(|(_, b)| **b == b' ');
    match spaces.map(|(at, _)| at + 1).nth(2) {
        Some(at) if line.first() == Some(&b'[') => {
            Cow::Owned([&line[..at], b"[", name.as_bytes(), b"] ", &line[at..]].concat())
        }
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_gets_the_name_behind_its_time() {
        let line = name_line(b"[INFO] 2026-11-23 20:13:42.229 started\n", "handler");
        assert_eq!(&*line, b"[INFO] 2026-11-23 20:13:42.229 [handler] started\n");
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in [&b"thread panicked at x y z\n"[..], b"[a b\n", b"\n"] {
            assert_eq!(&*name_line(line, "handler"), line);
        }
    }

    #[tokio::test]
    async fn the_last_lines_that_are_no_log_lines_are_kept() {
        let text = b"[INFO] 1 2 started\npushpin-x: port in use\nlast".as_slice();
        assert_eq!(pass_on("x", text).await, ["pushpin-x: port in use", "last"]);
    }
}
