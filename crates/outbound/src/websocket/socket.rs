// SPDX-License-Identifier: AGPL-3.0-or-later
//! One WebSocket to a backend.

use wire::websocket::{Event, Header, MAX_CONTROL, Message, Opcode, Reader, Role, Violation, mask, write_close};
use zhttp::{Kind, Packet};

/// Payload of a frame that is passed on in one packet, if the requester looks only at the first packet of a message, in bytes.
const MAX_WHOLE: usize = 32_768;
/// Body bytes of a refusal that are passed on.
pub const MAX_REFUSAL: usize = 100_000;

/// The frames of one connection.
#[derive(Debug)]
pub struct Socket {
    key: Box<str>,
    /// The backend has granted it.
    open: bool,
    /// The body of an answer that refuses it.
    refusal: Vec<u8>,
    reader: Reader,
    /// To be written.
    out: Vec<u8>,
    written: usize,
    /// Bytes of it that take up room in the requester's window.
    counted: usize,
    /// The requester is within a message.
    within: bool,
    close_sent: bool,
    close_received: bool,
    /// Frames are passed on whole, since the requester takes their first packet for all: it looks there for a prefix. The most credits
    /// that it has ever given.
    whole: Option<usize>,
}

/// What a requester may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Control frames are short.
    #[error("a control frame of {0} bytes, where {MAX_CONTROL} are the most")]
    LongControl(usize),
    /// Nothing may follow a close.
    #[error("a packet after the close")]
    AfterClose,
}

/// What was found in the bytes of the backend.
pub struct Found<'a> {
    /// How many bytes are dealt with.
    pub consumed: usize,
    /// What is to be told to the requester.
    pub packet: Option<Packet<'a>>,
}

impl Socket {
    /// One that has been asked for with this key. `whole`: its requester, Pushpin's proxy, finds prefixes and control messages only where
    /// a packet has all of a frame, as zurl's have.
    pub fn new(key: &str, whole: bool) -> Self {
        Socket {
            key: key.into(),
            open: false,
            refusal: Vec::new(),
            reader: Reader::new(Role::Client, u64::MAX, false),
            out: Vec::new(),
            written: 0,
            counted: 0,
            within: false,
            close_sent: false,
            close_received: false,
            whole: whole.then_some(0),
        }
    }

    /// What was asked for.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The backend has granted it.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Whether frames may be sent.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Adds to the body of a refusal; `false` if it is too large.
    pub fn refuse(&mut self, body: &[u8]) -> bool {
        self.refusal.extend_from_slice(body);
        self.refusal.len() <= MAX_REFUSAL
    }

    /// The body of a refusal, so far.
    pub fn refusal(&self) -> &[u8] {
        &self.refusal
    }

    /// Makes a frame of what the requester has sent.
    ///
    /// # Errors
    /// It can not be one.
    pub fn push(&mut self, packet: &Packet<'_>, key: [u8; 4]) -> Result<(), FrameError> {
        if self.close_sent {
            return Err(FrameError::AfterClose);
        }
        let len = packet.body.len();
        let (opcode, fin) = match packet.kind {
            Kind::Close => {
                self.close_sent = true;
                let reason = String::from_utf8_lossy(packet.body);
                write_close(packet.code.map(|code| (code, &*reason)), Some(key), &mut self.out);
                return Ok(());
            }
            Kind::Ping | Kind::Pong if len > MAX_CONTROL => return Err(FrameError::LongControl(len)),
            Kind::Ping => (Opcode::Ping, true),
            Kind::Pong => (Opcode::Pong, true),
            // Says nothing.
            _ if packet.more && len == 0 => return Ok(()),
            _ => {
                let first = if packet.content_type == Some(b"binary") { Opcode::Binary } else { Opcode::Text };
                let opcode = if self.within { Opcode::Continuation } else { first };
                self.within = packet.more;
                (opcode, !packet.more)
            }
        };
        self.out.extend_from_slice(&Header { opcode, fin, compressed: false, key: Some(key) }.encode(len));
        let at = self.out.len();
        self.out.extend_from_slice(packet.body);
        mask(&mut self.out[at..], key, 0);
        self.counted += len;
        Ok(())
    }

    /// Closes because of what the backend has done.
    pub fn close_for(&mut self, violation: Violation, key: [u8; 4]) {
        if !std::mem::replace(&mut self.close_sent, true) {
            write_close(Some((violation.close_code(), "")), Some(key), &mut self.out);
        }
    }

    /// What is to be written.
    pub fn pending(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// Takes note of what was written. Gives the bytes that no longer take up room in the window.
    pub fn wrote(&mut self, bytes: usize) -> usize {
        self.written += bytes;
        let left = self.out.len() - self.written;
        let passed = self.counted.saturating_sub(left);
        self.counted -= passed;
        if left == 0 {
            // An idle connection keeps no buffer.
            self.out = Vec::new();
            self.written = 0;
        }
        passed
    }

    /// Reads what the backend has sent, as far as the credits go. To be called again with the rest until nothing is used.
    ///
    /// # Errors
    /// The backend has broken the rules.
    pub fn read<'a>(&mut self, input: &'a mut [u8], credits: usize) -> Result<Found<'a>, Violation> {
        self.whole = self.whole.map(|most| most.max(credits));
        let part = if self.reader.is_within_frame() { input.len().min(credits) } else { input.len() };
        if !self.reader.is_within_frame() && (needs_credits(input) > credits || self.waits_for_whole(input, credits)) {
            return Ok(Found { consumed: 0, packet: None });
        }
        let (consumed, event) = self.reader.read(&mut input[..part])?;
        let packet = match event {
            // Says nothing.
            None | Some(Event::Data { end: false, payload: [], .. }) => None,
            Some(Event::Data { message, end, payload, .. }) => {
                let content_type: &[u8] = if message == Message::Binary { b"binary" } else { b"text" };
                Some(Packet { content_type: Some(content_type), more: !end, body: payload, ..Packet::default() })
            }
            Some(Event::Ping(body)) => Some(Packet { kind: Kind::Ping, body, ..Packet::default() }),
            Some(Event::Pong(body)) => Some(Packet { kind: Kind::Pong, body, ..Packet::default() }),
            Some(Event::Close(status)) => {
                self.close_received = true;
                let (code, reason) = status.unzip();
                let body = reason.unwrap_or_default().as_bytes();
                Some(Packet { kind: Kind::Close, code, body, ..Packet::default() })
            }
        };
        Ok(Found { consumed, packet })
    }

    /// Whether the frame at the front of `input` is to be read further, so that it is passed on whole.
    pub fn lacks_input(&self, input: &[u8]) -> bool {
        !self.reader.is_within_frame() && self.waits_for_whole(input, usize::MAX)
    }

    /// Whether the frame at the front of `input` is to be passed on whole, and can not be yet. One for which the requester never has credits
    /// enough is not.
    fn waits_for_whole(&self, input: &[u8], credits: usize) -> bool {
        let Some((most, (header, payload))) = self.whole.zip(lengths(input)) else { return false };
        payload <= most.min(MAX_WHOLE) && (input.len() < header + payload || payload > credits)
    }

    /// The backend has ended its connection, where it should have answered a close.
    pub fn end(&mut self) {
        self.close_received = true;
        (self.out, self.written) = (Vec::new(), 0);
    }

    /// Whether the backend has closed, and the requester.
    pub fn closes(&self) -> (bool, bool) {
        (self.close_received, self.close_sent)
    }

    /// Bytes of content that wait to be written.
    pub fn waiting(&self) -> usize {
        self.counted
    }

    /// Whether the backend was told to close, and has not answered.
    pub fn awaits_close(&self) -> bool {
        self.close_sent && !self.close_received
    }

    /// Whether both sides have closed, and all has been written.
    pub fn is_closed(&self) -> bool {
        self.close_sent && self.close_received && self.pending().is_empty()
    }
}

/// Credits that the frame at the front of `input` needs to be read: pings and pongs are passed on whole.
fn needs_credits(input: &[u8]) -> usize {
    match input {
        [first, second, ..] if matches!(first & 15, 9 | 10) => usize::from(second & 127),
        _ => 0,
    }
}

/// Bytes of the header and of the payload of the frame at the front of `input`, as servers send it: without a mask. `None` if the header is not
/// there yet.
fn lengths(input: &[u8]) -> Option<(usize, usize)> {
    match *input {
        [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([a, b])))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((10, usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).unwrap_or(usize::MAX)))
        }
        [_, 126 | 127, ..] | [] | [_] => None,
        [_, length, ..] => Some((2, usize::from(length & 127))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0; 4];

    fn data(body: &[u8], more: bool) -> Packet<'_> {
        Packet { content_type: Some(b"binary"), body, more, ..Packet::default() }
    }

    #[test]
    fn packets_of_a_message_are_its_fragments() {
        let mut socket = Socket::new("k", false);
        socket.push(&data(b"ab", true), KEY).unwrap();
        socket.push(&data(b"", true), KEY).unwrap();
        socket.push(&Packet { kind: Kind::Ping, body: b"p", ..Packet::default() }, KEY).unwrap();
        socket.push(&data(b"", false), KEY).unwrap();
        let expected =
            [&[0x02, 0x82, 0, 0, 0, 0][..], b"ab", &[0x89, 0x81, 0, 0, 0, 0], b"p", &[0x80, 0x80, 0, 0, 0, 0]].concat();
        assert_eq!(socket.pending(), expected);
        // What takes up the window is paid back with the last bytes.
        assert_eq!(socket.wrote(expected.len() - 4), 0);
        assert_eq!(socket.wrote(4), 3);
    }

    #[test]
    fn a_requester_that_looks_at_first_packets_gets_whole_frames() {
        let read = |socket: &mut Socket, input: &[u8], credits| {
            let (mut input, mut consumed) = (input.to_vec(), 0);
            loop {
                let found = socket.read(&mut input[consumed..], credits).unwrap();
                consumed += found.consumed;
                if found.consumed == 0 || found.packet.is_some() {
                    return (consumed, found.packet.map(|packet| (packet.body.len(), packet.more)));
                }
            }
        };
        let mut socket = Socket::new("k", true);
        let frame = [&[0x81, 5][..], b"c:{}x"].concat();
        for cut in 0..frame.len() {
            assert_eq!(read(&mut socket, &frame[..cut], 10), (0, None), "{cut}");
        }
        assert!(socket.lacks_input(&frame[..6]) && !socket.lacks_input(&frame));
        // Its credits are used up for the moment.
        assert_eq!(read(&mut socket, &frame, 4), (0, None));
        assert_eq!(read(&mut socket, &frame, 5), (7, Some((5, false))));
        // It never has more than 10, so that this one is passed on in parts.
        let long = [&[0x81, 20][..], &[b'x'; 20]].concat();
        assert!(!socket.lacks_input(&long[..4]));
        assert_eq!(read(&mut socket, &long[..4], 10), (4, Some((2, true))));

        let mut ours = Socket::new("k", false);
        assert_eq!(read(&mut ours, &frame[..4], 10), (4, Some((2, true))));
    }

    #[test]
    fn lengths_are_as_in_rfc_6455() {
        for (input, expected) in [
            (&[0x81, 0][..], Some((2, 0))),
            (&[0x81, 125, 1], Some((2, 125))),
            (&[0x81, 126, 1], None),
            (&[0x81, 126, 1, 2], Some((4, 258))),
            (&[0x81, 127, 0, 0, 0, 0, 0, 1, 0], None),
            (&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], Some((10, 65_536))),
        ] {
            assert_eq!(lengths(input), expected);
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_credits_but_a_close() {
        let mut socket = Socket::new("k", false);
        let mut input = [0x82, 3, 1, 2, 3, 0x89, 1, 9, 0x88, 2, 3, 0xe8];
        assert_eq!(socket.read(&mut input, 0).unwrap().consumed, 2);
        assert_eq!(socket.read(&mut input[2..], 0).unwrap().consumed, 0);
        let found = socket.read(&mut input[2..], 2).unwrap();
        assert_eq!((found.consumed, found.packet.unwrap().body), (2, &[1, 2][..]));
        let found = socket.read(&mut input[4..], 1).unwrap();
        assert!(!found.packet.unwrap().more);
        assert_eq!(socket.read(&mut input[5..], 0).unwrap().consumed, 0);
        assert_eq!(socket.read(&mut input[5..], 1).unwrap().packet.unwrap().kind, Kind::Ping);
        let close = socket.read(&mut input[8..], 0).unwrap().packet.unwrap();
        assert_eq!((close.kind, close.code), (Kind::Close, Some(1000)));
        assert!(!socket.is_closed());
        socket.push(&Packet { kind: Kind::Close, ..Packet::default() }, KEY).unwrap();
        assert_eq!(socket.push(&data(b"x", false), KEY), Err(FrameError::AfterClose));
        socket.wrote(6);
        assert!(socket.is_closed());
    }
}
