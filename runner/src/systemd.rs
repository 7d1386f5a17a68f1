// SPDX-License-Identifier: AGPL-3.0-or-later
//! What systemd is told: that the suite serves, reads its configuration again, stops, and is not stuck; and what it keeps: listening
//! sockets, so that callers wait while the suite is restarted.
//!
//! The protocol is a line or two in a datagram (`man sd_notify`). Nothing is sent unless systemd, or who does as it does, asks for
//! it with `NOTIFY_SOCKET`. The few lines are our own: crates for it bring little more than these, and a watchdog of their own.

use std::env;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::time::{ClockId, clock_gettime};

/// Where to send to.
pub const SOCKET: &str = "NOTIFY_SOCKET";
/// After how many microseconds without a word systemd takes the runner for stuck.
pub const WATCHDOG: &str = "WATCHDOG_USEC";
/// Which process that is meant for.
pub const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How long it may take for room to store a socket, in milliseconds.
const STORING: u16 = 1000;

/// The name under which systemd keeps the socket of a process of ours: names may have no colons.
pub fn stored_name(process: &str, socket: &str) -> String {
    format!("{process} {}", socket.replace(':', ";"))
}

/// The process and the socket of a name of [`stored_name`].
pub fn parse_name(name: &str) -> Option<(&str, String)> {
    let (process, socket) = name.split_once(' ')?;
    Some((process, socket.replace(';', ":")))
}

/// See the module.
#[derive(Debug, Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    /// How often to say that we are not stuck, and when next.
    watchdog: Option<(Duration, Instant)>,
    status: String,
}

impl Systemd {
    /// As the environment of this process says.
    ///
    /// # Errors
    /// Somebody wants to be told and can not be.
    pub fn of_environment(now: Instant) -> io::Result<Self> {
        let Some(name) = env::var(SOCKET).ok().filter(|name| !name.is_empty()) else { return Ok(Self::default()) };
        let variable = |name| env::var(name).ok();
        let interval = watchdog(variable(WATCHDOG), variable(WATCHDOG_PID), std::process::id());
        let watchdog = interval.map(|interval| (interval, now));
        Ok(Self { socket: Some(connect(&name)?), watchdog, status: String::new() })
    }

    /// All serve. Also said when a reload is over.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Has it keep a socket under this name for the next runner.
    pub fn store(&self, name: &str, socket: BorrowedFd<'_>) {
        let Some(systemd) = &self.socket else { return };
        let text = format!("FDSTORE=1\nFDNAME={name}");
        let files = [socket.as_raw_fd()];
        let send = || {
            let (parts, rights) = ([IoSlice::new(text.as_bytes())], [ControlMessage::ScmRights(&files)]);
            sendmsg::<UnixAddr>(systemd.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)
        };
        let mut sent = send();
        if sent == Err(nix::Error::EAGAIN) {
            // There may be many sockets. Nobody waits for us yet.
            let _ = poll(&mut [PollFd::new(systemd.as_fd(), PollFlags::POLLOUT)], STORING);
            sent = send();
        }
        if let Err(error) = sent {
            tracing::warn!("systemd does not keep {name}: {error}");
        }
    }

    /// Has it forget what it keeps under this name.
    pub fn forget(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    /// The configuration is being read again.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// How the suite is: what keeps it from being ready. Said when it has changed.
    pub fn status(&mut self, processes: usize, missing: &[String]) {
        let status = match missing {
            [] => format!("ready, {processes} processes serve"),
            missing => format!("not ready: {}", missing.join(", ")),
        };
        if status != self.status {
            self.send(&format!("STATUS={}", status.replace('\n', " ")));
            self.status = status;
        }
    }

    /// When [`Self::alive`] is due.
    pub fn due(&self) -> Option<Instant> {
        self.watchdog.map(|(_, next)| next)
    }

    /// Says that the runner's loop goes round.
    pub fn alive(&mut self, now: Instant) {
        if let Some((interval, next)) = &mut self.watchdog {
            *next = now + *interval;
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::debug!("unable to tell systemd `{}`: {error}", text.escape_default());
        }
    }
}

/// Half of the time that the watchdog waits, so that one word may be late.
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    is_meant.then(|| Duration::from_micros(usec.div_ceil(2)))
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A systemd that does not read must not stop the suite.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Systemd, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Systemd { socket: Some(ours), ..Systemd::default() }, theirs)
    }

    fn read(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1000];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_status_is_one_line_and_said_when_it_has_changed() {
        let (mut systemd, theirs) = pair();
        systemd.status(4, &[]);
        systemd.status(4, &[]);
        assert_eq!(read(&theirs), "STATUS=ready, 4 processes serve");
        systemd.status(4, &["proxy does\nnot run".into(), "handler is starting".into()]);
        assert_eq!(read(&theirs), "STATUS=not ready: proxy does not run, handler is starting");
        assert!(theirs.recv(&mut [0; 10]).is_err());
    }

    #[test]
    fn what_is_kept_has_a_name_without_colons() {
        let name = stored_name("pushpin-frontend-1", "http:[::1]:80");
        assert_eq!(name, "pushpin-frontend-1 http;[;;1];80");
        assert_eq!(parse_name(&name), Some(("pushpin-frontend-1", "http:[::1]:80".into())));
        assert_eq!(parse_name("stored"), None);
    }

    #[test]
    fn a_socket_that_is_kept_goes_with_its_name() {
        let (systemd, theirs) = pair();
        systemd.store("a b", theirs.as_fd());
        assert_eq!(read(&theirs), "FDSTORE=1\nFDNAME=a b");
        systemd.forget("a b");
        assert_eq!(read(&theirs), "FDSTOREREMOVE=1\nFDNAME=a b");
    }

    #[test]
    fn the_watchdog_is_told_twice_in_its_time() {
        let (mut systemd, theirs) = pair();
        let now = Instant::now();
        systemd.alive(now);
        assert!(systemd.due().is_none() && theirs.recv(&mut [0; 10]).is_err());
        systemd.watchdog = watchdog(Some("3000000".into()), None, 1).map(|interval| (interval, now));
        systemd.alive(now);
        assert_eq!(read(&theirs), "WATCHDOG=1");
        assert_eq!(systemd.due(), Some(now + Duration::from_millis(1500)));
    }

    #[test]
    fn a_watchdog_of_another_process_and_nonsense_do_not_count() {
        let half = |usec: &str, pid: Option<&str>| watchdog(Some(usec.into()), pid.map(String::from), 7);
        assert_eq!(half("2000", Some("7")), Some(Duration::from_millis(1)));
        for (usec, pid) in [("2000", Some("8")), ("2000", Some("x")), ("0", None), ("-1", None), ("", None)] {
            assert_eq!(half(usec, pid), None, "{usec} {pid:?}");
        }
    }

    #[test]
    fn nobody_is_told_who_does_not_read() {
        let (systemd, theirs) = pair();
        systemd.socket.as_ref().unwrap().set_nonblocking(true).unwrap();
        for _ in 0..10_000 {
            systemd.ready();
        }
        drop(theirs);
        systemd.ready();
    }

    #[test]
    fn sockets_have_paths_or_abstract_names() {
        let name = format!("pushpin-test-{}", std::process::id());
        let _socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert!(connect(&format!("@{name}")).is_ok());
        assert!(connect("/nowhere").is_err());
    }
}
