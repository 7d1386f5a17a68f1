// SPDX-License-Identifier: AGPL-3.0-or-later
//! Holds a path as a client does, and tells each piece of what comes. It goes through the suite's own port, and nowhere else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use settings::Runner;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::lines::Sender;

/// How long something is held.
const LONGEST: Duration = Duration::from_secs(600);
/// How many bytes are shown of it.
const MOST: usize = 1 << 20;
/// Bytes of a piece.
const PIECE: usize = 16384;
/// Bytes of a path or a host.
const MAX_NAME: usize = 2048;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Local(PathBuf),
}

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct Wanted {
    path: String,
    host: String,
}

/// What has happened.
#[derive(Clone, Debug, Serialize)]
struct Event<'a> {
    kind: &'a str,
    /// Of bytes, a character for each.
    text: String,
}

impl Place {
    /// Where the suite can be asked without TLS, and without a header that says for whom.
    pub fn of(runner: &Runner) -> Option<Self> {
        let tcp = runner.http_ports.iter().find(|port| !port.proxied).map(|port| Self::Tcp(reachable(port.address)));
        let local = || runner.local_ports.iter().find(|port| !port.proxied).map(|port| Self::Local(port.path.clone()));
        tcp.or_else(local)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Self::Local(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An address for all of a machine is that of this one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

impl Wanted {
    /// The request for it.
    ///
    /// # Errors
    /// Path or host would make another request of it, or none.
    pub fn request(&self) -> Result<String, String> {
        let is_plain = |text: &str| text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !self.path.starts_with('/') || !is_plain(&self.path) {
            return Err(format!(
                "A path begins with / and has up to {MAX_NAME} visible ASCII characters; write others as %XX."
            ));
        }
        if self.host.is_empty() || !is_plain(&self.host) {
            return Err(format!("A host has up to {MAX_NAME} visible ASCII characters."));
        }
        let (path, host) = (&self.path, &self.host);
        Ok(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pushpin-dashboard\r\nConnection: close\r\n\r\n"))
    }
}

/// Holds it until it ends, or nobody looks any more.
pub async fn hold(place: &Place, request: &str, sender: &Sender) {
    let end = tokio::select! {
        end = timeout(LONGEST, converse(place, request, sender)) => match end {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => format!("broken off: {error}"),
            Err(_) => format!("no longer than {} s", LONGEST.as_secs()),
        },
        () = sender.left() => return,
    };
    sender.tell(&Event { kind: "end", text: end }).await;
}

async fn converse(place: &Place, request: &str, sender: &Sender) -> io::Result<String> {
    let mut stream = place.connect().await?;
    stream.write_all(request.as_bytes()).await?;
    sender.tell(&Event { kind: "sent", text: request.into() }).await;
    let (mut piece, mut received) = (vec![0; PIECE], 0);
    while let count @ 1.. = stream.read(&mut piece).await? {
        let text = piece.iter().take(count).copied().map(char::from).collect();
        if !sender.tell(&Event { kind: "received", text }).await {
            return Ok(String::new());
        }
        received += count;
        if received > MOST {
            return Ok(format!("no more than {MOST} bytes"));
        }
    }
    Ok("the connection is closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, host: &str) -> Result<String, String> {
        Wanted { path: path.into(), host: host.into() }.request()
    }

    #[test]
    fn one_request_is_sent_whatever_is_typed() {
        let sent = request("/stream?channel=%20", "a.example:80").unwrap();
        assert!(sent.starts_with("GET /stream?channel=%20 HTTP/1.1\r\nHost: a.example:80\r\n"), "{sent}");
        let long = format!("/{}", "x".repeat(MAX_NAME));
        for path in ["", "x", "http://other/", "/a b", "/\r\nX: y", "/\u{e4}", "/\0", &long] {
            assert!(request(path, "h").is_err(), "{path:?}");
        }
        for host in ["", "a b", "h\r\nX: y", "\u{e4}"] {
            assert!(request("/", host).is_err(), "{host:?}");
        }
    }

    #[test]
    fn an_address_for_all_is_reached_by_this_machines() {
        for (written, reached) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.1:1", "192.0.2.1:1")]
        {
            assert_eq!(reachable(written.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
