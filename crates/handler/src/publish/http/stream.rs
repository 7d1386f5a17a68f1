// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where publishers connect, and a connection of one: TCP with TLS or without, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A listening socket, which does not block.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Local(std::os::unix::net::UnixListener),
}

/// The same, waited for.
pub(super) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Local(tokio::net::UnixListener),
}

/// A connection as it is accepted.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Local(UnixStream),
}

impl Listener {
    /// Lets it be waited for.
    pub(super) fn accepting(self) -> io::Result<Accepting> {
        Ok(match self {
            Listener::Tcp(listener) => Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Local(listener) => Accepting::Local(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

impl Accepting {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Accepting::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers to the lines of a batch are short and wait for nothing.
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream)
            }
            Accepting::Local(listener) => Accepted::Local(listener.accept().await?.0),
        })
    }
}

/// See the module.
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// From this machine.
    Local(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Stream::Local(local) => Pin::new(local).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Stream::Local(local) => Pin::new(local).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Stream::Local(local) => Pin::new(local).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Local(local) => Pin::new(local).poll_shutdown(cx),
        }
    }
}
