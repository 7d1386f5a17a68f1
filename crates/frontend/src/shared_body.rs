//! The body of one packet, as the bytes that clients get.
//!
//! A packet for 128 sessions is framed once for all of them that use the same framing.

use std::cell::OnceCell;
use std::num::NonZeroUsize;

use bytes::Bytes;
use wire::http1::{CHUNK_SUFFIX, chunk_prefix};

/// The body of a packet, framed when it is first asked for.
pub struct SharedBody<'a> {
    body: &'a [u8],
    chunk: OnceCell<Bytes>,
    plain: OnceCell<Bytes>,
}

impl<'a> SharedBody<'a> {
    /// Of the body of a received packet.
    pub fn new(body: &'a [u8]) -> Self {
        SharedBody { body, chunk: OnceCell::new(), plain: OnceCell::new() }
    }

    /// As one chunk. An empty body is no chunk at all, since that would end the response.
    pub fn chunk(&self) -> Bytes {
        self.chunk
            .get_or_init(|| {
                let Some(len) = NonZeroUsize::new(self.body.len()) else { return Bytes::new() };
                let mut chunk = Vec::with_capacity(self.body.len() + 20);
                chunk.extend_from_slice(chunk_prefix(len).as_slice());
                chunk.extend_from_slice(self.body);
                chunk.extend_from_slice(CHUNK_SUFFIX);
                chunk.into()
            })
            .clone()
    }

    /// As it is.
    pub fn plain(&self) -> Bytes {
        self.plain.get_or_init(|| Bytes::copy_from_slice(self.body)).clone()
    }
}
