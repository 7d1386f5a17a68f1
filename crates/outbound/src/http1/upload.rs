// SPDX-License-Identifier: AGPL-3.0-or-later
//! What goes to the backend: head and body of the request, as far as they have come from the requester.
//!
//! The first packet's body comes without being asked for; further body only within the window of the session, which is
//! granted again as it is written to the backend. So what waits is bounded.

use std::num::NonZeroUsize;

use wire::http1::{BodyFraming, CHUNK_SUFFIX, LAST_CHUNK, chunk_prefix};

/// The requester breaks its own promises about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// More or fewer bytes than `Content-Length` said.
    #[error("the body is not as long as its Content-Length")]
    Length,
    /// Body after its end.
    #[error("body bytes after the end of the body")]
    AfterEnd,
}

/// Bytes on their way to the backend.
#[derive(Debug)]
pub struct Upload {
    out: Vec<u8>,
    written: usize,
    framing: Framing,
    /// All of the request is in `out` or has been written.
    complete: bool,
    /// The backend may have seen some of it.
    touched: bool,
    /// `out` begins with the first byte of the request.
    whole: bool,
    /// Bytes at the end of `out` that take up room in the window.
    counted: usize,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked,
}

impl Upload {
    /// Begins with the head, framed as it says, and the body of the first packet.
    pub fn start(head: Vec<u8>, framing: BodyFraming, body: &[u8], more: bool) -> Result<Self, UploadError> {
        let framing = match framing {
            BodyFraming::Length(length) => Framing::Length(length),
            BodyFraming::None => Framing::Length(0),
            BodyFraming::Chunked | BodyFraming::UntilClose => Framing::Chunked,
        };
        let mut upload =
            Upload { out: head, written: 0, framing, complete: false, touched: false, whole: true, counted: 0 };
        upload.append(body, more)?;
        Ok(upload)
    }

    /// Takes further body from the requester.
    pub fn push(&mut self, body: &[u8], more: bool) -> Result<(), UploadError> {
        if self.complete {
            return Err(UploadError::AfterEnd);
        }
        self.counted += body.len();
        self.append(body, more)
    }

    fn append(&mut self, body: &[u8], more: bool) -> Result<(), UploadError> {
        match &mut self.framing {
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(body.len() as u64).ok_or(UploadError::Length)?;
                if !more && *remaining > 0 {
                    return Err(UploadError::Length);
                }
                self.out.extend_from_slice(body);
            }
            Framing::Chunked => {
                if let Some(length) = NonZeroUsize::new(body.len()) {
                    self.out.extend_from_slice(chunk_prefix(length).as_slice());
                    self.out.extend_from_slice(body);
                    self.out.extend_from_slice(CHUNK_SUFFIX);
                }
                if !more {
                    self.out.extend_from_slice(LAST_CHUNK);
                }
            }
        }
        self.complete = !more;
        Ok(())
    }

    /// What is to be written next.
    pub fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Takes note of what was written. Gives the bytes that no longer take up room in the window.
    pub fn wrote(&mut self, bytes: usize) -> usize {
        self.written += bytes;
        self.touched |= bytes > 0;
        let left = self.out.len() - self.written;
        let passed = self.counted.saturating_sub(left);
        self.counted -= passed;
        // A complete request stays here, in case it has to be sent again; see `rewind`.
        if !self.complete && left == 0 {
            self.out.clear();
            self.written = 0;
            self.whole = false;
        }
        passed
    }

    /// Whether the whole request has been written.
    pub fn is_finished(&self) -> bool {
        self.complete && self.written == self.out.len()
    }

    /// Whether the whole request is here, so that it can be sent on a connection that may turn out to be dead.
    pub fn is_whole(&self) -> bool {
        self.complete && self.whole
    }

    /// Whether no byte of it has been written.
    pub fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Starts again from the first byte. Only for requests that are [whole](Self::is_whole).
    pub fn rewind(&mut self) {
        debug_assert!(self.is_whole());
        self.written = 0;
        self.touched = false;
    }

    /// Lets go of what was written: an answer has begun to come, so the request will not be sent again.
    pub fn forget_written(&mut self) {
        if self.is_finished() {
            self.discard();
        }
    }

    /// The backend takes no more; what is left is dropped.
    pub fn give_up(&mut self) {
        self.discard();
        self.complete = true;
    }

    fn discard(&mut self) {
        self.out = Vec::new();
        self.written = 0;
        self.whole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(framing: BodyFraming, body: &[u8], more: bool) -> Upload {
        Upload::start(b"HEAD".to_vec(), framing, body, more).unwrap()
    }

    #[test]
    fn a_complete_request_can_be_sent_again() {
        let mut upload = start(BodyFraming::Length(3), b"abc", false);
        assert_eq!(upload.wrote(5), 0);
        assert_eq!(upload.pending(), b"bc");
        upload.wrote(2);
        assert!(upload.is_finished());
        assert!(upload.is_whole() && !upload.is_untouched());
        upload.rewind();
        assert!(upload.is_untouched());
        assert_eq!(upload.pending(), b"HEADabc");
    }

    #[test]
    fn what_was_let_go_of_can_not_be_sent_again() {
        let mut given_up = start(BodyFraming::Length(3), b"abc", false);
        given_up.give_up();
        assert!(!given_up.is_whole() && given_up.is_finished());
        let mut forgotten = start(BodyFraming::Length(3), b"abc", false);
        forgotten.wrote(7);
        forgotten.forget_written();
        assert!(!forgotten.is_whole());
        let mut streamed = start(BodyFraming::Chunked, b"", true);
        streamed.wrote(4);
        streamed.push(b"end", false).unwrap();
        assert!(!streamed.is_whole());
    }

    #[test]
    fn only_what_was_granted_takes_up_the_window_until_it_is_written() {
        let mut upload = start(BodyFraming::Chunked, &[b'x'; 5000], true);
        assert_eq!(upload.wrote(upload.pending().len()), 0);
        upload.push(&[b'y'; 499], true).unwrap();
        upload.push(b"z", true).unwrap();
        assert_eq!(upload.wrote(upload.pending().len()), 500);
        assert_eq!(upload.pending(), b"");
    }

    #[test]
    fn nothing_is_given_back_before_it_is_written() {
        let mut upload = start(BodyFraming::Length(900), b"", true);
        upload.push(&[b'y'; 800], true).unwrap();
        assert_eq!(upload.wrote(4 + 499), 499);
        assert_eq!(upload.wrote(1), 1);
    }

    #[test]
    fn a_body_of_another_length_than_declared_is_refused() {
        let mut upload = start(BodyFraming::Length(3), b"ab", true);
        assert_eq!(upload.push(b"cd", false), Err(UploadError::Length));
        let mut upload = start(BodyFraming::Length(3), b"ab", true);
        assert_eq!(upload.push(b"", false), Err(UploadError::Length));
    }

    #[test]
    fn body_after_the_end_is_refused() {
        let mut upload = start(BodyFraming::Length(0), b"", false);
        assert_eq!(upload.push(b"", false), Err(UploadError::AfterEnd));
    }

    #[test]
    fn chunks_end_with_the_last_chunk() {
        let mut upload = start(BodyFraming::Chunked, b"ab", true);
        upload.push(b"c", false).unwrap();
        assert_eq!(upload.pending(), b"HEAD2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
        upload.wrote(upload.pending().len());
        assert!(upload.is_finished());
    }
}
