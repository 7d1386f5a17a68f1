// SPDX-License-Identifier: AGPL-3.0-or-later
//! Answers that go on: server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that may wait for a browser.
const WAITING: usize = 4;
/// How long a browser may take for one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The side of those who tell.
#[derive(Debug)]
pub struct Sender(mpsc::Sender<Bytes>);

/// The body of an answer.
#[derive(Debug)]
pub struct Lines(mpsc::Receiver<Bytes>);

/// Both sides.
pub fn channel() -> (Sender, Lines) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Sender(sender), Lines(receiver))
}

impl Sender {
    /// Tells something; `false` if nobody listens any more.
    pub async fn tell(&self, event: &impl Serialize) -> bool {
        let Ok(text) = serde_json::to_string(event) else { return false };
        self.tell_text(&text).await
    }

    /// The same with JSON that is there already.
    pub async fn tell_text(&self, json: &str) -> bool {
        let event = Bytes::from(format!("data: {json}\n\n"));
        matches!(timeout(PATIENCE, self.0.send(event)).await, Ok(Ok(())))
    }

    /// Waits until nobody listens any more.
    pub async fn left(&self) {
        self.0.closed().await;
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
