// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that come with TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pushpin_tests::client::{self, get};
use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::publish;
use pushpin_tests::suite::{Suite, free_ports, is_alive, program};
use pushpin_tests::until;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// Writes the pair of files for a site; gives the certificate.
pub(crate) fn certify(suite: &Suite, file: &str, site: &str) -> CertificateDer<'static> {
    let directory = suite.path("runner/certs");
    fs::create_dir_all(&directory).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([site.to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    fs::write(directory.join(format!("{file}.crt")), certificate.pem()).unwrap();
    certificate.der().clone()
}

/// A connection that trusts only this certificate.
pub(crate) fn connect(port: u16, site: &str, trusted: &CertificateDer<'static>) -> std::io::Result<Client> {
    connect_with(trusting(trusted), port, site)
}

/// A client that trusts only this certificate, and remembers its sessions.
fn trusting(trusted: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn connect_with(config: Arc<ClientConfig>, port: u16, site: &str) -> std::io::Result<Client> {
    let name = ServerName::try_from(site.to_owned()).unwrap();
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

pub(crate) fn read_until(client: &mut Client, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 16_384];
    while !seen.windows(end.len()).any(|part| part == end) {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => panic!("ended after {:?}", String::from_utf8_lossy(&seen[..seen.len().min(2000)])),
            Ok(n) => seen.extend_from_slice(&buffer[..n]),
        }
    }
    seen
}

/// A suite with a port for TLS, in front of a backend that holds `/stream`, takes uploads, and tells how a client came.
fn start(origin: &Origin) -> (Suite, u16, CertificateDer<'static>) {
    start_with(origin, "")
}

/// The same with further settings of the runner.
pub(crate) fn start_with(origin: &Origin, runner: &str) -> (Suite, u16, CertificateDer<'static>) {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let routes = format!("* 127.0.0.1:{}", origin.port);
    let mut suite = Suite::prepare(
        &routes,
        &format!("[runner]\n{runner}\nhttps_ports=127.0.0.1:{port}\n[proxy]\nset_x_forwarded_protocol=proto-only"),
    );
    let certificate = certify(&suite, &format!("default_{port}"), "localhost");
    suite.launch();
    (suite, port, certificate)
}

pub(crate) fn origin() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let protocols = Arc::new(Mutex::new(Vec::new()));
    let seen = protocols.clone();
    let origin = Origin::start(move |request, stream| {
        let protocol = request.header("X-Forwarded-Proto").unwrap_or_default().to_owned();
        seen.lock().unwrap().push(protocol);
        match &*request.target {
            "/stream" => respond(stream, "200 OK", "Grip-Hold: stream\r\nGrip-Channel: c\r\n", b"hi\n"),
            _ => respond(stream, "200 OK", "", format!("{} bytes", request.body.len()).as_bytes()),
        }
    });
    (origin, protocols)
}

#[test]
fn requests_uploads_and_streams_go_over_tls_and_the_backend_hears_of_it() {
    let (origin, protocols) = origin();
    let (suite, port, certificate) = start(&origin);
    let mut client = connect(port, "localhost", &certificate).unwrap();
    let body = vec![b'x'; 1_000_000];
    let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&body).unwrap();
    read_until(&mut client, b"1000000 bytes");
    // On the same connection.
    client.write_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    read_until(&mut client, b"hi\n");
    let text = "y".repeat(60_000);
    let all = thread::scope(|scope| {
        let reader = scope.spawn(|| read_until(&mut client, b"the end"));
        for _ in 0..20 {
            publish::text(&suite, "c", &text).unwrap();
        }
        publish::text(&suite, "c", "the end").unwrap();
        reader.join().unwrap()
    });
    assert_eq!(all.iter().filter(|byte| **byte == b'y').count(), 20 * text.len());
    assert!(protocols.lock().unwrap().iter().all(|protocol| protocol == "https"), "{protocols:?}");
}

#[test]
fn publishers_may_come_with_tls_and_only_so() {
    let origin =
        Origin::start(|_, stream| respond(stream, "200 OK", "Grip-Hold: response\r\nGrip-Channel: c\r\n", b""));
    let settings = "[handler]\npush_in_http_tls=true\ncontrol_token=secret";
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), settings);
    certify(&suite, &format!("default_{}", suite.publish_port), "localhost");
    suite.launch();
    let mut client = client::Client::connect(suite.port).unwrap();
    client.get("/").unwrap();
    until("the long-poll is held", || suite.logs().contains("channel=c\n"));
    let trusted = suite.path(&format!("runner/certs/default_{}.crt", suite.publish_port));
    let publish = |scheme: &str| {
        let spec = format!("{scheme}://localhost:{}", suite.publish_port);
        let arguments = ["--report", "--bearer", "secret", "--spec", &spec, "c", "hello"];
        let mut command = std::process::Command::new(program("pushpin-publish"));
        command.args(arguments).env("SSL_CERT_FILE", &trusted).output().unwrap()
    };
    assert!(!publish("http").status.success());
    let output = publish("https");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, "Published\npublished http-response=1 http-stream=0 ws-message=0\n", "{output:?}");
    assert_eq!(client.response().unwrap().text(), "hello\n");
}

#[test]
fn a_site_has_its_own_certificate_and_one_that_comes_later_is_used() {
    let (origin, _) = origin();
    let (suite, port, certificate) = start(&origin);
    assert!(connect(port, "a.test", &certificate).is_err(), "the default is for another name");
    let first = certify(&suite, "a.test", "a.test");
    connect(port, "a.test", &first).unwrap();
    let below = certify(&suite, "_.b.test", "www.b.test");
    connect(port, "www.b.test", &below).unwrap();
    let second = certify(&suite, "a.test", "a.test");
    until("the new certificate is used", || connect(port, "a.test", &second).is_ok());
}

#[test]
fn a_client_without_tls_is_turned_away_and_a_missing_certificate_named() {
    let (origin, _) = origin();
    let (suite, port, certificate) = start(&origin);
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let _ = plain.read_to_end(&mut seen);
    assert!(!seen.starts_with(b"HTTP/"), "{seen:?}");
    connect(port, "localhost", &certificate).unwrap();
    drop(suite);
    let [port] = free_ports();
    let suite = Suite::prepare("* test", &format!("[runner]\nhttps_ports=127.0.0.1:{port}"));
    let missing = format!("default_{port}.crt");
    let output = suite.run();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && (said.contains(&missing) || suite.logs().contains(&missing)), "{said}");
}

#[test]
fn a_backend_that_asks_for_it_gets_the_certificate_of_the_route() {
    let make = |name: &str| {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap(), key)
    };
    let ((site, site_key), (ours, our_key)) = (make("localhost"), make("proxy"));
    let mut roots = RootCertStore::empty();
    roots.add(ours.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![site.der().clone()], PrivateKeyDer::try_from(site_key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut peer = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut read = [0; 4096];
            // Who has no certificate does not get so far.
            if peer.read(&mut read).is_ok() {
                let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nknown");
                peer.conn.send_close_notify();
                let _ = peer.flush();
            }
        }
    });
    let routes = format!(
        "*,path_beg=/known 127.0.0.1:{backend},ssl,insecure,client_cert=c.pem,client_key=k.pem\n\
         * 127.0.0.1:{backend},ssl,insecure"
    );
    let mut suite = Suite::prepare(&routes, "");
    fs::write(suite.path("c.pem"), ours.pem()).unwrap();
    fs::write(suite.path("k.pem"), our_key.serialize_pem()).unwrap();
    suite.launch();
    let known = get(suite.port, "/known").unwrap();
    assert_eq!((known.head.status, known.text().as_str()), (200, "known"), "{}", suite.logs());
    assert_eq!(get(suite.port, "/").unwrap().head.status, 502);
    assert!(!suite.logs().contains("PRIVATE KEY"));
}

/// Asks for something on a new connection, which brings tickets; tells which process answers and how the session began.
fn visit(suite: &Suite, config: &Arc<ClientConfig>, port: u16) -> std::io::Result<(i32, HandshakeKind)> {
    let mut client = connect_with(config.clone(), port, "localhost")?;
    client.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")?;
    read_until(&mut client, b"1 bytes");
    let process = suite.server_of("frontend", &client.sock);
    Ok((process, client.conn.handshake_kind().expect("the handshake is over")))
}

#[test]
fn a_session_goes_on_at_any_frontend_and_after_a_frontend_was_killed() {
    let (origin, _) = origin();
    let (suite, port, certificate) = start_with(&origin, "frontend_processes=2");
    let config = trusting(&certificate);
    let (first, kind) = visit(&suite, &config, port).unwrap();
    assert_eq!(kind, HandshakeKind::Full);
    let resumed_elsewhere = |known: &[i32]| {
        let mut found = None;
        until("another frontend serves", || {
            let Ok((process, kind)) = visit(&suite, &config, port) else { return false };
            assert_eq!(kind, HandshakeKind::Resumed, "at {process}, after {known:?}");
            found = Some(process).filter(|process| !known.contains(process));
            found.is_some()
        });
        found.unwrap()
    };
    let second = resumed_elsewhere(&[first]);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until("it is dead", || !is_alive(first));
    resumed_elsewhere(&[first, second]);
}
