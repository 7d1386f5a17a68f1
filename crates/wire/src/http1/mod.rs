// SPDX-License-Identifier: AGPL-3.0-or-later
//! HTTP/1.1 message syntax and framing (RFC 9112), for both roles.
//!
//! A message is read in two steps: [`parse_request`] or [`parse_response`] gives the head and says how the body is framed,
//! a [`BodyDecoder`] then gives the payload, piece by piece, as slices of what was read. Writing is [`write_request_head`]
//! or [`write_interim_response, write_response_head`] followed by payload, which for a chunked body is put between [`chunk_prefix`] and
//! [`CHUNK_SUFFIX`] and ends with [`LAST_CHUNK`].
//!
//! Reading is strict where two readers could disagree about where a message ends, because that is how requests are
//! smuggled: both length headers at once, several lengths, codings other than `chunked`, whitespace before a colon, folded
//! lines and control bytes are errors. It is lenient where nothing can go wrong: empty lines before a head, a bare LF as
//! line end of a head, a missing `Host`.

mod authority;
mod body;
mod chunked;
mod encode;
mod error;
mod fields;
mod framing;
mod limits;
mod request;
mod response;

pub use body::BodyDecoder;
pub use chunked::{CHUNK_SUFFIX, ChunkPrefix, LAST_CHUNK, chunk_prefix};
pub use encode::{EncodeError, StatusLine, is_token, write_interim_response, write_request_head, write_response_head};
pub use error::{BodyError, HeadError};
pub use fields::{Field, Version, list_contains, parse_length};
pub use framing::{BodyFraming, Decoded};
pub use limits::{Limits, MAX_HEADERS};
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, has_blank_line, parse_response};
