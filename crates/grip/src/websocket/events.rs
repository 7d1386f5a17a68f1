// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSocket events as they stand in the bodies of HTTP requests and responses, `application/websocket-events`
//! (WebSocket-over-HTTP, event encoding).
//!
//! ```text
//! event = TYPE CRLF / TYPE SP length CRLF content CRLF     ; length in bytes, hexadecimal
//! ```
//!
//! A proxy writes them for a backend and reads what the backend answers. Bodies are whole when they are read, so whoever
//! collects one bounds it.

use bytes::Bytes;

/// The media type of a body of events.
pub const CONTENT_TYPE: &str = "application/websocket-events";

/// What has happened on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has begun.
    Open,
    /// A message of text, whose bytes are not looked at.
    Text(Bytes),
    /// A message of bytes.
    Binary(Bytes),
    /// Is to be answered.
    Ping(Bytes),
    /// An answer.
    Pong(Bytes),
    /// One side will send nothing more.
    Close(Option<Status>),
    /// It has ended without a close.
    Disconnect,
}

/// Why a WebSocket is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// A code of RFC 6455.
    pub code: u16,
    /// A text, which may be empty.
    pub reason: Bytes,
}

/// Why a body can not be read on. What stands before that place is valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The line of the type has no end.
    #[error("the line of an event, at byte {at}, does not end with CR LF")]
    Unended {
        /// Where the event begins.
        at: usize,
    },
    /// The length is no hexadecimal number.
    #[error(
        "the event at byte {at} has a length that is no hexadecimal number; it must be that of the content in bytes"
    )]
    Length {
        /// Where the event begins.
        at: usize,
    },
}

impl Event {
    /// Content in bytes; that of a close is its code and reason.
    pub fn len(&self) -> usize {
        match self {
            Event::Open | Event::Disconnect | Event::Close(None) => 0,
            Event::Text(body) | Event::Binary(body) | Event::Ping(body) | Event::Pong(body) => body.len(),
            Event::Close(Some(status)) => 2 + status.reason.len(),
        }
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the event to a body. Messages always have a length, other events only with content.
    pub fn write(&self, body: &mut Vec<u8>) {
        match self {
            Event::Open => write(body, "OPEN", &[], false),
            Event::Text(content) => write(body, "TEXT", &[content], true),
            Event::Binary(content) => write(body, "BINARY", &[content], true),
            Event::Ping(content) => write(body, "PING", &[content], false),
            Event::Pong(content) => write(body, "PONG", &[content], false),
            Event::Close(None) => write(body, "CLOSE", &[], false),
            Event::Close(Some(status)) => {
                write(body, "CLOSE", &[&status.code.to_be_bytes(), &status.reason], false);
            }
            Event::Disconnect => write(body, "DISCONNECT", &[], false),
        }
    }

    /// The event of a type, which is case-sensitive. `None` if there is no such type.
    fn read(kind: &[u8], mut content: Bytes) -> Option<Self> {
        Some(match kind {
            b"OPEN" => Event::Open,
            b"TEXT" => Event::Text(content),
            b"BINARY" => Event::Binary(content),
            b"PING" => Event::Ping(content),
            b"PONG" => Event::Pong(content),
            b"CLOSE" => Event::Close(content.first_chunk().copied().map(|code| {
                let reason = content.split_off(2);
                Status { code: u16::from_be_bytes(code), reason }
            })),
            b"DISCONNECT" => Event::Disconnect,
            _ => return None,
        })
    }
}

fn write(body: &mut Vec<u8>, kind: &str, content: &[&[u8]], always_sized: bool) {
    body.extend_from_slice(kind.as_bytes());
    let length: usize = content.iter().map(|part| part.len()).sum();
    if length > 0 || always_sized {
        body.extend_from_slice(format!(" {length:x}\r\n").as_bytes());
        content.iter().for_each(|part| body.extend_from_slice(part));
    }
    body.extend_from_slice(b"\r\n");
}

/// The events of a body, in order. Those of unknown types are left out; after an error nothing follows.
///
/// Content that the end of the body cuts off is taken as it is, because backends exist that count characters instead of
/// bytes; the two bytes behind content are not looked at.
#[derive(Clone, Debug)]
pub struct Events {
    rest: Bytes,
    /// Bytes before `rest`.
    at: usize,
}

impl Events {
    /// Reads a body. Contents share its memory.
    pub fn new(body: Bytes) -> Self {
        Events { rest: body, at: 0 }
    }

    fn skip(&mut self, length: usize) -> Bytes {
        let length = length.min(self.rest.len());
        self.at += length;
        self.rest.split_to(length)
    }

    fn next_of_any_type(&mut self) -> Result<Option<Event>, EventError> {
        let at = self.at;
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n").ok_or(EventError::Unended { at })?;
        let line = self.skip(end);
        self.skip(2);
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            return Ok(Event::read(&line, Bytes::new()));
        };
        let length = hexadecimal(&line[space + 1..]).ok_or(EventError::Length { at })?;
        let content = self.skip(length);
        self.skip(2);
        Ok(Event::read(&line[..space], content))
    }
}

impl Iterator for Events {
    type Item = Result<Event, EventError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.next_of_any_type() {
                Ok(None) => {}
                Ok(Some(event)) => return Some(Ok(event)),
                Err(error) => {
                    self.rest = Bytes::new();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// A number of up to eight digits, which may have space around it and `0x` before it.
fn hexadecimal(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii();
    let digits = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")).unwrap_or(text);
    let digits = match digits.iter().position(|digit| *digit != b'0') {
        Some(first) => &digits[first..],
        None if digits.is_empty() => return None,
        None => return Some(0),
    };
    if digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | (*digit as char).to_digit(16)? as usize))
}

/// The body of these events.
pub fn encode<'a>(events: impl IntoIterator<Item = &'a Event>) -> Bytes {
    let mut body = Vec::new();
    events.into_iter().for_each(|event| event.write(&mut body));
    body.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn read(body: &'static [u8]) -> Result<Vec<Event>, EventError> {
        Events::new(Bytes::from_static(body)).collect()
    }

    fn close(code: u16, reason: &'static str) -> Event {
        Event::Close(Some(Status { code, reason: bytes(reason) }))
    }

    #[test]
    fn events_are_written_as_backends_know_them() {
        for (event, body) in [
            (Event::Open, &b"OPEN\r\n"[..]),
            (Event::Text(bytes("hello")), b"TEXT 5\r\nhello\r\n"),
            (Event::Text(bytes("")), b"TEXT 0\r\n\r\n"),
            (Event::Binary(bytes("0123456789abcdef0")), b"BINARY 11\r\n0123456789abcdef0\r\n"),
            (Event::Ping(bytes("")), b"PING\r\n"),
            (Event::Pong(bytes("pp")), b"PONG 2\r\npp\r\n"),
            (Event::Close(None), b"CLOSE\r\n"),
            (close(1000, "bye"), b"CLOSE 5\r\n\x03\xe8bye\r\n"),
            (Event::Disconnect, b"DISCONNECT\r\n"),
        ] {
            assert_eq!(encode([&event]), body);
            assert_eq!(read(body), Ok(vec![event]));
        }
    }

    #[test]
    fn lengths_are_read_as_leniently_as_backends_write_them() {
        let ten = Ok(vec![Event::Text(bytes("0123456789"))]);
        for body in [
            &b"TEXT A\r\n0123456789\r\n"[..],
            b"TEXT 0xa\r\n0123456789\r\n",
            b"TEXT  0000000000a \r\n0123456789\r\n",
            b"TEXT a\r\n0123456789??",
            b"TEXT a\r\n0123456789",
            b"TEXT ffffffff\r\n0123456789",
        ] {
            assert_eq!(read(body), ten, "{}", body.escape_ascii());
        }
        assert_eq!(read(b"TEXT\r\n"), Ok(vec![Event::Text(bytes(""))]));
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn what_has_no_length_or_no_end_is_refused_with_its_place() {
        let length = Err(EventError::Length { at: 6 });
        for body in [
            &b"OPEN\r\nTEXT zz\r\nx\r\n"[..],
            b"OPEN\r\nTEXT \r\nx\r\n",
            b"OPEN\r\nTEXT 5 6\r\nhello\r\n",
            b"OPEN\r\nTEXT -5\r\nhello\r\n",
            b"OPEN\r\nTEXT 0x\r\n\r\n",
            b"OPEN\r\nTEXT 100000000\r\nhello\r\n",
        ] {
            assert_eq!(read(body), length, "{}", body.escape_ascii());
        }
        assert_eq!(read(b"OPEN\r\nTEXT 5"), Err(EventError::Unended { at: 6 }));
        assert_eq!(read(b"OPEN\n"), Err(EventError::Unended { at: 0 }));
    }

    #[test]
    fn unknown_types_are_left_out_and_a_close_of_one_byte_has_no_status() {
        let body = b"WHATEVER 3\r\n\r\nx\r\nopen\r\nTEXTS\r\nPING\r\nCLOSE 1\r\nx\r\n";
        assert_eq!(read(body), Ok(vec![Event::Ping(bytes("")), Event::Close(None)]));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let body = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            Just(Event::Open),
            Just(Event::Disconnect),
            Just(Event::Close(None)),
            (any::<u16>(), body()).prop_map(|(code, reason)| Event::Close(Some(Status { code, reason }))),
            body().prop_map(Event::Text),
            body().prop_map(Event::Binary),
            body().prop_map(Event::Ping),
            body().prop_map(Event::Pong),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(events in prop::collection::vec(any_event(), 0..20)) {
            let read: Result<Vec<_>, _> = Events::new(encode(&events)).collect();
            prop_assert_eq!(read, Ok(events));
        }

        #[test]
        fn whatever_the_bytes_reading_ends_and_gives_no_more_than_they_are(
            body in prop::collection::vec(prop::sample::select(b"TEXT OPEN 0f\r\nx".to_vec()), 0..200),
        ) {
            let length = body.len();
            let events: Vec<_> = Events::new(body.into()).flatten().collect();
            prop_assert!(events.iter().map(Event::len).sum::<usize>() <= length);
        }
    }
}
