// SPDX-License-Identifier: AGPL-3.0-or-later
//! Compressed content of frames (RFC 7692), as clients get it and as they send it.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use wire::websocket::{Message, Utf8, Violation};

/// What ends a piece of compressed content. The last piece of a message is sent without it.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

thread_local! {
    /// Its tables are large, so each thread has one and begins anew for each piece.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Compresses a piece of a message. Pieces refer to nothing before them, so they are the same for all clients. The last
/// piece of a message is to be sent [without its tail](without_tail).
pub fn deflate(content: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(content.len() / 2 + 64);
    if !content.is_empty() {
        COMPRESS.with_borrow_mut(|compress| {
            compress.reset();
            let mut rest = content;
            loop {
                let before = compress.total_in();
                // An error would mean that the stream is finished, which it never is.
                let _ = compress.compress_vec(rest, &mut out, FlushCompress::Sync);
                rest = &rest[(compress.total_in() - before) as usize..];
                // All is out when room is left.
                if rest.is_empty() && out.len() < out.capacity() {
                    break;
                }
                out.reserve(out.capacity().max(64));
            }
        });
    }
    if !out.ends_with(&TAIL) {
        // Nothing at all is an empty block.
        out.push(0);
        out.extend_from_slice(&TAIL);
    }
    out.into()
}

/// What stands in the last frame of a message.
pub fn without_tail(mut deflated: Bytes) -> Bytes {
    deflated.truncate(deflated.len().saturating_sub(TAIL.len()));
    deflated
}

/// One compressed message of a client. It gives as much as is asked for, however much there is, so a few bytes that become
/// very many take no more memory than others.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
    text: Option<Utf8>,
    max_message: u64,
    /// Bytes that have been given.
    given: u64,
    /// Compressed, and not read yet: no more than has been fed at once.
    input: Vec<u8>,
    read: usize,
    /// The first byte of what follows. Whether there is one tells whether a piece is the last.
    ahead: Option<u8>,
    ended: bool,
    dry: bool,
}

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflated {
    /// The content.
    pub content: Vec<u8>,
    /// Nothing follows before more is fed.
    pub dry: bool,
    /// The message has ended.
    pub end: bool,
    /// Compressed bytes that have been read for it.
    pub read: usize,
}

impl Inflater {
    /// For a message of this kind, whose content may have `max_message` bytes.
    pub fn new(message: Message, max_message: u64) -> Self {
        Inflater {
            state: Decompress::new(false),
            text: (message == Message::Text).then(Utf8::default),
            max_message,
            given: 0,
            input: Vec::new(),
            read: 0,
            ahead: None,
            ended: false,
            dry: true,
        }
    }

    /// Whether nothing is left of what has been fed.
    pub fn is_dry(&self) -> bool {
        self.dry
    }

    /// The message goes on with this; to be called when all before has been taken.
    pub fn feed(&mut self, compressed: &[u8], end: bool) {
        self.input.extend_from_slice(compressed);
        if end {
            self.input.extend_from_slice(&TAIL);
        }
        self.ended = end;
        self.dry = self.input.is_empty() && self.ahead.is_none() && !end;
    }

    /// Gives up to `max` bytes.
    ///
    /// # Errors
    /// It is not compressed content, not text though it should be, or too much.
    pub fn take(&mut self, max: usize) -> Result<Inflated, Violation> {
        let mut content = vec![0; max + 1];
        let (mut len, begun) = (0, self.read);
        if let Some(byte) = self.ahead.take() {
            content[0] = byte;
            len = 1;
        }
        while len <= max {
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let result = self.state.decompress(&self.input[self.read..], &mut content[len..], FlushDecompress::Sync);
            let read = (self.state.total_in() - read) as usize;
            let written = (self.state.total_out() - written) as usize;
            self.read += read;
            len += written;
            match result {
                // Some end a message with a last block; what follows begins anew.
                Ok(Status::StreamEnd) => self.state.reset(false),
                Ok(_) if read == 0 && written == 0 => break,
                Ok(_) => {}
                Err(_) => return Err(Violation::Deflate),
            }
        }
        if len > max {
            self.ahead = Some(content[max]);
        }
        // The byte ahead is part of the message.
        if self.given + len as u64 > self.max_message {
            return Err(Violation::TooLarge(self.max_message));
        }
        content.truncate(len.min(max));
        self.given += content.len() as u64;
        self.dry = self.ahead.is_none();
        let read = self.read - begun;
        if self.dry {
            if self.read < self.input.len() {
                return Err(Violation::Deflate);
            }
            // A client may stay within a message for long.
            self.input = Vec::new();
            self.read = 0;
        }
        let end = self.dry && self.ended;
        if let Some(text) = &mut self.text {
            text.feed(&content)?;
            if end {
                text.finish()?;
            }
        }
        Ok(Inflated { content, dry: self.dry, end, read })
    }
}
