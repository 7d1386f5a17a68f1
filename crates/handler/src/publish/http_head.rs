//! The head of a request to the control port, checked before hyper sees it.
//!
//! hyper answers malformed heads by itself, with texts of its own. Clients of the control port know others, so the head is
//! read here first and then given to hyper together with the rest of the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A stream whose beginning has been read already.
pub struct Begun {
    read: BytesMut,
    stream: TcpStream,
}

/// Reads a head of at most `limit` bytes and looks at what hyper would refuse differently. Answers a malformed one, and
/// returns nothing then.
pub async fn check(mut stream: TcpStream, limit: usize) -> Option<Begun> {
    let mut read = BytesMut::with_capacity(1024);
    let refusal = loop {
        if let Some(end) = end_of_head(&read) {
            match mistake(&read[..end]) {
                None => return Some(Begun { read, stream }),
                Some(text) => break text,
            }
        }
        if read.len() >= limit {
            break "Request header too large.\n";
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let page = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{refusal}",
        refusal.len()
    );
    stream.write_all(page.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()?;
    // Closing with unread input would reset the connection and could take the answer with it.
    let mut rest = [0; 4096];
    let mut patience = 64;
    while patience > 0 && stream.read(&mut rest).await.ok()? > 0 {
        patience -= 1;
    }
    None
}

/// The length of the head, once its empty line is there.
fn end_of_head(read: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (i, _) in read.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        if read[line..i].strip_suffix(b"\r").unwrap_or(&read[line..i]).is_empty() && line > 0 {
            return Some(i + 1);
        }
        line = i + 1;
    }
    None
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
    fn a_head_ends_with_its_empty_line() {
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody"), Some(24));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\n"), Some(16));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nA: b\r\n"), None);
    }

    #[test]
    fn mistakes_are_found() {
        assert_eq!(mistake(b"POST /publish/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), None);
        assert_eq!(mistake(b"NONSENSE\r\n\r\n"), Some("Failed to parse request header.\n"));
        assert_eq!(mistake(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"), Some("Bad Content-Length.\n"));
    }
}
