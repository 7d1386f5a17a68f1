// SPDX-License-Identifier: AGPL-3.0-or-later
//! Publishing by HTTP POST.
//!
//! One request of HTTP/1.0, as Pushpin's own tool sends it, so that the answer has no chunks.

use std::io::{self, Read as _, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Error;
use crate::address::Address;

/// For all of it: connecting, sending, and the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the head of an answer, and of its body, that are read.
const MAX_HEAD: usize = 64 * 1024;
const MAX_ANSWER: usize = 1024 * 1024;

/// An answer with the status 200.
#[derive(Debug)]
pub struct Answer {
    /// Its body.
    pub body: String,
}

/// Posts `body` to `/publish/` below an address, and waits for the answer.
pub fn post(address: &Address, body: &str, authorization: Option<&str>) -> Result<Answer, Error> {
    let mut head = format!(
        "POST {}/publish/ HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        address.path,
        address.authority(),
        body.len()
    );
    if let Some(authorization) = authorization {
        if authorization.chars().any(char::is_control) {
            return Err(Error::Argument("what is to authenticate must not have control characters".into()));
        }
        head.push_str(&format!("Authorization: {authorization}\r\n"));
    }
    let request = format!("{head}\r\n{body}");
    let failed = |error: io::Error| Error::Connection(told(&error));
    let tcp = Timed { stream: connect(address).map_err(failed)?, deadline: Instant::now() + TIMEOUT };
    let answer = match address.tls {
        false => exchange(tcp, request.as_bytes()),
        true => secure(tcp, &address.host).and_then(|tls| exchange(tls, request.as_bytes())),
    };
    let (status, body) = answer.map_err(failed)?;
    match status {
        200 => Ok(Answer { body }),
        _ if body.trim().is_empty() => Err(Error::Refused(format!("the server answered with the status {status}"))),
        _ => Err(Error::Refused(body.trim().to_string())),
    }
}

/// Tries all addresses of the name: `localhost` may be ::1 first, where nobody listens.
fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::other(format!("`{}` has no address", address.host));
    for address in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Wraps a connection in TLS, with the authorities that the system trusts.
fn secure(tcp: Timed, host: &str) -> io::Result<StreamOwned<ClientConnection, Timed>> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 {
        let text = "there are no root certificates on this system: install ca-certificates, or set SSL_CERT_FILE";
        return Err(io::Error::other(text));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
    let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(builder.with_no_client_auth()), name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, tcp))
}

/// Sends a request and reads the status and the body of the answer.
fn exchange(mut stream: impl io::Read + io::Write, request: &[u8]) -> io::Result<(u16, String)> {
    // A server may answer and close before it has read everything; what it says counts.
    let sent = stream.write_all(request).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let most = (MAX_HEAD + MAX_ANSWER) as u64;
    let read = io::Read::by_ref(&mut stream).take(most).read_to_end(&mut answer);
    match parse(&answer) {
        // Some servers end TLS without saying so, which is nothing against an answer that is whole.
        Ok(Some((status, body, true))) => Ok((status, body)),
        Ok(Some((status, body, false))) => read.map(|_| (status, body)),
        Ok(None) => {
            sent.and(read)?;
            Err(io::Error::other("the connection was closed without an answer"))
        }
        Err(error) => Err(error),
    }
}

/// The status and the body of an answer, once its head is there, and whether the body is known to be whole.
fn parse(answer: &[u8]) -> io::Result<Option<(u16, String, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(answer).map_err(|error| io::Error::other(format!("the answer is no HTTP: {error}")))?;
    let (httparse::Status::Complete(end), Some(status)) = (parsed, head.code) else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Content-Length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let body = &answer[end..];
    let is_whole = length.is_some_and(|length| body.len() >= length);
    let body = &body[..length.unwrap_or(body.len()).min(body.len())];
    Ok(Some((status, String::from_utf8_lossy(body).into_owned(), is_whole)))
}

/// What goes wrong, in the words of the user.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".into(),
        _ => error.to_string(),
    }
}

/// A connection with a time by which everything must be over.
#[derive(Debug)]
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl io::Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_by_its_length_or_by_its_end() {
        let answer = |text: &str| parse(text.as_bytes()).unwrap();
        assert_eq!(answer("HTTP/1.0 200 OK\r\n"), None);
        assert_eq!(answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokmore"), Some((200, "ok".into(), true)));
        assert_eq!(answer("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nok"), Some((503, "ok".into(), false)));
        assert_eq!(answer("HTTP/1.0 400 Bad\r\n\r\nno"), Some((400, "no".into(), false)));
        assert!(parse(b"SSH-2.0 nobody\r\n\r\n").is_err());
    }
}
