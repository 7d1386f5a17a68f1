//! What the control port answers, in the texts that clients know.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::batch::Answers;
use crate::publish::submission::Outcome;

/// An answer: whole, or for a batch in lines.
pub type Answer = Response<Either<Full<Bytes>, Answers>>;

/// The formats of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `text/plain`.
    Text,
    /// As `application/json`.
    Json,
}

/// The answer to work, by how it ended.
pub fn conclude(outcome: Outcome, format: Format, done: &str) -> Answer {
    if outcome == Outcome::Done {
        return success(format, done);
    }
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", excuse(outcome)));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Why work is not done.
pub fn excuse(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "",
        Outcome::NotBegun => "Too busy; nothing was done. Please try again.",
        Outcome::Unfinished => "Too busy; not everything may have been done. Please try again.",
    }
}

fn success(format: Format, text: &str) -> Answer {
    match format {
        Format::Text => plain(StatusCode::OK, format!("{text}\n")),
        Format::Json => respond(StatusCode::OK, "application/json", format!("{{\"message\":\"{text}\"}}\n")),
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
pub fn lines(answers: Answers) -> Answer {
    let mut response = Response::new(Either::Right(answers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Says whether the connection stays for another request.
pub fn say_whether_it_stays(response: &mut Answer, stays: bool) {
    let value = HeaderValue::from_static(if stays { "keep-alive" } else { "close" });
    response.headers_mut().insert(CONNECTION, value);
}
