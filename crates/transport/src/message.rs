// SPDX-License-Identifier: AGPL-3.0-or-later
//! A received message part, in a buffer of ours or of libzmq's.

use std::ops::Deref;

use bytes::Bytes;

/// One received message part.
pub struct Message {
    content: Content,
    more: bool,
}

enum Content {
    Direct(Bytes),
    Libzmq(zmq::Message),
}

impl Message {
    pub(crate) fn new(content: Bytes, more: bool) -> Self {
        Message { content: Content::Direct(content), more }
    }

    pub(crate) fn from_libzmq(content: zmq::Message, more: bool) -> Self {
        Message { content: Content::Libzmq(content), more }
    }

    /// Whether another part of the same message follows.
    pub(crate) fn more(&self) -> bool {
        self.more
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Direct(bytes) => bytes,
            Content::Libzmq(message) => message,
        }
    }
}
