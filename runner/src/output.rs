// SPDX-License-Identifier: AGPL-3.0-or-later
//! Log lines of a child on their way into the runner's log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use process::log;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tracing::Level;

/// Longer lines are broken.
const MAX_LINE: u64 = 64 * 1024;
/// Lines kept to say why a child ended.
const KEPT: usize = 10;

/// Passes on lines, of this level if they do not say, until the child closes its end; returns the last ones that are not log lines, where errors are told.
pub async fn pass_on(name: &str, level: Level, stream: impl AsyncRead + Unpin) -> VecDeque<String> {
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
        if !log::is_log_line(line) {
            if last.len() == KEPT {
                last.pop_front();
            }
            last.push_back(line.to_string());
        }
        log::pass_on(name, line, level);
    }
}

/// The last error in the log of a program of Pushpin's, with the file: it tells nowhere else why it ends.
pub fn last_error(file: &Path) -> Option<String> {
    let mut log = File::open(file).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(MAX_LINE))).ok()?;
    let mut end = Vec::new();
    log.take(MAX_LINE).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    let line = text.lines().rfind(|line| line.starts_with("[ERR]"))?;
    Some(format!("{}: {line}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_in_a_log_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(last_error(file.path()), None);
        std::fs::write(file.path(), "[ERR] 1 first\n[ERR] 2 unable to bind\n[INFO] 3 stopping\n").unwrap();
        assert_eq!(last_error(file.path()), Some(format!("{}: [ERR] 2 unable to bind", file.path().display())));
        assert_eq!(last_error(Path::new("/nowhere/log")), None);
    }

    #[tokio::test]
    async fn the_last_lines_that_are_no_log_lines_are_kept() {
        let text = b"[INFO] 1 2 3 started\npushpin-x: port in use\nlast".as_slice();
        assert_eq!(pass_on("x", Level::INFO, text).await, ["pushpin-x: port in use", "last"]);
    }
}
