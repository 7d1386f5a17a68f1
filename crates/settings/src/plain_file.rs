// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads files that a process looks at while it serves: a pipe would keep it waiting, a device has no end.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::path::Path;

/// The bytes of a regular file of up to `max` bytes.
///
/// # Errors
/// It can not be read, is something else than a regular file, or is longer.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("has more than {max} bytes")));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As above, or it is not in UTF-8.
pub fn read_text(path: &Path, max: u64) -> Result<String> {
    String::from_utf8(read(path, max)?).map_err(|_| Error::new(ErrorKind::InvalidData, "is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        assert!(read(&path, 3).unwrap_err().to_string().contains("more than 3 bytes"));
        fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 4).unwrap_err().to_string().contains("UTF-8"));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), directory.path()] {
            assert!(read(path, 4).unwrap_err().to_string().contains("regular file"), "{path:?}");
        }
        assert_eq!(read(Path::new("/nowhere"), 4).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
