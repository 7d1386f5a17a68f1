// SPDX-License-Identifier: AGPL-3.0-or-later
//! The worker with names that have several addresses, which no system under test has of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};
use settings::{Origin, Settings, Source};

use tnetstring::Writer;
use transport::{Context, Options, Push, Reactor, Subscriber};
use zhttp::{Ids, Kind, Packet};

use super::Worker;
use crate::connect::resolve::Resolver;

const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const GOOD: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PATIENCE: Duration = Duration::from_secs(30);

/// The worker and someone who sends it requests, on one thread.
struct Pair {
    worker: Worker,
    reactor: Reactor,
    push: Push,
    responses: Subscriber,
    _ticking: mpsc::Sender<()>,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn new(lines: &str, addresses: &[Ipv4Addr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!("[global]\nrundir={}\n[runner]\n[proxy]\n{lines}\n", dir.path().display());
        let source = Source { origin: Origin::Text(config), ..Source::default() };
        let (settings, _) = Settings::load(&source).unwrap();
        let specs = &settings.outbound.specs;
        let mut worker = Worker::new("outbound", &settings.outbound).unwrap();
        let addresses: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::V4).collect();
        let ask = Arc::new(move |_: &str| addresses.clone());
        worker.links.resolver = Resolver::with(ask, worker.reactor.waker(), 2, 2);
        let (context, options) = (Context::new(), Options::default().named("proxy"));
        let push = Push::connect(&context, std::slice::from_ref(&specs.input), &options).unwrap();
        let responses = Subscriber::connect(&context, std::slice::from_ref(&specs.out), &options).unwrap();
        responses.subscribe_instance("proxy").unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.add(0, &push).unwrap();
        reactor.add(1, &responses).unwrap();
        // A turn of the worker ends now and then, so that the other side has its turn.
        let (_ticking, until) = mpsc::channel();
        let waker = worker.reactor.waker();
        thread::spawn(move || {
            while until.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                waker.wake();
            }
        });
        Pair { worker, reactor, push, responses, _ticking, _dir: dir }
    }

    /// Code, or condition, of what comes of a request.
    fn get(&mut self, uri: &str) -> String {
        let packet = Packet {
            from: b"proxy",
            ids: Ids::One(b"1", Some(0)),
            method: Some(b"GET"),
            uri: Some(uri.as_bytes()),
            credits: Some(1000),
            stream: true,
            ignore_policies: true,
            ignore_tls_errors: true,
            ..Packet::default()
        };
        self.push.send(packet.encode(None, &mut Writer::new(1024))).unwrap();
        let (end, mut ready) = (Instant::now() + PATIENCE, Vec::new());
        while Instant::now() < end {
            self.reactor.wait(Some(Duration::ZERO), &mut ready).unwrap();
            while let Some(message) = self.responses.recv() {
                let packet = Packet::decode(&message["proxy ".len()..]).unwrap();
                if packet.kind != Kind::KeepAlive {
                    let condition = String::from_utf8_lossy(packet.condition.unwrap_or_default()).into_owned();
                    return packet.code.map_or(condition, |code| code.to_string());
                }
            }
            self.worker.turn(&mut ready).unwrap();
        }
        panic!("no answer");
    }
}

/// A backend that answers each connection's first request.
fn answering(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.read(&mut [0; 1024]);
            });
        }
    });
    address
}

/// An address that does not answer: its backlog is full.
fn silent(address: SocketAddr) -> (OwnedFd, Vec<TcpStream>) {
    let listener = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    let SocketAddr::V4(v4) = address else { panic!("an address of IPv4") };
    socket::bind(listener.as_raw_fd(), &SockaddrIn::from(v4)).unwrap();
    socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the backlog has no end");
    }
    (listener, waiting)
}

#[test]
fn a_silent_address_holds_nothing_up_and_is_let_go_when_another_answers() {
    let mut pair = Pair::new("", &[SILENT, GOOD]);
    let port = answering((GOOD, 0).into()).port();
    let _silent = silent((SILENT, port).into());
    // Long before the deadline of the whole, which one that goes on with the silent address runs into.
    assert_eq!(pair.get(&format!("http://both:{port}/")), "200");
    assert_eq!(pair.worker.engine.counters().raced, 1);
    assert_eq!(pair.worker.engine.connections().0, 1, "only the connection that is kept");
}

#[test]
fn an_address_that_refuses_gives_way_at_once() {
    let mut pair = Pair::new("backend_connect_attempts=1", &[SILENT, GOOD]);
    let port = answering((GOOD, 0).into()).port();
    assert_eq!(pair.get(&format!("http://both:{port}/")), "200");
    assert_eq!(pair.worker.engine.counters().raced, 0);
}

#[test]
fn addresses_that_are_all_silent_end_with_the_deadline_and_leave_nothing() {
    let mut pair = Pair::new("backend_connect_timeout=1", &[SILENT, GOOD]);
    let listener = TcpListener::bind((GOOD, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let _silent = (silent((SILENT, port).into()), silent((GOOD, port).into()));
    assert_eq!(pair.get(&format!("http://both:{port}/")), "connection-timeout");
    assert_eq!(pair.worker.engine.connections().0, 0);
}

#[test]
fn one_whose_tls_handshake_fails_gives_way_too() {
    let mut pair = Pair::new("", &[GOOD, SILENT]);
    // What answers here is no TLS.
    let port = answering((GOOD, 0).into()).port();
    let listener = TcpListener::bind((SILENT, port)).unwrap();
    let tried = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.read(&mut [0; 1024]);
    });
    assert_eq!(pair.get(&format!("https://both:{port}/")), "tls-error");
    tried.join().unwrap();
}
