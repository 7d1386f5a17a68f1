// SPDX-License-Identifier: AGPL-3.0-or-later
//! The socket at which the runner is asked. Only the suite's own user and root reach it.

use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use process::local::{self, LocalError, LocalFile};
use settings::{LocalPort, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::control::{Answer, Call, Request};

/// Clients at a time; others wait in the backlog.
const MAX_CLIENTS: usize = 4;
/// Bytes of a question.
const MAX_REQUEST: u64 = 4096;
/// How long a client may take to ask, and to take a line of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// When accepting fails, for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The socket, listened on and not served yet.
#[derive(Debug)]
pub struct Server {
    listener: StdUnixListener,
    /// Removed at the end.
    file: LocalFile,
}

impl Server {
    /// Opens it in the run directory, which is there and ours.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn open(settings: &Settings) -> Result<Self, LocalError> {
        let path = settings.global.control_socket();
        let port = LocalPort { path, mode: Some(0o600), user: None, group: None, proxied: false };
        let (listener, file) = local::open(&port)?;
        Ok(Self { listener, file })
    }

    /// Passes on questions from now on. The file goes with what comes back.
    ///
    /// # Errors
    /// The system does not let us wait for the socket.
    pub fn serve(self) -> io::Result<(mpsc::Receiver<Call>, LocalFile)> {
        let (calls, called) = mpsc::channel(MAX_CLIENTS);
        tokio::spawn(accept(UnixListener::from_std(self.listener)?, calls));
        Ok((called, self.file))
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    // A client that breaks off or takes too long concerns only itself.
                    let _ = converse(stream, calls, PATIENCE).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("unable to accept a connection of ctl: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>, patience: Duration) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let read = BufReader::new(reader.take(MAX_REQUEST)).read_until(b'\n', &mut line).await_within(patience).await?;
    let request = match serde_json::from_slice::<Request>(&line) {
        Ok(request) if line.ends_with(b"\n") => request,
        Ok(_) => return tell(&mut writer, &Answer::Failed(format!("the question of {read} bytes does not end"))).await,
        Err(error) => {
            let text = format!("this runner ({}) does not understand the question: {error}", env!("CARGO_PKG_VERSION"));
            return tell(&mut writer, &Answer::Failed(text)).await;
        }
    };
    let (answers, mut answered) = mpsc::unbounded_channel();
    if calls.send(Call { request, answers }).await.is_err() {
        return Ok(());
    }
    while let Some(answer) = answered.recv().await {
        tell(&mut writer, &answer).await?;
        if answer.is_last() {
            break;
        }
    }
    Ok(())
}

async fn tell(writer: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await_within(PATIENCE).await
}

trait Within<T> {
    /// The outcome, or an error after this time.
    async fn await_within(self, time: Duration) -> io::Result<T>;
}

impl<T, F: Future<Output = io::Result<T>>> Within<T> for F {
    async fn await_within(self, time: Duration) -> io::Result<T> {
        timeout(time, self).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client gets that sends this, with a runner that is done with everything.
    async fn answer(question: &[u8]) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (calls, mut called) = mpsc::channel::<Call>(1);
        tokio::spawn(converse(theirs, calls, PATIENCE));
        tokio::spawn(async move {
            while let Some(call) = called.recv().await {
                call.answer(Answer::Progress(format!("{:?}", call.request)));
                call.answer(Answer::Done("done".into()));
                call.answer(Answer::Progress("too late".into()));
            }
        });
        let (mut reader, mut writer) = ours.into_split();
        writer.write_all(question).await.unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_question_is_passed_on_and_answered_up_to_the_last_line() {
        let text = answer(b"{\"restart\":{\"component\":\"proxy\"}}\n").await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, [r#"{"progress":"Restart { component: \"proxy\" }"}"#, r#"{"done":"done"}"#]);
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_what_is_wrong() {
        for question in [&b"\n"[..], b"{}\n", b"\"explode\"\n", b"\xff\xfe\n", b"\"status\"", b"", &[b'x'; 4096]] {
            let text = answer(question).await;
            assert!(text.starts_with("{\"failed\":\"") && text.ends_with("\"}\n"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_nothing_is_let_go() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let (calls, _called) = mpsc::channel(1);
        assert_eq!(converse(theirs, calls, Duration::ZERO).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
