// SPDX-License-Identifier: AGPL-3.0-or-later
//! Both neighbours of the outbound client: a requester with real ZeroMQ sockets, and backends with real TCP sockets.
#![allow(missing_docs, dead_code)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use tnetstring::Writer;
use transport::{Context, Event, Options, Push, Reactor, Router, Subscriber};
use zhttp::{Ids, Kind, Packet};

const PATIENCE: Duration = Duration::from_secs(10);

/// The program under test, with a directory of its own.
pub struct Outbound {
    pub process: Child,
    pub dir: tempfile::TempDir,
}

impl Outbound {
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts it with these lines of `[proxy]`.
    pub fn with(settings: &str) -> Self {
        Self::with_environment(settings, &[])
    }

    /// The same with these variables in its environment.
    pub fn with_environment(settings: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[global]\nrundir={0}\nipc_prefix=t-\n[runner]\nlogdir={0}\n[proxy]\n{settings}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("pushpin.conf"), config).unwrap();
        let program = env!("CARGO_BIN_EXE_pushpin-outbound");
        let argument = format!("--config={}", dir.path().join("pushpin.conf").display());
        let process = Command::new(program).arg(argument).envs(variables.iter().copied()).spawn().unwrap();
        let outbound = Outbound { process, dir };
        let end = Instant::now() + PATIENCE;
        while !outbound.socket("out").exists() {
            assert!(Instant::now() < end, "the program does not bind its sockets");
            thread::sleep(Duration::from_millis(5));
        }
        outbound
    }

    pub fn socket(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(format!("t-outbound-{name}"))
    }

    /// Sends TERM and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.process.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap()
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A received packet, for one session.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub kind: Kind,
    pub seq: Option<u32>,
    pub from: Vec<u8>,
    pub code: Option<u16>,
    pub credits: Option<u32>,
    pub had: Option<u64>,
    pub closed: u8,
    pub condition: String,
    pub reason: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub user_data: Vec<u8>,
    pub body: Vec<u8>,
    pub more: bool,
}

/// Sends requests as a proxy does.
pub struct Requester {
    reactor: Reactor,
    push: Push,
    stream: Router,
    responses: Subscriber,
    writer: Writer,
    name: String,
    received: VecDeque<(String, Answer)>,
    server: Vec<u8>,
}

impl Requester {
    pub fn connect(outbound: &Outbound, name: &str) -> Self {
        let spec = |socket: &str| format!("ipc://{}", outbound.socket(socket).display());
        let (context, options) = (Context::new(), Options::default().named(name));
        let push = Push::connect(&context, &[spec("in")], &options).unwrap();
        let stream = Router::connect(&context, &[spec("in-stream")], &options).unwrap();
        let responses = Subscriber::connect(&context, &[spec("out")], &options).unwrap();
        responses.subscribe_instance(name).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(0, &push).unwrap();
        reactor.add(1, &stream).unwrap();
        reactor.add(2, &responses).unwrap();
        let writer = Writer::new(1024);
        let (name, received, server) = (name.to_string(), VecDeque::new(), Vec::new());
        Requester { reactor, push, stream, responses, writer, name, received, server }
    }

    /// Sends a first packet; `from`, `id` and the flags every request has are added.
    pub fn ask(&mut self, id: &str, packet: Packet<'_>) {
        let packet = Packet {
            from: self.name.as_bytes(),
            ids: Ids::One(id.as_bytes(), Some(0)),
            stream: true,
            ignore_policies: true,
            ext: zhttp::Ext { multi: true, ..packet.ext },
            credits: packet.credits.or(Some(100_000)),
            method: packet.method.or(Some(b"GET")),
            ..packet
        };
        self.push.send(packet.encode(None, &mut self.writer)).unwrap();
        self.let_go();
    }

    pub fn get(&mut self, id: &str, uri: &str) {
        self.ask(id, Packet { uri: Some(uri.as_bytes()), ..Packet::default() });
    }

    /// Sends a later packet to whoever has answered last.
    pub fn follow(&mut self, packet: Packet<'_>) {
        let packet = Packet { from: self.name.as_bytes(), ..packet };
        self.stream.send(&self.server, packet.encode(None, &mut self.writer)).unwrap();
        self.let_go();
    }

    /// Claims a WebSocket that another requester had, at this outbound process.
    pub fn claim(&mut self, id: &str, server: &[u8], name: &str, had: u64) {
        let packet = Packet {
            from: self.name.as_bytes(),
            ids: Ids::One(id.as_bytes(), Some(0)),
            ext: zhttp::Ext { name: Some(name.as_bytes()), had: Some(had), ..zhttp::Ext::MULTI },
            uri: Some(b"ws:"),
            router_resp: true,
            credits: Some(100_000),
            ..Packet::default()
        };
        let message = packet.encode(None, &mut self.writer).to_vec();
        let (end, mut ready) = (Instant::now() + PATIENCE, Vec::new());
        // The link may not be there yet.
        while self.stream.send(server, &message).is_err() {
            assert!(Instant::now() < end, "no link to the outbound process");
            self.reactor.wait(Some(Duration::from_millis(1)), &mut ready).unwrap();
            while let Some((_, message)) = self.stream.recv() {
                self.take(&message);
            }
        }
        self.let_go();
    }

    /// Has what was sent leave, since the caller may go on to wait for something else.
    fn let_go(&mut self) {
        assert!(self.reactor.drain(PATIENCE), "nobody takes the packet");
    }

    /// The next packet of a session.
    pub fn next(&mut self, id: &str) -> Answer {
        self.next_within(id, PATIENCE).unwrap_or_else(|| panic!("no packet for {id}: {:?}", self.received))
    }

    pub fn next_within(&mut self, id: &str, time: Duration) -> Option<Answer> {
        let end = Instant::now() + time;
        let mut ready = Vec::new();
        loop {
            if let Some(at) = self.received.iter().position(|(to, _)| to == id) {
                return self.received.remove(at).map(|(_, answer)| answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.reactor.wait(Some(left), &mut ready).unwrap();
            if ready.contains(&Event::Socket(1)) {
                while let Some((_, message)) = self.stream.recv() {
                    self.take(&message);
                }
            }
            while let Some(message) = self.responses.recv() {
                self.take(&message[self.name.len() + 1..]);
            }
        }
    }

    fn take(&mut self, message: &[u8]) {
        let packet = Packet::decode(message).unwrap();
        self.server = packet.from.to_vec();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        for (id, seq) in packet.ids.iter().flatten() {
            let answer = Answer {
                kind: packet.kind,
                seq,
                from: packet.from.to_vec(),
                code: packet.code,
                credits: packet.credits,
                had: packet.ext.had,
                closed: packet.ext.closed,
                condition: text(packet.condition),
                reason: text(packet.reason),
                headers: packet.headers.iter().map(|(name, value)| (text(Some(name)), value.to_vec())).collect(),
                user_data: packet.user_data.map(|item| item.payload.to_vec()).unwrap_or_default(),
                body: packet.body.to_vec(),
                more: packet.more,
            };
            self.received.push_back((text(Some(id)), answer));
        }
    }

    /// The next packet that is neither keep-alive nor credit.
    pub fn next_real(&mut self, id: &str) -> Answer {
        loop {
            let answer = self.next(id);
            if !matches!(answer.kind, Kind::KeepAlive | Kind::Credit) {
                return answer;
            }
        }
    }

    /// Status and body of a complete response.
    pub fn response(&mut self, id: &str) -> (u16, Vec<u8>) {
        let mut answer = self.next_real(id);
        let code = answer.code.unwrap_or_else(|| panic!("no response to {id}: {answer:?}"));
        let mut body = std::mem::take(&mut answer.body);
        while answer.more {
            answer = self.next_real(id);
            assert_eq!(answer.kind, Kind::Data, "{answer:?}");
            body.extend_from_slice(&answer.body);
        }
        (code, body)
    }
}

/// A backend that runs `script` for each connection, which is numbered from 0.
pub fn backend(script: impl Fn(usize, Peer) + Send + Sync + Clone + 'static) -> String {
    backend_at("127.0.0.1:0", script)
}

pub fn backend_at(address: &str, script: impl Fn(usize, Peer) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (script, stream) = (script.clone(), stream.unwrap());
            thread::spawn(move || script(number, Peer(stream)));
        }
    });
    uri
}

/// A backend's end of a connection.
pub struct Peer(pub TcpStream);

impl Peer {
    /// Reads one request without body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        Some(String::from_utf8(head).unwrap())
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Reads until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}
