// SPDX-License-Identifier: AGPL-3.0-or-later
//! How bodies are framed, and what is found of one.

use serde::{Deserialize, Serialize};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyFraming {
    /// There is no body, and no field says so.
    None,
    /// `Content-Length`: this many bytes, possibly 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends where the connection does. Only for responses.
    UntilClose,
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are dealt with: payload and what frames it.
    pub consumed: usize,
    /// Payload, a slice of the input.
    pub payload: &'a [u8],
}
