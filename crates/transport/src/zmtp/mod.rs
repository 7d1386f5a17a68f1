//! ZMTP 3.0, the protocol of ZeroMQ, without I/O: bytes to parts of messages and back.
//!
//! Spoken by the [direct](crate::direct) sockets, to each other and to libzmq from version 4.0 on. Both sides send a
//! greeting of 64 bytes, then a READY command that names their socket type, then frames. We offer version 3.0 and the
//! mechanism NULL, as libzmq does by default; a peer of version 3.1 then talks 3.0 with us.
//!
//! - [`greeting`]: the first 64 bytes, and READY.
//! - [`frame`]: frames, and the commands between them.

pub(crate) mod frame;
pub(crate) mod greeting;

use crate::role::Role;
use frame::Frame;

/// The longest frame that is taken, in bytes. What the suite sends is at most some hundred kilobytes.
pub(crate) const MAX_FRAME: usize = 64 << 20;

/// Why a peer can not be talked to. Its connection is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the peer does not speak ZMTP")]
    NotZmtp,
    #[error("the peer speaks ZMTP {0}; version 3 is needed, that is libzmq 4.0 or later")]
    Version(u8),
    #[error("the peer asks for the mechanism {0}; only NULL is supported between processes of one machine")]
    Mechanism(String),
    #[error("a {ours} socket is connected to a {theirs} socket; check that the addresses are not mixed up")]
    Partner { ours: &'static str, theirs: String },
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    Oversized(u64),
    #[error("a malformed {0}")]
    Malformed(&'static str),
    #[error("the peer refuses the connection: {0}")]
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
}

impl Decoder {
    /// For the first byte of a connection; `role` is our end's.
    pub(crate) fn new(role: Role) -> Self {
        Decoder { role, stage: Stage::Greeting }
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
        let Some((used, frame)) = Frame::read(input)? else { return Ok(None) };
        let step = match (frame.command, self.stage) {
            (true, Stage::Ready) => {
                let identity = greeting::read_ready(frame.body, self.role)?;
                self.stage = Stage::Traffic;
                Step::Ready(identity)
            }
            (true, _) => frame::read_command(frame.body)?,
            (false, Stage::Traffic) => Step::Part(frame.body, frame.more),
            (false, _) => return Err(Violation::Malformed("handshake: a message before READY")),
        };
        Ok(Some((used, step)))
    }
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
        let (mut decoder, mut buffer, mut steps) = (Decoder::new(role), Vec::new(), Vec::new());
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

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input in proptest::collection::vec(any::<u8>(), 0..300), skip in 0..3) {
            let mut decoder = Decoder::new(Role::Xpub);
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
