//! How a response begins: the head, and the first of the body. A stream's is sent once and not kept.

use bytes::Bytes;
use grip::head::Reason;
use grip::instruct::Response;
use grip::{Headers, StatusCode};

/// Status and headers.
#[derive(Debug, PartialEq)]
pub struct Head {
    /// Status.
    pub code: StatusCode,
    /// Status text.
    pub reason: Reason<'static>,
    /// Headers without those that the frontend makes.
    pub headers: Headers<'static>,
}

impl Head {
    /// The head of an instruct's response.
    pub fn of(response: &Response<'_>) -> Self {
        Head {
            code: response.code,
            reason: response.reason.clone().into_owned(),
            headers: response.headers.clone().into_owned(),
        }
    }
}

/// A head and the body behind it.
#[derive(Debug, PartialEq)]
pub struct Opening {
    /// The head.
    pub head: Head,
    /// The body: how a stream begins, or all of a response.
    pub body: Bytes,
}
