// SPDX-License-Identifier: AGPL-3.0-or-later
//! What systemd is told, by a socket in its place.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use pushpin_tests::client::{Client, get};
use pushpin_tests::suite::{Stopped, Suite, free_ports, program};
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

/// A suite that is started by one in the place of systemd who keeps sockets for it.
struct Keeper {
    suite: Suite,
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Keeper {
    fn new(settings: &str) -> Self {
        let suite = Suite::prepare("* test", settings);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/kept_by_systemd.py");
        let mut process = Command::new("python3")
            .args([script.as_ref(), suite.path("notify").as_os_str(), suite.path("runner.out").as_os_str()])
            .arg(program("pushpin-runner"))
            .arg(format!("--config={}", suite.path("pushpin.conf").display()))
            .current_dir(suite.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { suite, process, said }
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    fn hears(&mut self, expected: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected, "{}", self.suite.logs());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It ends the suite when nothing more can come.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn callers_wait_while_the_suite_is_restarted_and_are_not_refused() {
    for settings in ["", "[runner]\nfrontend_processes=2\n"] {
        let mut keeper = Keeper::new(settings);
        keeper.tell("start");
        keeper.hears("ready");
        for _ in 0..2 {
            keeper.tell("stop");
            keeper.hears("ended");
            let mut client = Client::connect(keeper.suite.port).unwrap();
            client.get("/").unwrap();
            let mut publisher = Client::connect(keeper.suite.publish_port).unwrap();
            publisher.get("/").unwrap();
            keeper.tell("start");
            assert_eq!(client.response().unwrap().head.status, 200);
            assert!(publisher.response().unwrap().head.status >= 200);
            keeper.hears("ready");
        }
    }
}

#[test]
fn what_is_kept_is_forgotten_when_the_configuration_has_other_ports() {
    let mut keeper = Keeper::new("");
    keeper.tell("start");
    keeper.hears("ready");
    keeper.tell("stop");
    keeper.hears("ended");
    let [other] = free_ports();
    let file = keeper.suite.path("pushpin.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let old = format!("http_port=127.0.0.1:{}", keeper.suite.port);
    std::fs::write(&file, text.replace(&old, &format!("http_port=127.0.0.1:{other}"))).unwrap();
    keeper.tell("start");
    keeper.hears("ready");
    assert_eq!(get(other, "/").unwrap().head.status, 200);
    until("the other port is nobody's", || Client::connect(keeper.suite.port).is_err());
    // One that several share has to be opened anew.
    keeper.tell("stop");
    keeper.hears("ended");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[runner]\n", "[runner]\nfrontend_processes=2\n")).unwrap();
    keeper.tell("start");
    keeper.hears("ready");
    assert_eq!(get(other, "/").unwrap().head.status, 200);
}
