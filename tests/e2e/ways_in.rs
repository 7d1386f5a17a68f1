// SPDX-License-Identifier: AGPL-3.0-or-later
//! Clients that come through a Unix socket, or through a proxy that says whose a connection is.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pushpin_tests::origin::{Origin, respond};
use pushpin_tests::suite::{Suite, free_ports};
use pushpin_tests::until;

/// A backend that tells whom it takes for the client.
fn origin() -> Origin {
    Origin::start(|request, stream| {
        let client = request.header("X-Forwarded-For").unwrap_or("nobody").to_owned();
        respond(stream, "200 OK", "", client.as_bytes())
    })
}

/// A suite with these settings of the runner, and a second port where a proxy says who the client is.
fn start(origin: &Origin, settings: &str) -> (Suite, u16) {
    let settings = format!("[runner]\n{settings}\n[proxy]\nx_forwarded_for=append\n");
    let mut suite = Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), &settings);
    let [port] = free_ports();
    let (file, own) = (suite.path("pushpin.conf"), format!("http_port=127.0.0.1:{}", suite.port));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&own, &format!("{own},127.0.0.1:{port}?proxy_protocol=true"))).unwrap();
    suite.launch();
    (suite, port)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n";

/// Sends these pieces one by one; gives all that comes back.
fn ask(stream: &mut (impl Read + Write), pieces: &[&[u8]]) -> String {
    for piece in pieces {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // One that is closed with unread bytes is reset; one that stays open is not what is waited for.
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn a_unix_socket_serves_like_a_port_and_goes_with_the_suite() {
    let origin = origin();
    let (mut suite, _) = start(&origin, "local_ports={rundir}/site.sock?mode=660");
    let path = suite.path("run/site.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let answer = ask(&mut UnixStream::connect(&path).unwrap(), &[GET]);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("nobody"), "{answer}");
    // Callers wait while the frontend is replaced, as at a port.
    suite.kill("frontend");
    let answer = ask(&mut UnixStream::connect(&path).unwrap(), &[GET]);
    assert!(answer.ends_with("nobody"), "{answer}");
    assert_eq!(suite.stop().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn what_is_left_of_a_unix_socket_is_replaced_and_another_file_is_not() {
    let origin = origin();
    let mut suite =
        Suite::prepare(&format!("* 127.0.0.1:{}", origin.port), "[runner]\nlocal_ports={rundir}/../site.sock\n");
    let path = suite.path("site.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    suite.launch();
    assert!(ask(&mut UnixStream::connect(&path).unwrap(), &[GET]).ends_with("nobody"));
    suite.stop();
    fs::write(&path, "a letter").unwrap();
    let output = suite.run();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no socket"), "{output:?}");
    assert_eq!(fs::read(&path).unwrap(), b"a letter");
}

#[test]
fn a_proxy_in_front_says_who_the_client_is() {
    let origin = origin();
    let (suite, port) = start(&origin, "local_ports={rundir}/p?proxy_protocol=true");
    let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n";
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x08\x7f\x00\x00\x01\x0f\xa0\x00\x50\x04\x00\x00";
    assert!(ask(&mut connect(port), &[line, GET]).ends_with("192.0.2.7"));
    assert!(ask(&mut connect(port), &[binary, GET]).ends_with("192.0.2.8"));
    assert!(ask(&mut UnixStream::connect(suite.path("run/p")).unwrap(), &[line, GET]).ends_with("192.0.2.7"));
    let bytes: Vec<&[u8]> = line.chunks(1).chain(GET.chunks(7)).collect();
    assert!(ask(&mut connect(port), &bytes).ends_with("192.0.2.7"));
    // A health check of the proxy's own.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert!(ask(&mut connect(port), &[local, GET]).ends_with("127.0.0.1"));
}

#[test]
fn a_connection_without_the_header_is_closed_and_one_that_does_not_end_too() {
    let origin = origin();
    let (suite, port) = start(&origin, "client_header_timeout=1");
    assert_eq!(ask(&mut connect(port), &[GET]), "");
    until("the log says why", || suite.logs().contains("does not begin with a header of the PROXY protocol"));
    assert_eq!(ask(&mut connect(port), &[b"PROXY TCP4 192.0.2.7"]), "");
    let mut gone = connect(port);
    gone.write_all(b"PROXY").unwrap();
    gone.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ask(&mut gone, &[]), "");
}
