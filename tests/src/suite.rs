// SPDX-License-Identifier: AGPL-3.0-or-later
//! The suite, started by its runner in a directory and on ports of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::until;

/// A suite, running once [`Suite::start`] has been called.
#[derive(Debug)]
pub struct Suite {
    directory: TempDir,
    /// Where clients connect.
    pub port: u16,
    /// Where messages are posted.
    pub publish_port: u16,
    /// Where messages are pushed.
    pub push_port: u16,
    /// Where publishers connect whose messages are subscribed to.
    pub sub_port: u16,
    /// Where commands are sent.
    pub command_port: u16,
    /// Where its programs are, if not where this test was built.
    programs: Option<PathBuf>,
    /// Variables for the runner.
    environment: Vec<(&'static str, String)>,
    runner: Option<Child>,
}

/// The programs that the runner starts.
pub const PARTS: [&str; 4] = ["pushpin-frontend", "pushpin-outbound", "pushpin-proxy", "pushpin-handler"];

/// A program of the suite, from where this test was built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(found.exists(), "{} is not there; run `cargo build --workspace` first", found.display());
    found
}

/// Ports that nobody listens on, and that no other test gets while this process runs. They are below those that the kernel
/// gives to outgoing connections, one of which might else have taken it before the suite does.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::array::from_fn(|_| {
        loop {
            let number = std::process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let port = 10_000 + (number % 20_000) as u16;
            if claim(port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// Whether a port is ours from now on, among the tests of this machine.
fn claim(port: u16) -> bool {
    let name = unix::SocketAddr::from_abstract_name(format!("pushpin-tests-port-{port}")).unwrap();
    // The name is free again when this process ends.
    UnixDatagram::bind_addr(&name).map(std::mem::forget).is_ok()
}

impl Suite {
    /// Writes the configuration of a suite with these route lines and further settings (`[section]` lines and keys).
    pub fn prepare(routes: &str, settings: &str) -> Self {
        let [port, publish_port, push_port, sub_port, command_port] = free_ports();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let config = format!(
            "[global]\nrundir={path}/run\n[runner]\nhttp_port=127.0.0.1:{port}\nlogdir={path}/log\n\
             [proxy]\nroutesfile=routes\nsig_key=changeme\n\
             [handler]\npush_in_spec=tcp://127.0.0.1:{push_port}\npush_in_sub_specs=tcp://127.0.0.1:{sub_port}\n\
             push_in_http_addr=127.0.0.1\npush_in_http_port={publish_port}\ncommand_spec=tcp://127.0.0.1:{command_port}\n\
             stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\n{settings}\n"
        );
        fs::write(directory.path().join("pushpin.conf"), config).unwrap();
        fs::write(directory.path().join("routes"), format!("{routes}\n")).unwrap();
        Self {
            directory,
            port,
            publish_port,
            push_port,
            sub_port,
            command_port,
            programs: None,
            environment: Vec::new(),
            runner: None,
        }
    }

    /// A running suite with these route lines.
    pub fn start(routes: &str) -> Self {
        let mut suite = Self::prepare(routes, "");
        suite.launch();
        suite
    }

    /// A running suite in front of a backend on this port.
    pub fn before(port: u16) -> Self {
        Self::start(&format!("* 127.0.0.1:{port}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program("pushpin-runner"));
        command.arg(format!("--config={}", self.path("pushpin.conf").display()));
        command.current_dir(self.directory.path()).envs(self.environment.iter().cloned());
        command
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.as_ref().map_or_else(|| program(name), |directory| directory.join(name))
    }

    /// Has it run programs of its own, which are those of a directory for now.
    pub fn copy_programs(&mut self, from: &Path) {
        let to = self.path("bin");
        fs::create_dir(&to).unwrap();
        self.programs = Some(to);
        ["pushpin-runner"].into_iter().chain(PARTS).for_each(|name| self.install(name, &from.join(name)));
    }

    /// Puts a file in the place of one of its own programs, as a package does: under another name first.
    pub fn install(&self, name: &str, file: &Path) {
        let (aside, place) = (self.path("bin/.new"), self.program(name));
        // By another process, so that none that is started by this one holds it open for writing.
        assert!(Command::new("/bin/cp").arg(file).arg(&aside).status().unwrap().success());
        fs::rename(aside, place).unwrap();
    }

    /// Has its runner started with this variable.
    pub fn set_variable(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    /// Starts it with further options and a log that goes into a pipe, whose other end is returned.
    pub fn launch_into_pipe(&mut self, options: &[&str]) -> io::PipeReader {
        let (reader, writer) = io::pipe().unwrap();
        let errors = writer.try_clone().unwrap();
        self.runner = Some(self.command().args(options).stdout(writer).stderr(errors).spawn().unwrap());
        reader
    }

    /// Starts it, and waits until the runner says that everything has started.
    pub fn launch(&mut self) {
        let output = fs::File::create(self.path("runner.out")).unwrap();
        let errors = output.try_clone().unwrap();
        self.runner = Some(self.command().stdout(output).stderr(errors).spawn().unwrap());
        until("the suite has started", || {
            if let Some(status) = self.ended() {
                panic!("the runner ended with {status}:\n{}", self.logs());
            }
            fs::read_to_string(self.path("runner.out")).unwrap_or_default().contains(" started\n")
        });
    }

    /// Runs it to its end, for starts that must fail.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// The same, with further options.
    pub fn run_with(&self, options: &[&str]) -> Output {
        self.command().args(options).output().unwrap()
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// All that its processes wrote.
    pub fn logs(&self) -> String {
        let mut logs = fs::read_to_string(self.path("runner.out")).unwrap_or_default();
        for file in fs::read_dir(self.path("log")).into_iter().flatten().flatten() {
            logs.push_str(&fs::read_to_string(file.path()).unwrap_or_default());
        }
        logs
    }

    /// Exit status of the runner, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.runner.as_mut().and_then(|runner| runner.try_wait().unwrap())
    }

    /// Process ids by name, of which the kernel keeps 15 bytes. Of several with one name, one.
    pub fn children(&self) -> BTreeMap<String, i32> {
        self.processes().into_iter().collect()
    }

    /// Names and ids of all processes that the runner has started, or one before it.
    fn processes(&self) -> Vec<(String, i32)> {
        let mut found = Vec::new();
        let Some(runner) = &self.runner else { return found };
        let config = format!("--config={}", self.path("pushpin.conf").display());
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
            let parent = stat[close + 2..].split(' ').nth(1).and_then(|p| p.parse::<u32>().ok());
            let name = &stat[open + 1..close];
            let is_orphan = || {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                parent == Some(1)
                    && name.starts_with("pushpin-")
                    && line.split(|byte| *byte == 0).any(|argument| argument == config.as_bytes())
            };
            if parent == Some(runner.id()) || is_orphan() {
                found.push((name.to_string(), pid));
            }
        }
        found
    }

    /// Process ids of a part.
    pub fn pids(&self, part: &str) -> Vec<i32> {
        let processes = self.processes().into_iter();
        processes.filter(|(name, _)| *name == name_of(part)).map(|(_, pid)| pid).collect()
    }

    /// Process id of a part: `proxy`, `frontend`.
    pub fn pid(&self, part: &str) -> i32 {
        self.children()[&name_of(part)]
    }

    /// Which of the processes of a part serves the client at the other end of this connection.
    pub fn server_of(&self, part: &str, client: &TcpStream) -> i32 {
        let (theirs, ours) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
        let hex = |address: SocketAddr| format!(":{:04X}", address.port());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut rows = fields.filter(|row| row[1].ends_with(&hex(theirs)) && row[2].ends_with(&hex(ours)));
        let socket = format!("socket:[{}]", rows.next().expect("the connection is in the kernel's table")[9]);
        let has = |pid: i32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == &*socket))
        };
        let mut parts = self.processes().into_iter().filter(|(name, _)| *name == name_of(part));
        parts.find(|(_, pid)| has(*pid)).expect("a process of the part has the connection").1
    }

    /// Kills a part, so that it can do nothing about it.
    pub fn kill(&self, part: &str) {
        self.send(part, Signal::SIGKILL);
    }

    /// Sends a part a signal.
    pub fn send(&self, part: &str, signal: Signal) {
        kill(Pid::from_raw(self.pid(part)), signal).unwrap();
    }

    /// Sends the runner a signal.
    pub fn signal(&self, signal: Signal) {
        let runner = self.runner.as_ref().expect("the suite runs");
        kill(Pid::from_raw(runner.id() as i32), signal).unwrap();
    }

    /// Most memory that a part has used at any time, in bytes.
    pub fn peak_memory(&self, part: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid(part))).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Processor time that a part has used so far, to 10 ms.
    pub fn cpu_time(&self, part: &str) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid(part))).unwrap();
        // Behind the name, which may have spaces: the state, then 10 fields, then the times in user and system mode.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Has it stop, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        until("the runner has ended", || self.ended().is_some());
        self.ended().expect("it has ended")
    }

    /// Sockets and pid files in its run directory.
    pub fn left_behind(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("run")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        let processes = self.processes();
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
        // Most have ended with it.
        for (_, pid) in processes {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- logs of the suite\n{}", self.logs());
        }
    }
}

fn name_of(part: &str) -> String {
    let mut name = format!("pushpin-{part}");
    name.truncate(15);
    name
}

/// A process that is stopped, until this is dropped: a test that fails must not leave one behind that can not end.
#[derive(Debug)]
pub struct Stopped(Pid);

impl Stopped {
    /// Stops a process.
    pub fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been ended in the meantime.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Whether a process is there.
pub fn is_alive(pid: i32) -> bool {
    let mut stat = String::new();
    let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_string(&mut stat));
    read.is_ok() && !stat.contains(") Z ")
}

/// Runs a program of the suite to its end.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).stdin(Stdio::null()).env_remove("GRIP_URL").output().unwrap()
}
