// SPDX-License-Identifier: AGPL-3.0-or-later
//! The head of a request to the control port, checked before hyper sees it.
//!
//! hyper answers malformed heads by itself, with texts of its own. Clients of the control port know others, so the head is
//! read here first and then given to hyper together with the rest of the stream. How long that may take is the caller's
//! concern.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// A stream whose beginning has been read already.
pub struct Begun {
    read: BytesMut,
    stream: Stream,
}

/// What came of reading a head.
pub enum Head {
    /// It is sound as far as that is looked at here; the stream begins with it.
    Sound(Begun),
    /// It is not, and this is what to tell the publisher.
    Malformed(Stream, &'static str),
}

/// Reads a head of at most `limit` bytes and looks at what hyper would refuse differently.
///
/// # Errors
/// The publisher has gone, or its connection broke, before the head was whole.
pub async fn read(mut stream: Stream, limit: usize) -> io::Result<Head> {
    let mut read = BytesMut::with_capacity(1024);
    let mut end = End::default();
    loop {
        if let Some(length) = end.find(&read) {
            return Ok(match mistake(&read[..length]) {
                None => Head::Sound(Begun { read, stream }),
                Some(text) => Head::Malformed(stream, text),
            });
        }
        if read.len() >= limit {
            return Ok(Head::Malformed(stream, "Request header too large.\n"));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The end of a head that comes in pieces. Nothing is looked at twice.
#[derive(Default)]
struct End {
    /// Where the last line begins.
    line: usize,
    searched: usize,
}

impl End {
    /// The length of the head, once its empty line is there.
    fn find(&mut self, read: &[u8]) -> Option<usize> {
        while let Some(found) = read[self.searched..].iter().position(|&byte| byte == b'\n') {
            let at = self.searched + found;
            let line = &read[self.line..at];
            if line.strip_suffix(b"\r").unwrap_or(line).is_empty() && self.line > 0 {
                return Some(at + 1);
            }
            (self.line, self.searched) = (at + 1, at + 1);
        }
        self.searched = read.len();
        None
    }
}

fn mistake(head: &[u8]) -> Option<&'static str> {
    let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|&b| b == b' ');
    let complete =
        words.next().is_some_and(|method| !method.is_empty()) && words.next().is_some() && words.next().is_some();
    if !complete {
        return Some("Failed to parse request header.\n");
    }
    let length = lines.find_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        line[..colon].eq_ignore_ascii_case(b"Content-Length").then(|| line[colon + 1..].trim_ascii())
    })?;
    let is_number = std::str::from_utf8(length).is_ok_and(|text| text.parse::<u64>().is_ok());
    (!is_number).then_some("Bad Content-Length.\n")
}

impl Begun {
    /// The stream, without what was read from it and not used.
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for Begun {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..n]);
        self.read.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_comes() {
        for (head, length) in [
            (&b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody"[..], Some(24)),
            (b"GET / HTTP/1.1\n\n", Some(16)),
            (b"GET / HTTP/1.1\r\nA: b\r\n", None),
            (b"\r\n\r\n", Some(4)),
        ] {
            assert_eq!(End::default().find(head), length);
            let mut end = End::default();
            let found = (0..=head.len()).find_map(|read| end.find(&head[..read]));
            assert_eq!(found, length);
        }
    }

    #[test]
    fn mistakes_are_found() {
        assert_eq!(mistake(b"POST /publish/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), None);
        assert_eq!(mistake(b"NONSENSE\r\n\r\n"), Some("Failed to parse request header.\n"));
        assert_eq!(mistake(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"), Some("Bad Content-Length.\n"));
    }
}
