// SPDX-License-Identifier: AGPL-3.0-or-later
//! Pushpin's own suite, from where a package has it, and started again whenever it has ended, as a system does.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::suite::free_ports;
use pushpin_tests::until;
use tempfile::TempDir;

/// See the module.
pub struct Pushpin {
    directory: TempDir,
    program: PathBuf,
    pub port: u16,
    pub publish_port: u16,
    pub push_port: u16,
    pub sub_port: u16,
    /// The runner's, once there is one.
    runner: Mutex<Option<Child>>,
    is_over: AtomicBool,
}

impl Pushpin {
    /// Writes its configuration.
    pub fn prepare(program: PathBuf, routes: &str) -> Self {
        let [port, publish_port, push_port, sub_port, command_port] = free_ports();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let zurl = ["out_specs=in", "out_stream_specs=in-stream", "in_specs=out"].map(|line| {
            let (key, name) = line.split_once('=').unwrap();
            format!("zurl_{key}=ipc://{{rundir}}/{{ipc_prefix}}zurl-{name}\n")
        });
        let config = format!(
            "[global]\ninclude={{libdir}}/internal.conf\nrundir={path}/run\nipc_prefix=p-\n\
             [runner]\nservices=condure,zurl,pushpin-proxy,pushpin-handler\nhttp_port=127.0.0.1:{port}\nlogdir={path}/log\n\
             client_maxconn=50000\n[proxy]\nroutesfile=routes\nsig_key=changeme\n{}\
             [handler]\npush_in_spec=tcp://127.0.0.1:{push_port}\npush_in_sub_specs=tcp://127.0.0.1:{sub_port}\n\
             push_in_http_addr=127.0.0.1\npush_in_http_port={publish_port}\ncommand_spec=tcp://127.0.0.1:{command_port}\n\
             stats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\nid_cache_ttl=60\nmessage_rate=0\n",
            zurl.concat()
        );
        ["run", "log", "runner/certs"]
            .into_iter()
            .for_each(|name| fs::create_dir_all(directory.path().join(name)).unwrap());
        fs::write(directory.path().join("pushpin.conf"), config).unwrap();
        fs::write(directory.path().join("routes"), format!("{routes}\n")).unwrap();
        Pushpin {
            directory,
            program,
            port,
            publish_port,
            push_port,
            sub_port,
            runner: Mutex::new(None),
            is_over: AtomicBool::new(false),
        }
    }

    /// Starts it, and again when it has ended, until all is over.
    pub fn keep(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            let has_ended =
                self.runner.lock().unwrap().as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            if has_ended {
                let path = self.directory.path().join("runner.out");
                let output = fs::File::options().create(true).append(true).open(path).unwrap();
                let mut command = Command::new(&self.program);
                command.arg(format!("--config={}", self.directory.path().join("pushpin.conf").display()));
                command.current_dir(self.directory.path()).stdout(output.try_clone().unwrap()).stderr(output);
                *self.runner.lock().unwrap() = Some(command.spawn().unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Ends it for good.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        let Some(mut runner) = self.runner.lock().unwrap().take() else { return };
        let _ = kill(Pid::from_raw(runner.id() as i32), Signal::SIGTERM);
        until("the runner has ended", || runner.try_wait().unwrap().is_some());
    }

    /// Has the runner end, and with it everything.
    pub fn restart(&self) {
        if let Some(runner) = &*self.runner.lock().unwrap() {
            let _ = kill(Pid::from_raw(runner.id() as i32), Signal::SIGTERM);
        }
    }

    /// Process ids of a program.
    pub fn pids(&self, name: &str) -> Vec<i32> {
        let runner = self.runner.lock().unwrap().as_ref().map(Child::id);
        let tasks = runner.and_then(|id| fs::read_dir(format!("/proc/{id}/task")).ok()).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: String = lists.collect::<Vec<_>>().join(" ");
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
            .collect()
    }

    /// What its processes have said.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.directory.path().join("runner.out")).unwrap_or_default()
    }
}

impl Drop for Pushpin {
    fn drop(&mut self) {
        self.end();
    }
}
