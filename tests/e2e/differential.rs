// SPDX-License-Identifier: AGPL-3.0-or-later
//! The raw requests of `smuggling.txt` through nginx and haproxy. Where these do otherwise than our table says,
//! `smuggling_elsewhere.txt` says why. To refuse a request with another status is no difference.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::free_ports;
use pushpin_tests::until;

use crate::smuggling::{CANARY, bytes, complaint, converse, seen, status, table};

/// Seconds that another proxy waits for the rest of a request.
const PATIENCE: u32 = 2;

/// A proxy of somebody else's, running.
struct Other {
    child: Child,
    port: u16,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Other {
    fn start(mut command: Command, port: u16) -> Self {
        let child = command.spawn().unwrap();
        until("the other proxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port }
    }

    fn nginx(directory: &Path, backend: u16) -> Self {
        let [port] = free_ports();
        let (file, path) = (directory.join("nginx.conf"), directory.display());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {path}/nginx.pid;\nerror_log {path}/nginx.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}client_header_timeout {PATIENCE}s;\nclient_body_timeout {PATIENCE}s;\n\
             server {{\nlisten 127.0.0.1:{port};\nlocation / {{\nproxy_pass http://127.0.0.1:{backend};\n\
             proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_set_header Host $http_host;\n\
             proxy_read_timeout {PATIENCE}s;\n}}\n}}\n}}\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(directory.join("nginx.log"));
        Self::start(command, port)
    }

    fn haproxy(directory: &Path, backend: u16) -> Self {
        let [port] = free_ports();
        let file = directory.join("haproxy.cfg");
        let config = format!(
            "defaults\nmode http\ntimeout connect 5s\ntimeout client {PATIENCE}s\ntimeout server {PATIENCE}s\n\
             timeout http-request {PATIENCE}s\nfrontend clients\nbind 127.0.0.1:{port}\ndefault_backend origin\n\
             backend origin\nserver origin 127.0.0.1:{backend}\n"
        );
        fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-q").arg("-f").arg(&file);
        Self::start(command, port)
    }
}

/// What came of a request, as the tables have it.
fn outcome(received: &[u8], closed: bool, seen: &[String]) -> String {
    let mut outcome = match (seen, status(received)) {
        ([], Some(status)) => status.to_string(),
        ([], None) => "broken".to_owned(),
        ([requests @ .., last], _) if last == "GET/canary" => requests.join(" "),
        (requests, _) => format!("{}, canary lost", requests.join(" ")),
    };
    if !closed {
        outcome += ", hangs";
    }
    outcome.escape_debug().to_string()
}

/// What comes of bytes (`raw`) elsewhere, of those for which there is a reason: by name and bytes.
fn reasons() -> BTreeMap<(&'static str, &'static str), &'static str> {
    let (mut reasons, mut reason) = (BTreeMap::new(), ""); // a comment is the reason of the lines up to an empty one
    for line in include_str!("smuggling_elsewhere.txt").lines() {
        match line.strip_prefix('#') {
            Some(text) => reason = text,
            None if line.is_empty() => reason = "",
            None => {
                let [name, outcome, raw] = line.splitn(3, '\t').collect::<Vec<_>>().try_into().unwrap();
                assert!(!reason.is_empty(), "without a reason: {line}");
                reasons.insert((name, raw), outcome);
            }
        }
    }
    reasons
}

/// Lines for `smuggling_elsewhere.txt` that are not in it.
fn unexplained(name: &'static str, start: fn(&Path, u16) -> Other) -> Vec<String> {
    let record = Arc::new(Mutex::new(Vec::new()));
    let at_origin = record.clone();
    let origin = Origin::start(move |request, stream| {
        at_origin.lock().unwrap().push(seen(request));
        respond(stream, "200 OK", "", b"ok")
    });
    let directory = tempfile::tempdir().unwrap();
    let proxy = start(directory.path(), origin.port);
    let (reasons, mut unexplained) = (reasons(), Vec::new());
    for (_, expected, raw) in table() {
        let (received, closed) = converse(proxy.port, &[&bytes(raw), CANARY].concat());
        let saw = std::mem::take(&mut *record.lock().unwrap());
        let came = outcome(&received, closed, &saw);
        let refused = saw.is_empty() && closed && status(&received) != Some(200);
        let agrees = complaint(expected, &received, closed, &saw).is_none() || refused && !expected.contains('/');
        // What is listed and not found is no failure, because other versions may be stricter.
        if !agrees && reasons.get(&(name, raw)).is_none_or(|outcome| *outcome != came) {
            unexplained.push(format!("{name}\t{came}\t{raw}\t(ours: {expected})"));
        }
    }
    unexplained
}

#[test]
#[ignore = "needs nginx and haproxy, which .ci/run installs"]
fn differences_to_nginx_and_haproxy_have_reasons() {
    let nginx = thread::spawn(|| unexplained("nginx", Other::nginx));
    let haproxy = unexplained("haproxy", Other::haproxy);
    let all = [nginx.join().unwrap(), haproxy].concat();
    assert!(all.is_empty(), "{} differences without a reason:\n{}", all.len(), all.join("\n"));
}
