// SPDX-License-Identifier: AGPL-3.0-or-later
//! One WebSocket.

use bytes::Bytes;
use wire::websocket::Header as FrameHeader;
use wire::websocket::{Event as Read, MAX_CONTROL, MAX_HEADER, Message, Opcode, Reader, Role, Violation, write_close};
use zhttp::{Kind, Packet};

use super::debt::Debt;
use super::deflate::{Inflater, without_tail};
use super::lanes::{Lane, Lanes, Part};
use super::{extension, handshake};
use crate::client::output::{Header, Output, Piece};
use crate::context::Context;
use crate::http1::SharedBody;
use crate::http1::refusal::Refusal;
use crate::http1::response::BadResponse;
use crate::transplant::record::{FrameRecord, RecordError, WebSocketRecord};

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
    // Which is soon, and a pointer is a third of a vector.
    #[allow(clippy::box_collection)]
    key: Option<Box<Vec<u8>>>,
    reader: Reader,
    /// The client's compressed message that has begun; a connection between two messages has none.
    inflater: Option<Box<(Message, Inflater)>>,
    /// What it has had us inflate for nothing.
    debt: Debt,
    /// Messages for the client are compressed.
    deflates: bool,
    /// The server is within a message.
    within: bool,
    /// It is one that no successor of it could go on with.
    torn: bool,
    /// There, and in use, once a second server has spoken.
    lanes: Option<Lanes<Frame>>,
    close_sent: bool,
    close_received: bool,
}

/// Something for the client, by one of the servers.
#[derive(Debug)]
struct Frame {
    piece: Piece,
    /// Credits that go back when it has left.
    credits: usize,
    /// Nothing follows it.
    close: bool,
}

/// Bytes put into the output, by the lane whose server gets credits for them.
pub type Put = [usize; 2];

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
    /// Pushes are frames already.
    #[error("{0:?} on lane 1, where frames are data")]
    Pushed(Kind),
}

impl WebSocket {
    /// A request with this key has been passed on. With `deflates`, the client has offered compression. Its messages may have
    /// `max_message` bytes.
    pub fn new(exchange: u32, key: &[u8], deflates: bool, max_message: u64) -> Self {
        WebSocket {
            exchange,
            key: Some(Box::new(key.to_vec())),
            reader: Reader::new(Role::Server, max_message, deflates),
            inflater: None,
            debt: Debt::default(),
            deflates,
            within: false,
            torn: false,
            lanes: None,
            close_sent: false,
            close_received: false,
        }
    }

    /// Writes down where it stands, for another process; none within a compressed message of the client.
    pub(crate) fn snapshot(&self) -> Option<WebSocketRecord> {
        if self.inflater.is_some() {
            return None;
        }
        Some(WebSocketRecord {
            exchange: self.exchange,
            key: self.key.as_deref().cloned(),
            reader: self.reader.standing(),
            debt: self.debt.bytes(),
            deflates: self.deflates,
            within: self.within,
            torn: self.torn,
            lanes: self.lanes.as_ref().map(|lanes| lanes.map(Frame::snapshot)),
            close_sent: self.close_sent,
            close_received: self.close_received,
        })
    }

    /// Goes on from there.
    ///
    /// # Errors
    /// The record does not fit together.
    pub(crate) fn restore(record: WebSocketRecord, max_message: u64) -> Result<Self, RecordError> {
        let reader = Reader::new(Role::Server, max_message, record.deflates).at(record.reader);
        Ok(WebSocket {
            exchange: record.exchange,
            key: record.key.map(Box::new),
            reader: reader.ok_or(RecordError::Unfit("message"))?,
            inflater: None,
            debt: Debt::of(record.debt),
            deflates: record.deflates,
            within: record.within,
            torn: record.torn,
            lanes: record.lanes.map(|lanes| lanes.map(Frame::restore)),
            close_sent: record.close_sent,
            close_received: record.close_received,
        })
    }

    /// Whether the server has not answered yet.
    pub fn is_opening(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the server has accepted and neither side has closed.
    pub fn is_open(&self) -> bool {
        !self.is_opening() && !self.close_sent && !self.close_received
    }

    /// Whether the server is within a message that only it can go on with.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Whether the client has said that it closes.
    pub fn is_closing(&self) -> bool {
        self.close_received
    }

    /// Whether the client has been told to close and has not answered.
    pub fn awaits_close(&self) -> bool {
        self.close_sent && !self.close_received
    }

    /// Whether the client is within a compressed message, and all that it has sent of it has been passed on: memory is kept for
    /// what follows.
    pub fn awaits_compressed(&self) -> bool {
        self.inflater.is_some() && !self.has_more()
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
            if !exchange.takes_frames() {
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
        self.debt.settle(&part)?;
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
                let max = cx.config.max_message;
                let begun = self.inflater.get_or_insert_with(|| Box::new((message, Inflater::new(message, max))));
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
    ) -> Result<Put, BadFrame> {
        let len = packet.body.len();
        if self.close_sent {
            // It may have been under way. With two servers, so may a close.
            let again = packet.kind == Kind::Close && self.lanes.is_none();
            return if again { Err(BadFrame::AfterClose) } else { Ok([len, 0]) };
        }
        let (mut message, mut compressed) = (false, false);
        let (opcode, fin) = match packet.kind {
            Kind::Close => return Ok(self.put(Lane::First, Part::Control, Frame::close(packet), output)),
            Kind::Ping | Kind::Pong if len > MAX_CONTROL => return Err(BadFrame::LongControl(len)),
            Kind::Ping => (Opcode::Ping, true),
            Kind::Pong => (Opcode::Pong, true),
            // Says nothing.
            _ if packet.more && len == 0 => return Ok([0, 0]),
            _ => {
                message = true;
                // The first frame says it for the whole message.
                compressed = self.deflates && !self.within;
                let first = if packet.content_type == Some(b"binary") { Opcode::Binary } else { Opcode::Text };
                let opcode = if self.within { Opcode::Continuation } else { first };
                self.within = packet.more;
                // One of the backend comes with its position.
                self.torn = packet.more && packet.ext.at.is_none();
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
        let part = if message { Part::Message { end: fin } } else { Part::Control };
        let frame = Frame { piece: Piece::new(header, content), credits: len, close: false };
        Ok(self.put(Lane::First, part, frame, output))
    }

    /// Puts what a server has pushed into the output: frames as clients get them. `received` packets of the session's own
    /// server have come.
    ///
    /// # Errors
    /// It is no push.
    pub fn on_push(
        &mut self,
        packet: &Packet<'_>,
        body: &SharedBody<'_>,
        received: u32,
        output: &mut Output,
    ) -> Result<Put, BadFrame> {
        let lanes = self.lanes.get_or_insert_with(|| Lanes::new(self.within));
        lanes.wait_for(packet.ext.after);
        let mut put = self.on_received(received, output);
        let frame = match packet.kind {
            Kind::Data => Frame { piece: body.plain().into(), credits: packet.body.len(), close: false },
            Kind::Close => Frame::close(packet),
            Kind::Credit | Kind::KeepAlive => return Ok(put),
            kind => return Err(BadFrame::Pushed(kind)),
        };
        let part = if frame.close { Part::Control } else { Part::Message { end: !packet.more } };
        for (all, more) in put.iter_mut().zip(self.put(Lane::Second, part, frame, output)) {
            *all += more;
        }
        Ok(put)
    }

    /// So many packets of the session's own server have come: pushes may have waited for that.
    pub fn on_received(&mut self, packets: u32, output: &mut Output) -> Put {
        let mut put = [0, 0];
        // Nothing comes before the answer to the handshake.
        if !self.is_opening()
            && let Some(lanes) = &mut self.lanes
        {
            let close_sent = &mut self.close_sent;
            lanes.on_received(packets, &mut |lane, frame| frame.leave(lane, close_sent, output, &mut put));
        }
        put
    }

    /// Whether a message that has been pushed is not complete.
    pub fn is_within_push(&self) -> bool {
        self.lanes.as_ref().is_some_and(|lanes| lanes.is_within())
    }

    fn put(&mut self, lane: Lane, part: Part, frame: Frame, output: &mut Output) -> Put {
        let mut put = [0, 0];
        let close_sent = &mut self.close_sent;
        let mut leave = |lane, frame: Frame| frame.leave(lane, close_sent, output, &mut put);
        match &mut self.lanes {
            Some(lanes) => lanes.put(lane, part, frame, &mut leave),
            None => leave(lane, frame),
        }
        put
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

impl Frame {
    fn snapshot(&self) -> FrameRecord {
        FrameRecord { bytes: self.piece.to_vec(), credits: self.credits as u64, close: self.close }
    }

    fn restore(record: &FrameRecord) -> Self {
        let credits = usize::try_from(record.credits).unwrap_or(usize::MAX);
        Frame { piece: record.bytes.clone().into(), credits, close: record.close }
    }

    /// Without a status 1000 is what clients of Pushpin know.
    fn close(packet: &Packet<'_>) -> Self {
        let mut frame = Vec::new();
        let reason = String::from_utf8_lossy(packet.body);
        write_close(Some((packet.code.unwrap_or(1000), &reason)), None, &mut frame);
        Frame { piece: frame.into(), credits: 0, close: true }
    }

    /// What comes behind a close is left out.
    fn leave(self, lane: Lane, close_sent: &mut bool, output: &mut Output, put: &mut Put) {
        put[lane as usize] += self.credits;
        if !*close_sent {
            *close_sent = self.close;
            output.push(self.piece);
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
