// SPDX-License-Identifier: AGPL-3.0-or-later
//! ZMTP 3.0, the protocol of ZeroMQ, without I/O: bytes to parts of messages and back.
//!
//! Spoken by the [direct](crate::direct) sockets, to each other and to libzmq from version 4.0 on. Both sides send a
//! greeting of 64 bytes, then a READY command that names their socket type, then frames. We offer version 3.0 and the
//! mechanism NULL, as libzmq does by default; a peer of version 3.1 then talks 3.0 with us.
//!
//! - [`greeting`]: the first 64 bytes, and READY.
//! - [`frame`]: frames, and the commands between them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub(crate) mod frame;
pub(crate) mod greeting;

use crate::role::Role;
use frame::Header;

/// Bytes of a command, READY among them. A subscription is the longest that peers mean.
pub(crate) const MAX_COMMAND: usize = 64 << 10;

/// Why a peer can not be talked to. Its connection is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the peer does not speak ZMTP")]
    NotZmtp,
    #[error("the peer speaks ZMTP {0}; version 3 is needed, that is libzmq 4.0 or later")]
    Version(u8),
    #[error("the peer asks for the mechanism {0:?}; only NULL is supported between processes of one machine")]
    Mechanism(String),
    #[error("a {ours} socket is connected to a {theirs:?} socket; check that the addresses are not mixed up")]
    Partner { ours: &'static str, theirs: String },
    #[error("a {what} of {len} bytes is longer than {most}")]
    Oversized { what: &'static str, len: u64, most: usize },
    #[error("a malformed {0}")]
    Malformed(&'static str),
    #[error("the peer refuses the connection: {0:?}")]
    Refused(String),
}

/// What a piece of the input means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Nothing to be done about it.
    Nothing,
    /// The peer is ready; its identity, which may be empty.
    Ready(&'a [u8]),
    /// A part of a message, and whether more parts of it follow.
    Part(&'a [u8], bool),
    /// The peer wants messages that begin so.
    Subscribe(&'a [u8]),
    /// It does not any more.
    Cancel(&'a [u8]),
    /// The peer asks whether we are there; what is to be sent back.
    Ping(&'a [u8]),
    /// Another process listens at the address of the peer now.
    Moved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ready,
    Traffic,
}

/// Reads what one peer sends.
#[derive(Debug)]
pub(crate) struct Decoder {
    role: Role,
    stage: Stage,
    /// Bytes that a message may have, all its parts together.
    max_message: usize,
    /// Bytes of the parts so far of a message that is not complete.
    begun: usize,
}

impl Decoder {
    /// For the first byte of a connection; `role` is our end's.
    pub(crate) fn new(role: Role, max_message: usize) -> Self {
        // The messages of subscribers are subscriptions; those to the other two are read and forgotten.
        let max_message = if role.receives() && !role.publishes() { max_message } else { MAX_COMMAND };
        Decoder { role, stage: Stage::Greeting, max_message, begun: 0 }
    }

    /// For a connection whose handshake is done, within a message of which `begun` bytes have come.
    pub(crate) fn after_handshake(role: Role, max_message: usize, begun: usize) -> Self {
        Decoder { stage: Stage::Traffic, begun, ..Decoder::new(role, max_message) }
    }

    /// Bytes of the parts so far of a message that is not complete.
    pub(crate) fn begun(&self) -> usize {
        self.begun
    }

    /// What the beginning of `input` means and how long it is; `None` if it is not complete.
    ///
    /// # Errors
    /// The peer breaks the protocol, or is not one for us.
    pub(crate) fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, Step<'a>)>, Violation> {
        if self.stage == Stage::Greeting {
            if !greeting::read(input)? {
                return Ok(None);
            }
            self.stage = Stage::Ready;
            return Ok(Some((greeting::LEN, Step::Nothing)));
        }
        let Some(header) = Header::read(input) else { return Ok(None) };
        self.check(header)?;
        let Some(body) = input[header.used..].get(..header.len as usize) else { return Ok(None) };
        let step = match (header.command, self.stage) {
            (true, Stage::Ready) => {
                let identity = greeting::read_ready(body, self.role)?;
                self.stage = Stage::Traffic;
                Step::Ready(identity)
            }
            (true, _) => frame::read_command(body)?,
            (false, _) => {
                self.begun = if header.more { self.begun + body.len() } else { 0 };
                Step::Part(body, header.more)
            }
        };
        Ok(Some((header.used + body.len(), step)))
    }

    /// Refuses a frame by its header, so that no byte of it is kept.
    fn check(&self, header: Header) -> Result<(), Violation> {
        if !header.command && self.stage != Stage::Traffic {
            return Err(Violation::Malformed("handshake: a message before READY"));
        }
        let (what, most, begun) =
            if header.command { ("command", MAX_COMMAND, 0) } else { ("message", self.max_message, self.begun) };
        match (begun as u64).saturating_add(header.len) {
            len if len > most as u64 => Err(Violation::Oversized { what, len, most }),
            _ => Ok(()),
        }
    }
}

/// What the bytes of a peer mean to a ROUTER, as text, when they come in pieces of `piece` bytes. For fuzzing, which stands
/// outside of this crate.
pub fn explain(input: &[u8], piece: usize) -> String {
    use std::fmt::Write;
    let (mut decoder, mut buffer, mut text) = (Decoder::new(Role::Router, 1 << 16), Vec::new(), String::new());
    for piece in input.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        let mut at = 0;
        loop {
            // Writing to a string can not fail.
            let _ = match decoder.next(&buffer[at..]) {
                Ok(Some((used, step))) => {
                    at += used;
                    writeln!(text, "{step:?}")
                }
                Ok(None) => break,
                Err(violation) => {
                    let _ = writeln!(text, "{violation}");
                    return text;
                }
            };
        }
        buffer.drain(..at);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a peer of the given role and identity sends first.
    fn opening(role: Role, identity: &[u8]) -> Vec<u8> {
        let mut bytes = greeting::GREETING.to_vec();
        greeting::write_ready(&mut bytes, role, identity);
        bytes
    }

    /// All steps of an input that comes in pieces of `piece` bytes.
    fn steps(role: Role, input: &[u8], piece: usize) -> Result<Vec<String>, Violation> {
        let (mut decoder, mut buffer, mut steps) = (Decoder::new(role, 10_000), Vec::new(), Vec::new());
        for piece in input.chunks(piece) {
            buffer.extend_from_slice(piece);
            let mut at = 0;
            while let Some((used, step)) = decoder.next(&buffer[at..])? {
                steps.push(format!("{step:?}"));
                at += used;
            }
            buffer.drain(..at);
        }
        Ok(steps)
    }

    #[test]
    fn two_of_us_understand_each_other_however_the_bytes_come() {
        let mut input = opening(Role::Router, b"proxy");
        frame::write_message(&mut input, &[b"", b"hello"]);
        let expected = vec![
            "Nothing".to_string(),
            format!("{:?}", Step::Ready(b"proxy")),
            format!("{:?}", Step::Part(b"", true)),
            format!("{:?}", Step::Part(b"hello", false)),
        ];
        for piece in 1..input.len() {
            assert_eq!(steps(Role::Router, &input, piece).unwrap(), expected);
        }
    }

    #[test]
    fn a_socket_of_the_wrong_type_is_refused_with_both_names() {
        let error = steps(Role::Pull, &opening(Role::Router, b""), 1000).unwrap_err();
        assert_eq!(error, Violation::Partner { ours: "PULL", theirs: "ROUTER".to_string() });
    }

    #[test]
    fn a_message_before_ready_is_refused() {
        let mut input = greeting::GREETING.to_vec();
        frame::write_message(&mut input, &[b"x"]);
        assert!(matches!(steps(Role::Pull, &input, 1000), Err(Violation::Malformed(_))));
    }

    #[test]
    fn what_is_too_long_is_refused_before_its_bytes_come() {
        let after = |role, more: &[u8]| steps(role, &[&opening(Role::Push, b""), more].concat(), 1000).unwrap_err();
        let error = after(Role::Pull, b"\x02\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(error, Violation::Oversized { what: "message", len: u64::MAX, most: 10_000 });
        let error = after(Role::Pull, b"\x06\0\0\0\0\0\x01\0\x01");
        assert_eq!(error, Violation::Oversized { what: "command", len: 65_537, most: MAX_COMMAND });
        // In parts.
        let part = [&b"\x03\0\0\0\0\0\0\x0f\0"[..], &[0; 0xf00]].concat();
        let error = after(Role::Pull, &part.repeat(3));
        assert_eq!(error, Violation::Oversized { what: "message", len: 3 * 0xf00, most: 10_000 });
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input in proptest::collection::vec(any::<u8>(), 0..300), skip in 0..3) {
            let mut decoder = Decoder::new(Role::Xpub, 10_000);
            decoder.stage = [Stage::Greeting, Stage::Ready, Stage::Traffic][skip as usize];
            let mut at = 0;
            while let Ok(Some((used, _))) = decoder.next(&input[at..]) {
                prop_assert!(used > 0 && at + used <= input.len());
                at += used;
            }
        }

        #[test]
        fn what_is_written_is_read(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..5)) {
            let mut input = opening(Role::Push, b"");
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            frame::write_message(&mut input, &slices);
            let last = parts.len() - 1;
            let expected = parts.iter().enumerate().map(|(i, part)| format!("{:?}", Step::Part(part, i < last)));
            prop_assert_eq!(&steps(Role::Pull, &input, 7).unwrap()[2..], &expected.collect::<Vec<_>>()[..]);
        }
    }
}
