//! One WebSocket.

use bytes::Bytes;
use wire::websocket::Header as FrameHeader;
use wire::websocket::{Event as Read, MAX_CONTROL, MAX_HEADER, Message, Opcode, Reader, Role, Violation, write_close};
use zhttp::{Kind, Packet};

use super::deflate::{Inflater, without_tail};
use super::{extension, handshake};
use crate::client::output::{Header, Output, Piece};
use crate::context::Context;
use crate::http1::SharedBody;
use crate::http1::connection::Refusal;
use crate::http1::response::BadResponse;

/// Message bytes sent in one packet at most.
const MAX_PIECE: usize = 65_536;
/// The same for what was compressed.
const MAX_INFLATED: usize = 16_384;

/// A client's WebSocket, from the request on.
#[derive(Debug)]
pub struct WebSocket {
    /// The slot of its exchange.
    pub exchange: u32,
    /// What the client is to be answered with; `None` once it has been.
    key: Option<Box<[u8]>>,
    reader: Reader,
    /// The client's compressed message that has begun; a connection between two messages has none.
    inflater: Option<Box<(Message, Inflater)>>,
    /// Messages for the client are compressed.
    deflates: bool,
    /// The server is within a message.
    within: bool,
    close_sent: bool,
    close_received: bool,
}

/// What becomes of the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    GoesOn,
    /// Both sides have closed: it ends when the output has left, and the session is over.
    Closed,
    /// The client broke the rules, and has been told; the session is to be cancelled.
    Broken(Violation),
}

/// What a server did that can not be made a frame of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Control frames are short.
    #[error("a control frame of {0} bytes, where {MAX_CONTROL} are the most")]
    LongControl(usize),
    /// Nothing may follow a close.
    #[error("a message after the close")]
    AfterClose,
}

impl WebSocket {
    /// A request with this key has been passed on. With `deflates`, the client has offered compression.
    pub fn new(exchange: u32, key: &[u8], deflates: bool) -> Self {
        WebSocket {
            exchange,
            key: Some(key.into()),
            reader: Reader::new(Role::Server, u64::MAX, deflates),
            inflater: None,
            deflates,
            within: false,
            close_sent: false,
            close_received: false,
        }
    }

    /// Whether the server has not answered yet.
    pub fn is_opening(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the client has said that it closes.
    pub fn is_closing(&self) -> bool {
        self.close_received
    }

    /// Whether the client has been told to close and has not answered.
    pub fn awaits_close(&self) -> bool {
        self.close_sent && !self.close_received
    }

    /// The server accepts. Gives the head for the client.
    ///
    /// # Errors
    /// It has sent what can not be a header.
    pub fn accept(&mut self, packet: &Packet<'_>) -> Result<Vec<u8>, BadResponse> {
        let key = self.key.take().unwrap_or_default();
        Ok(handshake::accepting(packet, &key, self.deflates.then_some(extension::ANSWER))?)
    }

    /// Whether there is more to send on of what the client has sent, besides what has not been used yet.
    pub fn has_more(&self) -> bool {
        self.inflater.as_ref().is_some_and(|begun| !begun.1.is_dry())
    }

    /// Bytes of the client that can be used, besides those that have been read.
    pub fn room(&self, buffered: usize, credits: usize) -> usize {
        // A close needs no credits, and a header must be seen before its payload is.
        (credits.min(MAX_PIECE) + MAX_HEADER + MAX_CONTROL).saturating_sub(buffered)
    }

    /// Sends on what the client has sent, within the credits. Gives how many bytes were used.
    pub fn on_input(&mut self, input: &mut [u8], cx: &mut Context<'_>) -> (usize, Progress) {
        let mut used = 0;
        loop {
            let Some(exchange) = cx.exchanges.get_mut(self.exchange) else { return (input.len(), Progress::GoesOn) };
            if !exchange.has_server() {
                return (used, Progress::GoesOn);
            }
            let credits = exchange.credits() as usize;
            if self.has_more() {
                match self.inflate(credits, cx) {
                    Ok(()) if credits == 0 && self.has_more() => return (used, Progress::GoesOn),
                    Ok(()) => continue,
                    Err(violation) => return (used, self.on_violation(violation, cx.output)),
                }
            }
            let rest = &mut input[used..];
            let part = if self.reader.is_within_frame() { rest.len().min(credits) } else { rest.len() };
            if !self.reader.is_within_frame() && needs_credits(rest) > credits {
                return (used, Progress::GoesOn);
            }
            match self.reader.read(&mut rest[..part]) {
                Ok((0, None)) => return (used, Progress::GoesOn),
                Ok((n, event)) => {
                    used += n;
                    if let Some(event) = event {
                        self.on_event(&event, cx);
                    }
                    if self.close_sent && self.close_received {
                        return (used, Progress::Closed);
                    }
                }
                Err(violation) => return (used, self.on_violation(violation, cx.output)),
            }
        }
    }

    fn on_violation(&mut self, violation: Violation, output: &mut Output) -> Progress {
        self.tell(Some((violation.close_code(), "")), output);
        Progress::Broken(violation)
    }

    /// Sends on a part of a compressed message.
    fn inflate(&mut self, credits: usize, cx: &mut Context<'_>) -> Result<(), Violation> {
        let Some((message, inflater)) = self.inflater.as_deref_mut() else { return Ok(()) };
        let part = inflater.take(credits.min(MAX_INFLATED))?;
        let message = *message;
        if part.end {
            self.inflater = None;
        }
        // Without content and end it says nothing.
        if (part.end || !part.content.is_empty())
            && let Some(exchange) = cx.exchanges.get_mut(self.exchange)
        {
            exchange.send_packet(data(message, &part.content, !part.end), cx.up);
        }
        Ok(())
    }

    fn on_event(&mut self, event: &Read<'_>, cx: &mut Context<'_>) {
        let Some(exchange) = cx.exchanges.get_mut(self.exchange) else { return };
        let packet = match *event {
            Read::Data { compressed: true, message, end, payload, .. } => {
                let begun = self.inflater.get_or_insert_with(|| Box::new((message, Inflater::new(message))));
                begun.1.feed(payload, end);
                return;
            }
            // Says nothing.
            Read::Data { end: false, payload: [], .. } => return,
            Read::Data { message, end, payload, .. } => data(message, payload, !end),
            Read::Ping(body) => Packet { kind: Kind::Ping, body, ..Packet::default() },
            Read::Pong(body) => Packet { kind: Kind::Pong, body, ..Packet::default() },
            Read::Close(status) => {
                self.close_received = true;
                let (code, reason) = status.unzip();
                let body = reason.unwrap_or_default().as_bytes();
                Packet { kind: Kind::Close, code, body, ..Packet::default() }
            }
        };
        exchange.send_packet(packet, cx.up);
    }

    /// Puts what the server has sent into the output; gives the bytes for which it gets credits when they have left.
    ///
    /// # Errors
    /// It can not be made a frame of.
    pub fn on_packet(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        output: &mut Output,
    ) -> Result<usize, BadFrame> {
        let len = packet.body.len();
        if self.close_sent {
            // It may have been under way.
            return if packet.kind == Kind::Close { Err(BadFrame::AfterClose) } else { Ok(len) };
        }
        let (mut message, mut compressed) = (false, false);
        let (opcode, fin) = match packet.kind {
            Kind::Close => {
                // Without a status 1000 is what clients of Pushpin know.
                let reason = String::from_utf8_lossy(packet.body);
                self.tell(Some((packet.code.unwrap_or(1000), &reason)), output);
                return Ok(0);
            }
            Kind::Ping | Kind::Pong if len > MAX_CONTROL => return Err(BadFrame::LongControl(len)),
            Kind::Ping => (Opcode::Ping, true),
            Kind::Pong => (Opcode::Pong, true),
            // Says nothing.
            _ if packet.more && len == 0 => return Ok(0),
            _ => {
                message = true;
                // The first frame says it for the whole message.
                compressed = self.deflates && !self.within;
                let first = if packet.content_type == Some(b"binary") { Opcode::Binary } else { Opcode::Text };
                let opcode = if self.within { Opcode::Continuation } else { first };
                self.within = packet.more;
                (opcode, !packet.more)
            }
        };
        let content = match message && self.deflates {
            true if fin => without_tail(body.deflated()),
            true => body.deflated(),
            false => body.plain(),
        };
        let header = FrameHeader { fin, compressed, ..FrameHeader::whole(opcode) }.encode(content.len());
        // It is shorter than the longest one of HTTP/2 and WebSocket.
        let header = Header::new(&header).unwrap_or_default();
        output.push(Piece::new(header, content));
        Ok(len)
    }

    /// Whether both sides have closed.
    pub fn is_closed(&self) -> bool {
        self.close_sent && self.close_received
    }

    /// Closes towards the client.
    pub fn tell(&mut self, status: Option<(u16, &str)>, output: &mut Output) {
        if !std::mem::replace(&mut self.close_sent, true) {
            let mut frame = Vec::new();
            write_close(status, None, &mut frame);
            output.push(Bytes::from(frame));
        }
    }
}

/// A piece of a message as a packet.
fn data(message: Message, body: &[u8], more: bool) -> Packet<'_> {
    let content_type: &[u8] = if message == Message::Binary { b"binary" } else { b"text" };
    Packet { content_type: Some(content_type), more, body, ..Packet::default() }
}

/// Credits that the frame at the front of `input` needs to be read: pings and pongs are sent on whole.
fn needs_credits(input: &[u8]) -> usize {
    match input {
        [first, second, ..] if matches!(first & 15, 9 | 10) => usize::from(second & 127),
        _ => 0,
    }
}

/// Why a client's frames were refused, for the log.
pub fn refusal(violation: Violation) -> Refusal {
    Refusal { code: violation.close_code(), reason: violation.to_string() }
}
