// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the control port answers, in the texts that clients know.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Body;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::deliver::fate::Fate;
use crate::publish::submission::Outcome;

/// The answers to the lines of a batch, as they come.
pub type Lines = Pin<Box<dyn Body<Data = Bytes, Error = Infallible>>>;

/// An answer: whole, or for a batch in lines.
pub type Answer = Response<Either<Full<Bytes>, Lines>>;

/// The formats of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `text/plain`.
    Text,
    /// As `application/json`.
    Json,
}

/// The answer to work that may be done, by how it ended.
pub fn conclude(outcome: &Outcome, format: Format, done: &str) -> Answer {
    match (outcome, format) {
        (Outcome::Done(_), Format::Text) => plain(StatusCode::OK, format!("{done}\n")),
        (Outcome::Done(_), Format::Json) => {
            respond(StatusCode::OK, "application/json", format!("{{\"message\":\"{done}\"}}\n"))
        }
        _ => busy(outcome),
    }
}

/// The answer to work that is not done.
pub fn busy(outcome: &Outcome) -> Answer {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", excuse(outcome)));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The answer to a publisher who wants to know what became of its items, by the names of their channels.
pub fn report(channels: Vec<String>, fates: &[Fate]) -> Answer {
    #[derive(Serialize)]
    struct Item {
        channel: String,
        #[serde(flatten)]
        fate: Fate,
    }
    let items: Vec<Item> = channels.into_iter().zip(fates).map(|(channel, &fate)| Item { channel, fate }).collect();
    respond(StatusCode::OK, "application/json", format!("{}\n", json!({"message": "Published", "items": items})))
}

/// Why work is not done.
pub fn excuse(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) | Outcome::NotBegun => "Too busy; nothing was done. Please try again.",
        Outcome::Unfinished => "Too busy; not everything may have been done. Please try again.",
    }
}

/// A text.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, "text/plain", text)
}

/// Something of any kind.
pub fn respond(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answers to a batch.
pub fn lines(answers: Lines) -> Answer {
    let mut response = Response::new(Either::Right(answers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Says whether the connection stays for another request.
pub fn say_whether_it_stays(response: &mut Answer, stays: bool) {
    let value = HeaderValue::from_static(if stays { "keep-alive" } else { "close" });
    response.headers_mut().insert(CONNECTION, value);
}
