// SPDX-License-Identifier: AGPL-3.0-or-later
//! Listening sockets, from the runner or opened here.
//!
//! The runner opens the sockets that the outside world connects to and leaves them open to the component, so that
//! connections wait in the kernel while a component restarts. It names them in the variable [`LISTEN_FDS`]:
//! `3:http:127.0.0.1:7999,4:publish:127.0.0.1:5561,5:local:/run/site.sock`.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, setsockopt, socket, sockopt,
};

/// Name of the variable.
pub const LISTEN_FDS: &str = "PUSHPIN_LISTEN_FDS";

/// What the sockets of the frontend are for.
pub const HTTP: &str = "http";

/// The same for clients with TLS.
pub const HTTPS: &str = "https";

/// The same for clients of Unix sockets.
pub const LOCAL: &str = "local";

/// What the handler's socket is for.
pub const PUBLISH: &str = "publish";

/// The same for the handler's Unix socket at which the runner asks and publishes for an operator.
pub const OPERATOR: &str = "operator";

/// Connections that may wait to be accepted. The kernel lowers it to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 65535;

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("unable to bind to {address}: {reason}{}", hint(reason))]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the system says.
    pub reason: io::Error,
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program, or another pushpin, listens there: stop it or choose another port)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    }
}

/// A non-blocking socket that listens on `address`: the one that was inherited for this use, else a new one.
pub fn listen(usage: &str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    match take(usage, &address.to_string()) {
        Some(fd) => Ok(TcpListener::from(fd)),
        None => open(address, false),
    }
}

/// The Unix socket for clients that was inherited for this path.
pub fn local(path: &Path) -> Option<UnixListener> {
    take(LOCAL, path.to_str()?).map(UnixListener::from)
}

/// The Unix socket that was inherited for the runner, whatever its path.
pub fn operators() -> Option<UnixListener> {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = inherited.keys().find(|(usage, _)| usage == OPERATOR).cloned()?;
    inherited.remove(&key).map(UnixListener::from)
}

fn take(usage: &str, name: &str) -> Option<OwnedFd> {
    let mut inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    inherited.remove(&(usage.to_string(), name.to_string()))
}

/// Whether sockets for clients were inherited: then there are no others.
pub fn any_for_clients() -> bool {
    let inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    inherited.keys().any(|(usage, _)| [HTTP, HTTPS, LOCAL].contains(&usage.as_str()))
}

/// Whether the Unix socket of this path was inherited.
pub fn has_local(path: &Path) -> bool {
    let inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    inherited.keys().any(|(usage, name)| usage == LOCAL && Path::new(name) == path)
}

/// Opens a non-blocking listening socket. With `shared`, others that ask for the same may listen on the address as well, and
/// the kernel spreads connections over them.
pub fn open(address: SocketAddr, shared: bool) -> Result<TcpListener, ListenError> {
    let open = || -> nix::Result<OwnedFd> {
        let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if shared {
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address))?;
        nix::sys::socket::listen(&fd, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
        Ok(fd)
    };
    open().map(TcpListener::from).map_err(|reason| ListenError { address, reason: reason.into() })
}

/// Addresses of the inherited sockets for this use that have not been taken yet.
pub fn addresses(usage: &str) -> Vec<SocketAddr> {
    let inherited = INHERITED.lock().unwrap_or_else(PoisonError::into_inner);
    let of_usage = inherited.keys().filter(|(u, _)| u == usage);
    let mut found: Vec<_> = of_usage.filter_map(|(_, address)| address.parse().ok()).collect();
    found.sort();
    found
}

/// What the runner left open, by use and address. Read once.
static INHERITED: LazyLock<Mutex<HashMap<(String, String), OwnedFd>>> = LazyLock::new(|| {
    let text = std::env::var(LISTEN_FDS).unwrap_or_default();
    let found: HashMap<_, _> =
        parse(&text).filter_map(|(fd, usage, address)| Some(((usage, address), adopt(fd)?))).collect();
    let copy =
        |((usage, name), fd): (&(String, String), &OwnedFd)| Some((format!("{usage}:{name}"), fd.try_clone().ok()?));
    *COPIES.lock().unwrap_or_else(PoisonError::into_inner) = found.iter().filter_map(copy).collect();
    Mutex::new(found)
});

/// Copies of what the runner left open, for the next runner.
static COPIES: Mutex<Vec<(String, OwnedFd)>> = Mutex::new(Vec::new());

/// Copies of the sockets that the runner left open, each with its use and address: `http:127.0.0.1:7999`.
pub(crate) fn copies() -> io::Result<Vec<(String, OwnedFd)>> {
    let copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    copies.iter().map(|(name, fd)| Ok((name.clone(), fd.try_clone()?))).collect()
}

/// Has no part in these sockets any more.
pub(crate) fn forget_copies() {
    COPIES.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn parse(text: &str) -> impl Iterator<Item = (RawFd, String, String)> {
    text.split(',').filter_map(|item| {
        let mut parts = item.splitn(3, ':');
        let fd = parts.next()?.parse().ok().filter(|fd| *fd > 2)?;
        Some((fd, parts.next()?.to_string(), parts.next()?.to_string()))
    })
}

/// The variables in which systemd tells which of its descriptors are for whom: their process, their number from 3 on, their names.
pub const KEPT: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The listening sockets that systemd has kept for this process, by the names that it was told. The first call has them all.
pub fn kept() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let [pid, count, names] = KEPT.map(|name| std::env::var(name).unwrap_or_default());
    let take = |(fd, name): (RawFd, String)| {
        let socket = adopt(fd)?;
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        Some((name, socket))
    };
    kept_for(std::process::id(), &pid, &count, &names).into_iter().filter_map(take).collect()
}

fn kept_for(own: u32, pid: &str, count: &str, names: &str) -> Vec<(RawFd, String)> {
    let count = count.parse::<u16>().ok().filter(|_| pid.parse() == Ok(own)).unwrap_or_default();
    (3..).zip(names.split(':').map(String::from)).take(usize::from(count)).collect()
}

/// Takes over a file descriptor that was open when this program started.
#[allow(unsafe_code)]
fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number comes from the process that started us, which left it open for us alone, and nothing in this program
    // has it: it is taken once (of the two callers one fills a static, and the other works once), before the program opens sockets
    // of its own. Whether it is
    // a listening socket is checked next; if not, it is forgotten without being closed.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    if !getsockopt(&owned, sockopt::AcceptConn).unwrap_or(false) {
        std::mem::forget(owned);
        return None;
    }
    Some(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_sockets_by_use_and_address() {
        let found: Vec<_> = parse("3:http:127.0.0.1:7999,4:publish:[::1]:5561,5:local:/r/a:b").collect();
        assert_eq!(found[0], (3, "http".into(), "127.0.0.1:7999".into()));
        assert_eq!(found[1], (4, "publish".into(), "[::1]:5561".into()));
        assert_eq!(found[2], (5, "local".into(), "/r/a:b".into()));
    }

    #[test]
    fn what_systemd_has_kept_is_for_one_process_and_has_names() {
        assert_eq!(kept_for(7, "7", "2", "a:b:c"), [(3, "a".into()), (4, "b".into())]);
        for (pid, count) in [("8", "2"), ("", "2"), ("7", ""), ("7", "-1"), ("7", "x")] {
            assert_eq!(kept_for(7, pid, count, "a:b"), []);
        }
    }

    #[test]
    fn nonsense_and_the_standard_descriptors_are_skipped() {
        assert_eq!(parse("x,,1:http:127.0.0.1:1,5:http").count(), 0);
    }

    #[test]
    fn a_port_in_use_is_said_so() {
        let first = open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let error = open(first.local_addr().unwrap(), false).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
    }

    #[test]
    fn shared_sockets_have_the_same_port() {
        let first = open("127.0.0.1:0".parse().unwrap(), true).unwrap();
        open(first.local_addr().unwrap(), true).unwrap();
    }
}
