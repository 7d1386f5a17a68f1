// SPDX-License-Identifier: AGPL-3.0-or-later
//! Batches in NDJSON: an item a line, and an answer a line.
//!
//! Such a body has no end that must be waited for. Lines are published as they come, in their order, each part of them when
//! the one before has been published; what comes meanwhile is left with the client. A line that is wrong costs nobody but
//! itself. When nothing can be published for too long the answers end with those that were not, so that the client can go
//! on from there and the order stays.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Serialize;
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

use super::answers::{self, Answer};
use super::authorization::Grant;
use super::lines::{Line, Lines};
use super::publisher::{Publisher, Upload};
use crate::deliver::fate::Fate;
use crate::publish::submission::{Outcome, Output, Work};

/// Lines that are published together.
const MAX_LINES: usize = 256;

/// A batch that is being taken in.
pub struct Batch {
    publisher: Rc<Publisher>,
    /// Of the request; a token may run out before the batch ends.
    headers: HeaderMap,
    body: Upload,
    lines: Lines,
    /// Whether the publisher wants to know who got each item.
    report: bool,
    ended: bool,
}

/// What becomes of one line.
#[derive(Serialize)]
struct Told {
    line: u64,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fate: Option<Fate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The answers to some lines.
struct Part {
    told: Vec<Told>,
    /// Whether any of the lines was to be published, and none was.
    nothing_done: bool,
}

/// Whether a request brings one, by its headers.
pub fn is_batch(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|value| grip::header::first(value.as_bytes()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/x-ndjson"))
}

impl Batch {
    /// Begins one.
    pub(super) fn new(publisher: &Rc<Publisher>, headers: HeaderMap, body: Upload, report: bool) -> Self {
        let lines = Lines::new(publisher.port.limits.body);
        Batch { publisher: publisher.clone(), headers, body, lines, report, ended: false }
    }

    /// Publishes the first lines, and answers. If they can not be published, that is the status of the answer.
    pub async fn answer(mut self) -> Answer {
        match self.publish_some().await {
            Some(Part { nothing_done: true, .. }) => answers::busy(&Outcome::NotBegun),
            first => {
                answers::lines(Box::pin(Answers { first: first.map(|part| part.encode()), step: Box::pin(step(self)) }))
            }
        }
    }

    /// Takes the next lines and publishes them; `None` when there are no more.
    async fn publish_some(&mut self) -> Option<Part> {
        if self.ended {
            self.publisher.expect_end(self.publisher.port.limits.idle_time);
            return None;
        }
        let Ok(taken) = self.take().await else {
            return Some(self.end(StatusCode::REQUEST_TIMEOUT, "The line took too long.".into()));
        };
        let taken = taken?;
        let grant = match self.publisher.port.admit(&self.headers) {
            Ok(grant) => grant,
            Err(refusal) => {
                self.publisher.port.note(&refusal).await;
                return Some(self.end(StatusCode::UNAUTHORIZED, refusal.to_string()));
            }
        };
        let mut told = Vec::with_capacity(taken.len());
        let mut items = Vec::with_capacity(taken.len());
        for (line, text) in taken {
            told.push(match self.read(text, &grant) {
                Ok(item) => {
                    items.push(item);
                    Told { line, status: 200, message: Some("Published"), fate: None, error: None }
                }
                Err((status, error)) => Told::error(line, status, error),
            });
        }
        let outcome = match items.is_empty() {
            true => Outcome::Done(Output::Published(Vec::new())),
            false => self.publisher.submit(Work::Publish(items)).await,
        };
        self.publisher.answered();
        self.publisher.count(self.lines.kept());
        let nothing_done = outcome == Outcome::NotBegun;
        let good = told.iter_mut().filter(|told| told.status == 200);
        match outcome {
            Outcome::Done(Output::Published(fates)) if self.report => {
                good.zip(fates).for_each(|(told, fate)| told.fate = Some(fate));
            }
            Outcome::Done(_) => {}
            outcome => {
                self.ended = true;
                let told = |line| Told::error(line, StatusCode::SERVICE_UNAVAILABLE, answers::excuse(&outcome).into());
                good.for_each(|good| *good = told(good.line));
            }
        }
        Some(Part { told, nothing_done })
    }

    /// The lines that are there; waits for one if there is none. Nothing comes after the end of the body.
    async fn take(&mut self) -> Result<Option<Vec<(u64, Line)>>, Elapsed> {
        let mut deadline = self.publisher.expect_line();
        loop {
            let taken: Vec<_> = std::iter::from_fn(|| self.lines.take()).take(MAX_LINES).collect();
            if !taken.is_empty() {
                return Ok(Some(taken));
            }
            match timeout_at(deadline, self.body.next()).await? {
                Some(Ok(data)) => {
                    // An empty line says at least that somebody is there.
                    if data.contains(&b'\n') {
                        deadline = self.publisher.expect_line();
                    }
                    self.lines.push(&data);
                    self.publisher.count(data.len());
                }
                // What is left was not sent to its end.
                Some(Err(_)) => return Ok(None),
                None => {
                    self.ended = true;
                    return Ok(self.lines.last().map(|line| vec![line]));
                }
            }
        }
    }

    /// The item of a line, or why it is not published.
    fn read(&self, line: Line, grant: &Grant) -> Result<grip::Item, (StatusCode, String)> {
        let Line::Whole(text) = line else { return Err((StatusCode::BAD_REQUEST, "The line is too long.".into())) };
        let item = grip::item::from_json(&text, None).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        grant.check(&item.channel).map_err(|refusal| {
            self.publisher.port.warn_of(&refusal);
            (StatusCode::FORBIDDEN, refusal.to_string())
        })?;
        Ok(item)
    }

    fn end(&mut self, status: StatusCode, error: String) -> Part {
        self.ended = true;
        Part { told: vec![Told::error(self.lines.next_number(), status, error)], nothing_done: false }
    }
}

impl Told {
    fn error(line: u64, status: StatusCode, error: String) -> Self {
        Told { line, status: status.as_u16(), message: None, fate: None, error: Some(error) }
    }
}

impl Part {
    fn encode(&self) -> Bytes {
        let mut text = Vec::new();
        for told in &self.told {
            // Numbers and strings can be written, and so can a vector be written to.
            let _ = serde_json::to_writer(&mut text, told);
            text.push(b'\n');
        }
        text.into()
    }
}

/// The next part of the answers, with the batch for those after it; `None` at the end.
type Step = Pin<Box<dyn Future<Output = Option<(Bytes, Batch)>>>>;

/// Publishes some lines when the answers to those before have been taken.
struct Answers {
    first: Option<Bytes>,
    step: Step,
}

async fn step(mut batch: Batch) -> Option<(Bytes, Batch)> {
    let part = batch.publish_some().await?;
    Some((part.encode(), batch))
}

impl Body for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some((text, batch)) = ready!(self.step.as_mut().poll(cx)) else { return Poll::Ready(None) };
        self.step = Box::pin(step(batch));
        Poll::Ready(Some(Ok(Frame::data(text))))
    }
}
