// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/healthz` and `/readyz`, for those who watch over the suite by its control port.
//!
//! How the suite is, the runner knows: it is asked over its own socket. The worker has no part in it, so that a check is answered
//! while publishing waits.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::answers::{Answer, plain};

/// How long the runner may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long its answer is good for, so that many who ask cost no more than a few.
const KEPT: Duration = Duration::from_millis(250);
/// Bytes of its answer.
const MAX_ANSWER: u64 = 1 << 20;

const QUESTION: &[u8] = b"\"status\"\n";

/// What is asked about the suite, and by whom it is known.
#[derive(Debug)]
pub struct Health {
    /// Where the runner is asked; none if it has not started us.
    runner: Option<PathBuf>,
    told: Mutex<Option<Told>>,
}

/// What the runner told last.
#[derive(Clone, Debug)]
struct Told {
    at: Instant,
    /// Why requests should not be sent here.
    missing: Vec<String>,
}

/// What counts of the runner's answer.
#[derive(Deserialize)]
struct Reply {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    missing: Vec<String>,
}

impl Health {
    /// Asks the runner at this socket. A handler without runner speaks for itself only.
    pub fn new(runner: Option<PathBuf>) -> Self {
        Health { runner, told: Mutex::default() }
    }

    /// The answer to a request for this path, if it is one of ours.
    pub(super) async fn answer(&self, path: &str) -> Option<Answer> {
        let mut answer = match path {
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match self.missing().await.as_slice() {
                [] => plain(StatusCode::OK, "ready\n"),
                missing => plain(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
            },
            _ => return None,
        };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(answer)
    }

    async fn missing(&self) -> Vec<String> {
        let Some(socket) = &self.runner else { return Vec::new() };
        // While one asks, the others wait for what it hears.
        let mut told = self.told.lock().await;
        if let Some(Told { missing, .. }) = told.as_ref().filter(|told| told.at.elapsed() < KEPT) {
            return missing.clone();
        }
        let outcome = timeout(PATIENCE, ask(socket)).await.unwrap_or_else(|late| Err(late.into()));
        let missing = outcome.unwrap_or_else(|error| {
            tracing::debug!("the runner can not be asked at {}: {error}", socket.display());
            vec!["the runner does not answer".into()]
        });
        *told = Some(Told { at: Instant::now(), missing: missing.clone() });
        missing
    }
}

async fn ask(socket: &Path) -> io::Result<Vec<String>> {
    let mut runner = UnixStream::connect(socket).await?;
    runner.write_all(QUESTION).await?;
    let mut line = Vec::new();
    runner.take(MAX_ANSWER).read_to_end(&mut line).await?;
    Ok(serde_json::from_slice::<Reply>(&line)?.status.missing)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn told(health: &Health, path: &str) -> (u16, String) {
        let answer = health.answer(path).await.unwrap();
        let status = answer.status().as_u16();
        let body = match answer.into_body() {
            http_body_util::Either::Left(body) => body.collect().await.unwrap().to_bytes(),
            http_body_util::Either::Right(_) => panic!("a batch"),
        };
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What is told when the runner answers so.
    async fn told_with(reply: &'static [u8]) -> (u16, String) {
        let path = std::env::temp_dir().join(format!("health-{}-{}", std::process::id(), reply.len()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let runner = thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = vec![0; QUESTION.len()];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(reply).unwrap();
            question
        });
        let health = Health::new(Some(path.clone()));
        let answer = told(&health, "/readyz").await;
        assert_eq!(runner.join().unwrap(), QUESTION);
        std::fs::remove_file(path).unwrap();
        answer
    }

    #[tokio::test]
    async fn it_is_what_the_runner_says() {
        let reply = b"{\"status\":{\"ready\":true,\"missing\":[],\"more\":1}}\n";
        assert_eq!(told_with(reply).await, (200, "ready\n".into()));
        let reply = b"{\"status\":{\"missing\":[\"proxy is starting\",\"outbound does not run\"]}}\n";
        assert_eq!(told_with(reply).await, (503, "proxy is starting\noutbound does not run\n".into()));
    }

    #[tokio::test]
    async fn a_runner_that_says_nothing_of_use_is_not_ready() {
        for reply in [&b""[..], b"{}\n", b"{\"failed\":\"x\"}\n", b"\xff\n"] {
            assert_eq!(told_with(reply).await, (503, "the runner does not answer\n".into()));
        }
        let health = Health::new(Some("/nowhere".into()));
        assert_eq!(told(&health, "/readyz").await.0, 503);
        assert_eq!(told(&health, "/healthz").await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn without_runner_only_this_process_counts() {
        let health = Health::new(None);
        assert_eq!(told(&health, "/readyz").await, (200, "ready\n".into()));
        assert!(health.answer("/ready").await.is_none());
    }
}
