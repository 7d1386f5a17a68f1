// SPDX-License-Identifier: AGPL-3.0-or-later
//! Backends behind TLS, over real sockets, with a certificate authority of the test's own.
#![allow(missing_docs)]

mod peer;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use peer::{Outbound, Requester};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use zhttp::{Kind, Packet};

/// A backend's side of a connection.
type Peer = StreamOwned<ServerConnection, std::net::TcpStream>;

/// A program that trusts the authority, and a backend at `localhost` with a certificate from it. `serve` has each
/// connection.
fn start(serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> (Outbound, Requester, u16) {
    let (outbound, requester, port, _) = start_asking(false, serve);
    (outbound, requester, port)
}

/// The same; the backend may ask for a certificate of the authority. What signs such certificates is returned too.
fn start_asking(
    asking: bool,
    serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static,
) -> (Outbound, Requester, u16, Issuer<'static, KeyPair>) {
    let directory = tempfile::tempdir().unwrap();
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new([]).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let authority = directory.path().join("authority.pem");
    std::fs::write(&authority, root_certificate.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(root, root_key);
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match asking {
        false => builder.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(root_certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let serve = serve.clone();
            thread::spawn(move || serve(number, &mut StreamOwned::new(connection, stream)));
        }
    });
    let outbound = Outbound::with_environment("", &[("SSL_CERT_FILE", authority.to_str().unwrap())]);
    let requester = Requester::connect(&outbound, "proxy_1");
    // Read when the first connection is made.
    std::mem::forget(directory);
    (outbound, requester, port, issuer)
}

/// Reads the head of a request; `false` at the end.
fn head(peer: &mut Peer) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        match peer.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Answers every request with the number of the connection.
fn numbered(number: usize, peer: &mut Peer) {
    while head(peer) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        if peer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A request for `name`, sent to the backend whatever that is.
fn ask(requester: &mut Requester, id: &str, name: &str, port: u16, packet: Packet<'_>) {
    let uri = format!("https://{name}:{port}/");
    let packet =
        Packet { uri: Some(uri.as_bytes()), connect_host: Some(b"127.0.0.1"), connect_port: Some(port), ..packet };
    requester.ask(id, packet);
}

#[test]
fn a_certificate_is_checked_against_the_name_in_the_uri_and_the_connection_used_again() {
    let (_outbound, mut requester, port) = start(numbered);
    for id in ["a", "b"] {
        ask(&mut requester, id, "localhost", port, Packet::default());
        let answer = requester.next_real(id);
        assert_eq!((answer.code, &answer.body[..]), (Some(200), &b"0"[..]), "{answer:?}");
    }
}

#[test]
fn a_wrong_name_is_refused_unless_the_target_may_be_anybody() {
    let (_outbound, mut requester, port) = start(numbered);
    ask(&mut requester, "a", "other.test", port, Packet::default());
    let answer = requester.next_real("a");
    assert_eq!((answer.kind, &answer.condition[..]), (Kind::Error, "tls-error"), "{answer:?}");
    assert!(answer.reason.contains("127.0.0.1"), "{answer:?}");
    ask(&mut requester, "b", "other.test", port, Packet { ignore_tls_errors: true, ..Packet::default() });
    assert_eq!(requester.next_real("b").code, Some(200));
    // What was accepted unchecked is not used for those who want it checked.
    ask(&mut requester, "c", "other.test", port, Packet::default());
    assert_eq!(requester.next_real("c").condition, "tls-error");
}

#[test]
fn a_backend_without_tls_is_an_error_and_not_a_wait() {
    let outbound = Outbound::start();
    let mut requester = Requester::connect(&outbound, "proxy_1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    ask(&mut requester, "a", "localhost", port, Packet::default());
    assert_eq!(requester.next_real("a").condition, "tls-error");
}

#[test]
fn a_large_body_comes_whole_and_one_that_is_cut_off_is_an_error() {
    const LENGTH: usize = 3_000_000;
    let (_outbound, mut requester, port) = start(|number, peer| {
        assert!(head(peer));
        // Without a length, so that only the end of TLS says that it is complete.
        let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let _ = peer.write_all(&vec![b'x'; LENGTH]);
        if number == 0 {
            peer.conn.send_close_notify();
        }
        let _ = peer.flush();
    });
    let credits = Some(2 * LENGTH as u32);
    ask(&mut requester, "a", "localhost", port, Packet { credits, ..Packet::default() });
    assert_eq!(requester.response("a").1.len(), LENGTH);
    ask(&mut requester, "b", "localhost", port, Packet { credits, ..Packet::default() });
    let mut received = 0;
    let end = loop {
        let answer = requester.next_real("b");
        received += answer.body.len();
        if answer.kind != Kind::Data || !answer.more {
            break answer;
        }
    };
    assert_eq!((end.kind, received), (Kind::Error, LENGTH));
}

#[test]
fn a_websocket_goes_over_tls() {
    let (_outbound, mut requester, port) = start(|_, peer| {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            peer.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let text = String::from_utf8(request).unwrap();
        let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = wire::websocket::accept_value(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        // The first frame comes with the head.
        peer.write_all(&[head.as_bytes(), &[0x81, 5], b"hello"].concat()).unwrap();
        let _ = peer.read(&mut [0; 100]);
    });
    let uri = format!("wss://localhost:{port}/");
    let packet = Packet {
        uri: Some(uri.as_bytes()),
        connect_host: Some(b"127.0.0.1"),
        connect_port: Some(port),
        ..Packet::default()
    };
    requester.ask("a", packet);
    assert_eq!(requester.next_real("a").code, Some(101));
    assert_eq!(requester.next_real("a").body, b"hello");
}

#[test]
fn a_backend_that_asks_who_connects_is_shown_the_certificate_of_the_route_and_no_other() {
    let (_outbound, mut requester, port, issuer) = start_asking(true, numbered);
    let pair = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (one, other) = (pair("one"), pair("other"));
    let showing = |pair: &'static (String, String)| Packet {
        client_cert: Some(pair.0.as_bytes()),
        client_key: Some(pair.1.as_bytes()),
        ..Packet::default()
    };
    let (one, other): (&'static _, &'static _) = (Box::leak(Box::new(one)), Box::leak(Box::new(other)));
    // The connection of one is used again, but never for the other.
    for (id, pair, number) in [("a", one, "0"), ("b", one, "0"), ("c", other, "1"), ("d", one, "0"), ("e", other, "1")]
    {
        ask(&mut requester, id, "localhost", port, showing(pair));
        let answer = requester.next_real(id);
        assert_eq!((answer.code, &answer.body[..]), (Some(200), number.as_bytes()), "{answer:?}");
    }
    let both = [one.0.as_bytes(), one.1.as_bytes()].concat();
    ask(&mut requester, "f", "localhost", port, Packet { client_cert: Some(&both), ..Packet::default() });
    assert_eq!(requester.next_real("f").code, Some(200));

    let mixed = Packet { client_key: Some(other.1.as_bytes()), ..showing(one) };
    let nonsense = Packet { client_cert: Some(b"nonsense"), ..showing(one) };
    for (id, packet) in [("g", Packet::default()), ("h", mixed), ("i", nonsense)] {
        ask(&mut requester, id, "localhost", port, packet);
        assert_eq!(requester.next_real(id).kind, Kind::Error, "{id}");
    }
}
