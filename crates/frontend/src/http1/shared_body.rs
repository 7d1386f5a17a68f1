// SPDX-License-Identifier: AGPL-3.0-or-later
//! The body of one packet, framed as clients get it.
//!
//! A packet for 128 sessions is framed once. Chunk and plain body are slices of the same buffer.

use std::cell::OnceCell;
use std::num::NonZeroUsize;

use bytes::Bytes;
use wire::http1::{CHUNK_SUFFIX, chunk_prefix};

use crate::websocket::deflate::deflate;

/// The body of a packet, framed when it is first asked for.
pub struct SharedBody<'a> {
    body: &'a [u8],
    framed: OnceCell<Framed>,
    deflated: OnceCell<Bytes>,
}

struct Framed {
    /// As one chunk: prefix, body, suffix.
    chunk: Bytes,
    prefix: usize,
}

impl<'a> SharedBody<'a> {
    /// Of the body of a received packet.
    pub fn new(body: &'a [u8]) -> Self {
        SharedBody { body, framed: OnceCell::new(), deflated: OnceCell::new() }
    }

    /// As one chunk. An empty body is no chunk at all, since that would end the response.
    pub fn chunk(&self) -> Bytes {
        self.framed().map_or_else(Bytes::new, |framed| framed.chunk.clone())
    }

    /// As it is.
    pub fn plain(&self) -> Bytes {
        self.framed()
            .map_or_else(Bytes::new, |framed| framed.chunk.slice(framed.prefix..framed.prefix + self.body.len()))
    }

    /// Compressed for WebSockets, as a piece of a message.
    pub fn deflated(&self) -> Bytes {
        self.deflated.get_or_init(|| deflate(self.body)).clone()
    }

    fn framed(&self) -> Option<&Framed> {
        let len = NonZeroUsize::new(self.body.len())?;
        Some(self.framed.get_or_init(|| {
            let prefix = chunk_prefix(len);
            let prefix = prefix.as_slice();
            let mut chunk = Vec::with_capacity(prefix.len() + len.get() + CHUNK_SUFFIX.len());
            for part in [prefix, self.body, CHUNK_SUFFIX] {
                chunk.extend_from_slice(part);
            }
            Framed { chunk: chunk.into(), prefix: prefix.len() }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_framings_are_made_of_one_buffer() {
        let body = SharedBody::new(b"hello");
        assert_eq!((&body.chunk()[..], &body.plain()[..]), (&b"5\r\nhello\r\n"[..], &b"hello"[..]));
        assert_eq!(body.chunk()[3..].as_ptr(), body.plain().as_ptr());
    }

    #[test]
    fn it_is_compressed_once() {
        let body = SharedBody::new(b"hello");
        assert_eq!(body.deflated().as_ptr(), body.deflated().as_ptr());
    }

    #[test]
    fn an_empty_body_is_no_chunk() {
        let body = SharedBody::new(b"");
        assert!(body.chunk().is_empty() && body.plain().is_empty());
    }
}
