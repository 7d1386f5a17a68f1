// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether a log goes to the journal of systemd, which takes a line's priority from a prefix (`sd-daemon(3)`).

use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use tracing::Level;

/// Where systemd says which stream leads to the journal: by device and inode, because who has the variable may long have another
/// stdout.
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether this stream leads to the journal.
pub(super) fn is_at(stream: impl AsFd) -> bool {
    std::env::var(VARIABLE).is_ok_and(|named| is_named(&named, stream))
}

fn is_named(named: &str, stream: impl AsFd) -> bool {
    fstat(stream).is_ok_and(|found| named == format!("{}:{}", found.st_dev, found.st_ino))
}

/// The priority of a line, as syslog counts them.
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_stream_is_known_by_device_and_inode() {
        let (file, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let found = file.metadata().unwrap();
        let named = format!("{}:{}", found.dev(), found.ino());
        assert!(is_named(&named, &file));
        assert!(!is_named(&named, &other));
        for wrong in ["", ":", "1", "x:y", &format!("{named}:1")] {
            assert!(!is_named(wrong, &file), "{wrong}");
        }
    }
}
