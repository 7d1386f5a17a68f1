// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages inside the messages of a WebSocket: a client sends JSON arrays of strings, and gets `o`, `a["message"]` and `h`.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::websocket::pipe::Frame;

/// A message of the client with what is inside of it, in bytes. The client has credits for no more until it is whole, which
/// no setting changes.
pub const MAX_FROM_CLIENT: usize = zhttp::INITIAL_BODY;
/// Proxies in between close what is silent for longer; clients of SockJS count on no other time.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// Both directions of one WebSocket.
#[derive(Debug)]
pub struct Framing {
    from_client: BytesMut,
    from_backend: BytesMut,
    /// Bytes that a message of the backend may have.
    most: usize,
    heartbeat_at: Option<Instant>,
}

/// The connection can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message of the client is not what it must be.
    #[error("a SockJS client must send JSON arrays of strings")]
    NotStrings,
    /// A message of the client has no end.
    #[error("a SockJS client may send {MAX_FROM_CLIENT} bytes at once")]
    FromClient,
    /// A message of the backend has no end.
    #[error("a message for a SockJS client may have {0} bytes (backend_max_message_size)")]
    FromBackend(usize),
}

/// The messages of the client in a frame that ends one, with the bytes that they came in.
pub type Messages = (Vec<Bytes>, usize);

impl Framing {
    /// For a WebSocket that begins. Messages of the backend may have `most` bytes.
    pub fn new(most: usize) -> Self {
        Framing { from_client: BytesMut::new(), from_backend: BytesMut::new(), most, heartbeat_at: None }
    }

    /// The first frame for the client.
    pub fn open(&mut self, now: Instant) -> Frame {
        self.heartbeat_at = Some(now + HEARTBEAT);
        Frame::message(false, Bytes::from_static(b"o"))
    }

    /// Takes in a piece of a message of the client; gives the messages inside once it is whole.
    ///
    /// # Errors
    /// It is not what it must be.
    pub fn take(&mut self, body: &[u8], more: bool) -> Result<Option<Messages>, FramingError> {
        self.from_client.extend_from_slice(body);
        if self.from_client.len() > MAX_FROM_CLIENT || (more && self.from_client.len() == MAX_FROM_CLIENT) {
            return Err(FramingError::FromClient);
        }
        if more {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.from_client);
        // Some clients send nothing to see whether it arrives.
        if whole.is_empty() {
            return Ok(Some((Vec::new(), 0)));
        }
        let messages = strings(&whole).ok_or(FramingError::NotStrings)?;
        Ok(Some((messages, whole.len())))
    }

    /// Takes in a piece of a message of the backend; gives what the client gets once it is whole.
    ///
    /// # Errors
    /// It is too large.
    pub fn wrap(&mut self, body: &[u8], more: bool) -> Result<Option<Frame>, FramingError> {
        if self.from_backend.len() + body.len() > self.most {
            return Err(FramingError::FromBackend(self.most));
        }
        self.from_backend.extend_from_slice(body);
        if more {
            return Ok(None);
        }
        Ok(Some(wrapped(&std::mem::take(&mut self.from_backend))))
    }

    /// When a heartbeat is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.heartbeat_at
    }

    /// A heartbeat, if it is due.
    pub fn heartbeat(&mut self, now: Instant) -> Option<Frame> {
        self.heartbeat_at.take_if(|at| *at <= now)?;
        self.heartbeat_at = Some(now + HEARTBEAT);
        Some(Frame::message(false, Bytes::from_static(b"h")))
    }
}

/// The messages in a JSON array of strings. Browsers write half of a character that was cut as they have it.
pub fn strings(document: &[u8]) -> Option<Vec<Bytes>> {
    let strings: Vec<String> = serde_json::from_slice(document).ok().or_else(|| {
        // Only what is no JSON by the letter is read the long way.
        serde_json::from_value(grip::json::parse(document).ok()?).ok()
    })?;
    Some(strings.into_iter().map(Bytes::from).collect())
}

/// One message, as a client gets it. Bytes that are no text are replaced, since JSON has none.
pub fn wrapped(message: &[u8]) -> Frame {
    let text = String::from_utf8_lossy(message);
    let body = serde_json::json!([text]).to_string();
    Frame::message(false, format!("a{body}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    #[test]
    fn messages_of_a_client_are_taken_out_whatever_pieces_they_come_in() {
        let mut framing = Framing::new(MOST);
        assert_eq!(framing.take(br#"["a", "#, true), Ok(None));
        assert_eq!(framing.take(br#""b\n"]"#, false), Ok(Some((vec!["a".into(), "b\n".into()], 12))));
        assert_eq!(framing.take(b"", false), Ok(Some((vec![], 0))));
        assert_eq!(framing.take(br#"["x\ud83d"]"#, false), Ok(Some((vec!["x\u{fffd}".into()], 11))));
        for wrong in [&b"hello"[..], b"[1]", b"{}", b"\"a\"", b"[\"a\""] {
            assert_eq!(framing.take(wrong, false), Err(FramingError::NotStrings));
        }
    }

    #[test]
    fn messages_without_end_are_refused() {
        let mut framing = Framing::new(MOST);
        assert_eq!(framing.take(&vec![b'x'; MAX_FROM_CLIENT], true), Err(FramingError::FromClient));
        assert_eq!(framing.wrap(&[b'x'; MOST], true), Ok(None));
        assert_eq!(framing.wrap(b"x", true), Err(FramingError::FromBackend(MOST)));
    }

    #[test]
    fn a_message_of_the_backend_is_one_frame() {
        let mut framing = Framing::new(MOST);
        assert_eq!(framing.wrap(b"say \"", true), Ok(None));
        let frame = framing.wrap(b"hi\"\n", false).unwrap().unwrap();
        assert_eq!(frame, Frame::message(false, Bytes::from_static(br#"a["say \"hi\"\n"]"#)));
    }

    #[test]
    fn heartbeats_begin_with_the_connection() {
        let (mut framing, now) = (Framing::new(MOST), Instant::now());
        assert_eq!(framing.next_due(), None);
        framing.open(now);
        assert_eq!(framing.heartbeat(now + HEARTBEAT / 2), None);
        assert!(framing.heartbeat(now + HEARTBEAT).is_some());
        assert_eq!(framing.heartbeat(now + HEARTBEAT), None);
    }
}
