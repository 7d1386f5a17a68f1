// SPDX-License-Identifier: AGPL-3.0-or-later
//! Log lines of a child on their way into the runner's log.

use std::collections::VecDeque;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_that_are_no_log_lines_are_kept() {
        let text = b"[INFO] 1 2 3 started\npushpin-x: port in use\nlast".as_slice();
        assert_eq!(pass_on("x", Level::INFO, text).await, ["pushpin-x: port in use", "last"]);
    }
}
