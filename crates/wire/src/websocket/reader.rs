// SPDX-License-Identifier: AGPL-3.0-or-later
//! From bytes to messages, in whatever pieces they come.

use serde::{Deserialize, Serialize};

use super::close;
use super::header::{Header, Opcode, mask};
use super::{Role, Utf8, Violation};

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of a message.
    Data {
        /// What the message is.
        message: Message,
        /// The piece is the first of its message.
        start: bool,
        /// The piece is the last of its frame.
        frame_end: bool,
        /// The piece is the last of its message.
        end: bool,
        /// The message is compressed; then its text has not been checked.
        compressed: bool,
        /// The content, which may be empty.
        payload: &'a [u8],
    },
    /// Is to be answered by [`Event::Pong`]'s frame with the same content.
    Ping(&'a [u8]),
    /// An answer to a ping, or a sign of life.
    Pong(&'a [u8]),
    /// Nothing more will come. Status and reason, if there are any.
    Close(Option<(u16, &'a str)>),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// Bytes that compressed content may take, though it is empty: some blocks that say nothing.
const EMPTY_DEFLATED: u64 = 64;

/// Reads what one side of a connection sends. Holds no payload: what it needs whole (headers, control frames) must stand in
/// the caller's buffer, 139 bytes at most.
#[derive(Debug)]
pub struct Reader {
    role: Role,
    max_message: u64,
    deflate: bool,
    /// The frame whose payload is being read.
    frame: Option<Frame>,
    /// The message that has begun and not ended.
    message: Option<Begun>,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Frame {
    fin: bool,
    key: Option<[u8; 4]>,
    /// Payload bytes read.
    read: u64,
    /// Payload bytes to come.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    kind: Message,
    compressed: bool,
    /// A piece has been passed on.
    started: bool,
    /// Bytes of all its frames so far, as they are on the wire.
    size: u64,
    utf8: Utf8,
}

/// Where a [`Reader`] stands, for another process that reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    frame: Option<Frame>,
    message: Option<Begun>,
    closed: bool,
}

impl Reader {
    /// A reader for what the other side sends to us in this role. A message may have `max_message` bytes. With `deflate`,
    /// messages may be compressed: then that is for the content, which is not known here, and what is on the wire may be a
    /// fourth more, as content can be that does not get smaller.
    pub fn new(role: Role, max_message: u64, deflate: bool) -> Self {
        Reader { role, max_message, deflate, frame: None, message: None, closed: false }
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        Standing { frame: self.frame, message: self.message, closed: self.closed }
    }

    /// Goes on where another one stands; none if that can not be.
    #[must_use]
    pub fn at(self, Standing { frame, message, closed }: Standing) -> Option<Self> {
        let fits = message.is_none_or(|begun| begun.utf8.is_sound()) && (frame.is_none() || message.is_some());
        fits.then_some(Reader { frame, message, closed, ..self })
    }

    /// Whether a close frame has come. What comes after it is ignored.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a frame has begun whose payload has not come whole.
    pub fn is_within_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Whether the other side is within a message.
    pub fn is_within_message(&self) -> bool {
        self.message.is_some()
    }

    /// Takes bytes off the front of `input`: gives how many have been used, and what they mean. To be called again with the
    /// rest until nothing is used; then more bytes are needed.
    ///
    /// # Errors
    /// The other side has done what it may not. The connection is to be closed with [`Violation::close_code`].
    pub fn read<'a>(&mut self, input: &'a mut [u8]) -> Result<(usize, Option<Event<'a>>), Violation> {
        if self.closed {
            return Ok((input.len(), None));
        }
        if self.frame.is_some() {
            return self.read_payload(input);
        }
        let Some((header, length, used)) = Header::decode(input)? else { return Ok((0, None)) };
        self.check_mask(&header)?;
        if header.opcode.is_control() {
            if header.compressed {
                return Err(Violation::ReservedBit);
            }
            // At most 125 bytes.
            return self.read_control(&header, input, used, used + length as usize);
        }
        self.begin_frame(&header, length)?;
        if length == 0 {
            let (_, event) = self.read_payload(&mut [])?;
            return Ok((used, event));
        }
        Ok((used, None))
    }

    fn check_mask(&self, header: &Header) -> Result<(), Violation> {
        match (self.role, header.key) {
            (Role::Server, None) => Err(Violation::Unmasked),
            (Role::Client, Some(_)) => Err(Violation::Masked),
            _ => Ok(()),
        }
    }

    fn read_control<'a>(
        &mut self,
        header: &Header,
        input: &'a mut [u8],
        from: usize,
        to: usize,
    ) -> Result<(usize, Option<Event<'a>>), Violation> {
        let Some(payload) = input.get_mut(from..to) else { return Ok((0, None)) };
        if let Some(key) = header.key {
            mask(payload, key, 0);
        }
        let event = match header.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong(payload),
            _ => {
                self.closed = true;
                Event::Close(close::parse(payload)?)
            }
        };
        Ok((to, Some(event)))
    }

    fn begin_frame(&mut self, header: &Header, length: u64) -> Result<(), Violation> {
        let kind = match header.opcode {
            Opcode::Text => Some(Message::Text),
            Opcode::Binary => Some(Message::Binary),
            _ => None,
        };
        let message = match (kind, &mut self.message) {
            (Some(kind), begun @ None) => {
                if header.compressed && !self.deflate {
                    return Err(Violation::ReservedBit);
                }
                let compressed = header.compressed;
                begun.insert(Begun { kind, compressed, started: false, size: 0, utf8: Utf8::default() })
            }
            (Some(_), Some(_)) => return Err(Violation::Interleaved),
            (None, None) => return Err(Violation::Continuation),
            (None, Some(_)) if header.compressed => return Err(Violation::ReservedBit),
            (None, Some(begun)) => begun,
        };
        message.size = message.size.saturating_add(length);
        let overhead = if message.compressed { self.max_message / 4 + EMPTY_DEFLATED } else { 0 };
        if message.size > self.max_message.saturating_add(overhead) {
            return Err(Violation::TooLarge(self.max_message));
        }
        self.frame = Some(Frame { fin: header.fin, key: header.key, read: 0, left: length });
        Ok(())
    }

    /// Reads what is there of the payload of the frame that has begun.
    fn read_payload<'a>(&mut self, input: &'a mut [u8]) -> Result<(usize, Option<Event<'a>>), Violation> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok((0, None)) };
        let used = usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
        if used == 0 && frame.left > 0 {
            return Ok((0, None));
        }
        let payload = &mut input[..used];
        if let Some(key) = frame.key {
            mask(payload, key, frame.read);
        }
        frame.read += used as u64;
        frame.left -= used as u64;
        let frame_end = frame.left == 0;
        let end = frame_end && frame.fin;
        let checked = message.kind == Message::Text && !message.compressed;
        if checked {
            message.utf8.feed(payload)?;
            if end {
                message.utf8.finish()?;
            }
        }
        let start = !std::mem::replace(&mut message.started, true);
        let (kind, compressed) = (message.kind, message.compressed);
        if frame_end {
            self.frame = None;
        }
        if end {
            self.message = None;
        }
        Ok((used, Some(Event::Data { message: kind, start, frame_end, end, compressed, payload })))
    }
}
