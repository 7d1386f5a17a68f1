// SPDX-License-Identifier: AGPL-3.0-or-later
//! One connection to the control port, and the body of the request that comes by it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::Port;
use super::connections::Key;
use crate::publish::submission::{self, Outcome, Work};

/// One connection; it is forgotten when this is dropped.
pub(super) struct Publisher {
    key: Key,
    pub(super) port: Rc<Port>,
    /// When it is closed, whatever it is doing.
    deadline: Cell<Instant>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.port.connections.borrow_mut().close(self.key);
        self.port.tasks.borrow_mut().remove(&self.key);
    }
}

impl Publisher {
    /// It has just been opened.
    pub(super) fn new(key: Key, port: Rc<Port>) -> Self {
        Publisher { key, port, deadline: Cell::new(Instant::now()) }
    }

    /// Reads a body, whose length has been checked.
    pub(super) async fn read(&self, mut body: Upload) -> Result<Bytes, &'static str> {
        let mut whole = BytesMut::new();
        while let Some(data) = body.next().await {
            let data = data.map_err(|_| "Request body is incomplete.\n")?;
            self.count(data.len());
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// Counts bytes that have come and are kept.
    pub(super) fn count(&self, bytes: usize) {
        self.port.connections.borrow_mut().read(self.key, bytes);
        self.port.close_excess();
    }

    /// Nothing is kept of what has come, for now.
    pub(super) fn answered(&self) {
        self.port.connections.borrow_mut().answered(self.key);
        self.port.close_excess();
    }

    /// What the connection does from now on ends in time, or the connection does.
    pub(super) fn expect_end(&self, time: Duration) {
        self.deadline.set(Instant::now() + time);
    }

    /// A line of a batch is to come, and its answer to leave. Returns when it must have come.
    pub(super) fn expect_line(&self) -> tokio::time::Instant {
        let limits = &self.port.limits;
        self.expect_end(limits.answer_time());
        (Instant::now() + limits.body_time).into()
    }

    /// The outcome of a future that moves the deadline, if it comes before it.
    pub(super) async fn before_deadline<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut deadline = pin!(tokio::time::sleep_until(self.deadline.get().into()));
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if deadline.deadline() != self.deadline.get().into() {
                deadline.as_mut().reset(self.deadline.get().into());
            }
            deadline.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Hands work to the worker and waits until it is done.
    pub(super) async fn submit(&self, work: Work) -> Outcome {
        let port = &self.port;
        let waits = port.connections.borrow_mut().wait(self.key);
        let (submission, waiting) = submission::submit(work);
        // The channel is full of submissions that were given up, if the worker takes none for long.
        let outcome = match waits.is_ok() && port.submissions.try_send(submission).is_ok() {
            true => {
                port.waker.wake();
                waiting.outcome(port.limits.wait).await
            }
            false => Outcome::NotBegun,
        };
        self.answered();
        if !matches!(outcome, Outcome::Done(_)) {
            port.warn("busy", "a publish request is answered 503: too much waits to be published or delivered");
        }
        outcome
    }
}

/// The body of a request.
pub(super) struct Upload {
    body: Incoming,
    /// Whether there is more of it, for whoever looks at it after the body is gone.
    pub(super) unread: Rc<Cell<bool>>,
}

impl Upload {
    /// Nothing of it has been read.
    pub(super) fn new(body: Incoming) -> Self {
        let unread = Rc::new(Cell::new(!body.is_end_stream()));
        Upload { body, unread }
    }

    /// What comes next; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    // Trailers mean nothing here.
                    Err(_) => continue,
                },
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.unread.set(false);
                    return None;
                }
            }
        }
    }
}
