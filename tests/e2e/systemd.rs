// SPDX-License-Identifier: AGPL-3.0-or-later
//! What systemd is told, by a socket in its place.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use pushpin_tests::suite::{Stopped, Suite};
use pushpin_tests::{PATIENCE, until};

struct Systemd {
    socket: UnixDatagram,
    suite: Suite,
}

impl Systemd {
    fn start(settings: &str) -> Self {
        let mut suite = Suite::prepare("* test", settings);
        let path = suite.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        suite.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
        suite.set_variable("WATCHDOG_USEC", "200000");
        suite.launch();
        Self { socket, suite }
    }

    /// Waits until it is told something that begins so, and says how often something else came before.
    fn hears(&self, beginning: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let length =
                self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{beginning}: {error}, {before:?}"));
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            if text.starts_with(beginning) {
                return (text, before);
            }
            before.push(text);
        }
    }
}

#[test]
fn it_hears_of_the_start_a_reload_and_the_end() {
    let mut systemd = Systemd::start("");
    systemd.hears("READY=1");
    systemd.hears("STATUS=ready, 4 processes serve");
    systemd.suite.signal(Signal::SIGHUP);
    let (reloading, _) = systemd.hears("RELOADING=1\n");
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    systemd.hears("READY=1");
    assert_eq!(systemd.suite.stop().code(), Some(0), "{}", systemd.suite.logs());
    systemd.hears("STOPPING=1\n");
}

#[test]
fn it_hears_nothing_of_readiness_before_all_serve_and_what_is_missing_later() {
    let systemd = Systemd::start("[runner]\nheartbeat_timeout=0\n");
    let (_, before) = systemd.hears("READY=1");
    assert!(!before.iter().any(|text| text.starts_with("STATUS=ready")), "{before:?}");
    let stopped = Stopped::new(systemd.suite.pid("proxy"));
    systemd.hears("STATUS=not ready: proxy has not answered");
    drop(stopped);
    systemd.hears("STATUS=ready");
}

#[test]
fn the_watchdog_hears_of_the_runner_and_of_nobody_else() {
    let systemd = Systemd::start("");
    for _ in 0..5 {
        systemd.hears("WATCHDOG=1");
    }
    until("the processes run", || systemd.suite.children().len() == 4);
    for pid in systemd.suite.children().values() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"));
    }
}
