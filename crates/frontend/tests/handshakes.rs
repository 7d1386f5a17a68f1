// SPDX-License-Identifier: AGPL-3.0-or-later
//! Many clients begin TLS at the same moment.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use certificates::Certificates;
use frontend::accept::admission::Admission;
use frontend::accept::handshakes::HANDSHAKES_A_TURN;
use frontend::accept::listeners::{Listeners, Terms};
use frontend::client::deadlines::Deadlines;
use frontend::context::Config;
use frontend::worker::{Specs, Worker};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use transport::Options;
use wire::http1::Limits;

struct Bench {
    worker: Worker,
    address: SocketAddr,
    trusting: Arc<ClientConfig>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(deadlines: Deadlines) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.path().join("localhost.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("localhost.crt"), certificate.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let trusting = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Certificates::new(dir.path()).for_port(address.port()).unwrap();
        let mut listeners = Listeners::default();
        listeners.add(listener, Terms { tls: Some(Arc::new(tls)), proxied: false }).unwrap();
        let spec = |name: &str| format!("ipc://{}", dir.path().join(name).display());
        let specs = Specs {
            instance: "frontend".into(),
            out: spec("out"),
            out_stream: spec("out-stream"),
            responses: spec("in"),
            options: Options::default(),
        };
        let config = Config {
            head: Limits::default(),
            window: 1000,
            router_resp: false,
            compression: false,
            max_message: u64::MAX,
            recover_wait: Duration::ZERO,
            recover_memory: 0,
            deadlines,
        };
        let worker =
            Worker::new(&specs, listeners, Admission::new(1000, 10_000), config, frontend::replay::Terms::OFF, None)
                .unwrap();
        Bench { worker, address, trusting: Arc::new(trusting), _dir: dir }
    }

    /// A client that has sent the first part of its handshake.
    fn client(&self) -> (ClientConnection, TcpStream) {
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(self.trusting.clone(), name).unwrap();
        let mut stream = TcpStream::connect(self.address).unwrap();
        connection.write_tls(&mut stream).unwrap();
        stream.set_nonblocking(true).unwrap();
        (connection, stream)
    }
}

#[test]
fn a_turn_has_few_handshakes_and_all_clients_get_theirs() {
    const CLIENTS: usize = 60;
    let mut bench = Bench::new(Deadlines::default());
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| bench.client()).collect();
    let (mut ready, mut most, mut turns) = (Vec::new(), 0, 0);
    while clients.iter().any(|(connection, _)| connection.is_handshaking()) {
        let before = bench.worker.counters();
        bench.worker.turn(&mut ready, |_| {}).unwrap();
        let steps = bench.worker.counters().handshakes - before.handshakes;
        most = most.max(steps);
        turns += u64::from(steps > 0);
        for (connection, stream) in clients.iter_mut().filter(|(connection, _)| connection.is_handshaking()) {
            match connection.complete_io(stream) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
    assert_eq!(most, HANDSHAKES_A_TURN as u64);
    assert!(turns >= (CLIENTS / HANDSHAKES_A_TURN) as u64, "{turns} turns");
    assert!(bench.worker.counters().postponed > 0);
    assert_eq!(bench.worker.counters().clients, CLIENTS as u64);
}

#[test]
fn clients_that_leave_while_they_wait_cost_nothing() {
    let mut bench = Bench::new(Deadlines::default());
    let gone: Vec<_> = (0..30).map(|_| bench.client()).collect();
    let mut ready = Vec::new();
    while bench.worker.counters().clients < 30 {
        bench.worker.turn(&mut ready, |_| {}).unwrap();
    }
    let before = bench.worker.counters().handshakes;
    drop(gone);
    let (mut connection, mut stream) = bench.client();
    while connection.is_handshaking() {
        bench.worker.turn(&mut ready, |_| {}).unwrap();
        let _ = connection.complete_io(&mut stream);
    }
    assert!(bench.worker.counters().handshakes - before <= 32, "each client has a turn at most");
}

#[test]
fn a_handshake_that_does_not_go_on_ends_with_the_deadline_of_the_head() {
    let mut bench = Bench::new(Deadlines { head: Duration::from_millis(100), ..Deadlines::default() });
    let mut silent = TcpStream::connect(bench.address).unwrap();
    let (_half, mut stream) = bench.client();
    let mut ready = Vec::new();
    while bench.worker.counters().late < 2 {
        bench.worker.turn(&mut ready, |_| {}).unwrap();
    }
    // Both connections have ended: what was sent before the end can be read, and nothing waits any more.
    assert!(silent.read(&mut [0; 16]).is_ok_and(|bytes| bytes == 0));
    let mut answered = Vec::new();
    assert!(stream.read_to_end(&mut answered).is_ok());
}
