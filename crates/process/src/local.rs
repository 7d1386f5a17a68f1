// SPDX-License-Identifier: AGPL-3.0-or-later
//! Unix sockets for clients: their files, with permissions and owner.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, Uid, User, chown};
use settings::LocalPort;

use crate::inherit::BACKLOG;

/// A Unix socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("unable to listen on {}: {reason}", path.display())]
pub struct LocalError {
    /// Where.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// The file of a listening socket. Dropping it removes the file, unless another one has taken its place.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl LocalFile {
    /// The file of a socket that is open already.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            // It may be gone together with its directory.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Opens a non-blocking listening socket. A socket that nobody listens on is replaced, any other file is left alone.
///
/// # Errors
/// Somebody listens there, the path is that of another file, or the system refuses.
pub fn open(port: &LocalPort) -> Result<(UnixListener, LocalFile), LocalError> {
    let error = |reason: String| LocalError { path: port.path.clone(), reason };
    clear(&port.path).map_err(error)?;
    bound(port).map_err(error)
}

/// Makes room for a new file.
fn clear(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.to_string()),
        Ok(file) if !file.file_type().is_socket() => return Err("there is another file, which is no socket".into()),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|e| e.to_string()),
        Err(e) => Err(format!("there is a socket, and whether it is in use can not be found out: {e}")),
        Ok(_) => Err("another program, or another pushpin, listens there".into()),
    }
}

fn bound(port: &LocalPort) -> Result<(UnixListener, LocalFile), String> {
    let user = port.user.as_deref().map(user).transpose()?;
    let group = port.group.as_deref().map(group).transpose()?;
    let text = |reason: nix::Error| reason.desc().to_owned();
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(text)?;
    if let Some(mode) = port.mode {
        // The kernel makes the file with these, less the umask, so that it never has more.
        fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(text)?;
    }
    let address = UnixAddr::new(&port.path).map_err(text)?;
    bind(fd.as_raw_fd(), &address).map_err(text)?;
    let file = LocalFile { path: port.path.clone(), inode: inode(&port.path) };
    if user.is_some() || group.is_some() {
        chown(&port.path, user, group).map_err(|e| format!("its owner can not be changed: {}", text(e)))?;
    }
    if let Some(mode) = port.mode {
        let set = fs::set_permissions(&port.path, fs::Permissions::from_mode(mode));
        set.map_err(|e| format!("its mode can not be changed: {e}"))?;
    }
    // Nobody could connect before, so nobody has with other permissions.
    listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN)).map_err(text)?;
    Ok((UnixListener::from(fd), file))
}

fn user(name: &str) -> Result<Uid, String> {
    match (User::from_name(name), name.parse()) {
        (Ok(Some(user)), _) => Ok(user.uid),
        (_, Ok(number)) => Ok(Uid::from_raw(number)),
        _ => Err(format!("there is no user `{name}`")),
    }
}

fn group(name: &str) -> Result<Gid, String> {
    match (Group::from_name(name), name.parse()) {
        (Ok(Some(group)), _) => Ok(group.gid),
        (_, Ok(number)) => Ok(Gid::from_raw(number)),
        _ => Err(format!("there is no group `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(directory: &tempfile::TempDir, options: &str) -> LocalPort {
        LocalPort::parse(&format!("{}{options}", directory.path().join("s").display())).unwrap()
    }

    #[test]
    fn the_file_has_its_mode_and_owner_and_goes_with_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (uid, gid) = (Uid::current(), Gid::current());
        let port = port(&directory, &format!("?mode=666&user={uid}&group={gid}"));
        let (_socket, file) = open(&port).unwrap();
        let metadata = fs::metadata(&port.path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
        assert_eq!((metadata.uid(), metadata.gid()), (uid.as_raw(), gid.as_raw()));
        drop(file);
        assert!(!port.path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let port = port(&directory, "");
        drop(UnixListener::bind(&port.path).unwrap());
        let (_socket, file) = open(&port).unwrap();
        UnixStream::connect(&port.path).unwrap();
        // A successor has put its own there.
        fs::remove_file(&port.path).unwrap();
        let _other = UnixListener::bind(&port.path).unwrap();
        let inode_is_new = inode(&port.path) != file.inode;
        drop(file);
        assert!(!inode_is_new || port.path.exists());
    }

    #[test]
    fn a_socket_in_use_and_other_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let port = port(&directory, "");
        let listener = UnixListener::bind(&port.path).unwrap();
        assert!(open(&port).unwrap_err().to_string().contains("another program"));
        drop(listener);
        fs::remove_file(&port.path).unwrap();
        fs::write(&port.path, "text").unwrap();
        assert!(open(&port).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&port.path).unwrap(), b"text");
    }

    #[test]
    fn users_and_groups_that_are_not_there_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["user", "group"] {
            let port = port(&directory, &format!("?{name}=nobody-of-that-name"));
            assert!(open(&port).unwrap_err().to_string().contains(&format!("no {name} `nobody-of-that-name`")));
            assert!(!port.path.exists());
        }
    }
}
