// SPDX-License-Identifier: AGPL-3.0-or-later
//! How a response begins: the head, and the first of the body. A stream's is sent once and not kept.

use bytes::Bytes;
use grip::cross_origin::CrossOrigin;
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
    /// The same, fit for scripts of other sites.
    pub fn for_others(mut self, cross_origin: Option<&CrossOrigin>) -> Self {
        if let Some(CrossOrigin::Cors(cors)) = cross_origin {
            let missing = cors.missing(self.headers.iter());
            // Values of a request's headers can stand in those of a response; if not, it goes without them.
            if let Some(headers) = self.with(missing.iter().map(|(name, value)| (*name, &**value))) {
                self.headers = headers;
            }
        }
        self
    }

    /// The same, asking proxies in front to pass on each piece at once.
    pub fn unbuffered(mut self) -> Self {
        let missing = grip::unbuffered::missing(self.headers.iter());
        if let Some(headers) = self.with(missing.into_iter()) {
            self.headers = headers;
        }
        self
    }

    fn with<'a>(&'a self, more: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Headers<'static>> {
        let all = self.headers.iter().chain(more);
        let all = all.map(|(name, value)| (name.to_vec().into(), value.to_vec().into())).collect();
        Headers::new(all).ok()
    }

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
