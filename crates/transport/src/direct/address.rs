// SPDX-License-Identifier: AGPL-3.0-or-later
//! `ipc:` addresses, and the files that belong to them.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// Permissions of a socket's file unless others are chosen: nobody but its user may connect.
pub(crate) const PRIVATE: u32 = 0o600;

/// Whether an address is for sockets of this kind.
pub(crate) fn is_local(spec: &str) -> bool {
    spec.starts_with("ipc://")
}

/// Where a socket is: a file, or a name in the kernel's table (`ipc://@name`).
#[derive(Clone, Debug)]
pub(crate) enum Location {
    File(PathBuf),
    Abstract(Vec<u8>),
}

impl Location {
    pub(crate) fn parse(spec: &str) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "no ipc:// address with a path");
        let rest = spec.strip_prefix("ipc://").filter(|rest| !rest.is_empty()).ok_or_else(wrong)?;
        if rest.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the address contains a NUL byte"));
        }
        Ok(match rest.strip_prefix('@') {
            Some(name) => Location::Abstract(name.as_bytes().to_vec()),
            None => Location::File(rest.into()),
        })
    }

    /// As it stands behind `ipc://`.
    pub(crate) fn text(&self) -> String {
        match self {
            Location::File(path) => path.display().to_string(),
            Location::Abstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        }
    }

    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Location::File(path) => UnixStream::connect(path),
            Location::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        }
    }
}

/// A bound socket, and its file.
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    pub(crate) location: Location,
    file: Option<(PathBuf, u64)>,
}

impl Listener {
    /// Binds to a location. A file that is there is replaced: it is what a process left that could not clean up.
    ///
    /// The file never has more permissions than `mode`, however the umask is: who can connect for an instant stays
    /// connected. The kernel makes it with those of the descriptor, less the umask.
    pub(crate) fn bind(location: &Location, mode: u32) -> io::Result<Self> {
        match location {
            Location::Abstract(name) => {
                let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
                Ok(Listener { socket, location: location.clone(), file: None })
            }
            Location::File(path) => {
                match std::fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                let address = UnixAddr::new(path)?;
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
                fchmod(&socket, Mode::from_bits_truncate(mode))?;
                bind(socket.as_raw_fd(), &address)?;
                // Before anybody is heard, the permissions that the umask has taken away.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
                listen(&socket, Backlog::MAXALLOWABLE)?;
                let socket = UnixListener::from_std(socket.into());
                let file = inode(path).map(|inode| (path.clone(), inode));
                Ok(Listener { socket, location: location.clone(), file })
            }
        }
    }

    /// One that another process has bound, and still has: its file is not ours.
    pub(crate) fn taken_over(fd: OwnedFd, location: Location) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixListener::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Listener { socket: UnixListener::from_std(socket), location, file: None })
    }

    /// The file is ours from now on.
    pub(crate) fn claim(&mut self) {
        if let Location::File(path) = &self.location {
            self.file = inode(path).map(|inode| (path.clone(), inode));
        }
    }

    /// The file is another process's from now on.
    pub(crate) fn let_go(&mut self) {
        self.file = None;
    }

    /// Whether the file is gone, or another process has put its own there.
    pub(crate) fn is_displaced(&self) -> bool {
        self.file.as_ref().is_some_and(|(path, bound)| inode(path) != Some(*bound))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not if a successor has put its own there.
        if let Some((path, bound)) = &self.file
            && inode(path) == Some(*bound)
        {
            // It may be gone together with its directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}
