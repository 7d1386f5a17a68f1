// SPDX-License-Identifier: AGPL-3.0-or-later
//! Asks the handler, at a socket that it has for the runner alone: the control port may have another key, or not be there.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use settings::{Part, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::listeners::operator_socket;

/// How long the handler may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: u64 = 4 << 20;

/// Where the handler is asked.
#[derive(Clone, Debug)]
pub struct Handler(PathBuf);

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// The content.
    pub body: Vec<u8>,
}

/// The handler of a suite, if it is ours.
pub fn handler(settings: &Settings) -> Option<Handler> {
    let is_ours = settings.runner.own_parts().any(|part| part == Part::Handler);
    is_ours.then(|| Handler(operator_socket(settings)))
}

impl Handler {
    /// Sends a request, and waits for the answer.
    ///
    /// # Errors
    /// There is none in time, or none that can be read.
    pub async fn ask(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Reply> {
        timeout(PATIENCE, self.talk(method, target, body)).await?
    }

    async fn talk(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Reply> {
        let mut stream = UnixStream::connect(&self.0).await?;
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// An answer as the control port gives it: a head, and all that follows.
fn parse(answer: &[u8]) -> Option<Reply> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|window| window == END)?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(Reply { status, body: answer.get(end + END.len()..)?.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_head_and_a_body() {
        let reply = |status, body: &str| Some(Reply { status, body: body.into() });
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}\r\n\r\n"), reply(200, "{}\r\n\r\n"));
        assert_eq!(parse(b"HTTP/1.1 503 Busy\r\n\r\n"), reply(503, ""));
        for broken in
            [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 2\r\n\r\n", b"\xff\r\n\r\n", b"HTTP/1.1 x00\r\n\r\n"]
        {
            assert_eq!(parse(broken), None);
        }
    }
}
