// SPDX-License-Identifier: AGPL-3.0-or-later
//! Takes the payload of a body out of its frame.

use super::BodyError;
use super::chunked::ChunkedDecoder;
use super::framing::{BodyFraming, Decoded};

/// Takes the payload out of the bytes of one body, however they were split by the network.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    Chunked(ChunkedDecoder),
    UntilClose,
    Closed,
}

impl BodyDecoder {
    /// A decoder for the body that a head with this framing announces.
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None => State::Length(0),
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(ChunkedDecoder::new()),
            BodyFraming::UntilClose => State::UntilClose,
        };
        BodyDecoder { state }
    }

    /// Finds the next piece of payload, at most `max` bytes of it.
    ///
    /// Call it again with the rest of the input until it consumes nothing, or [`is_done`](Self::is_done). What frames the
    /// payload is consumed along with it, so that the end of a body is noticed as early as possible, even with a `max` of 0.
    pub fn decode<'a>(&mut self, input: &'a [u8], max: usize) -> Result<Decoded<'a>, BodyError> {
        match &mut self.state {
            State::Length(remaining) => {
                let length = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len()).min(max);
                *remaining -= length as u64;
                Ok(Decoded { consumed: length, payload: &input[..length] })
            }
            State::Chunked(decoder) => decoder.decode(input, max),
            State::UntilClose => {
                let length = input.len().min(max);
                Ok(Decoded { consumed: length, payload: &input[..length] })
            }
            State::Closed => Ok(Decoded { consumed: 0, payload: &[] }),
        }
    }

    /// Tells that the peer has closed and that all input has been decoded.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose => {
                self.state = State::Closed;
                Ok(())
            }
            _ if self.is_done() => Ok(()),
            _ => Err(BodyError::Truncated),
        }
    }

    /// Whether the body is complete. Input after that belongs to the next message.
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Length(remaining) => *remaining == 0,
            State::Chunked(decoder) => decoder.is_done(),
            State::UntilClose => false,
            State::Closed => true,
        }
    }

    /// Payload bytes that are known to be missing; `None` if the framing does not tell.
    pub fn remaining(&self) -> Option<u64> {
        match &self.state {
            State::Length(remaining) => Some(*remaining),
            State::Closed => Some(0),
            State::Chunked(decoder) => decoder.is_done().then_some(0),
            State::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_its_bytes_and_leaves_the_next_message() {
        let mut decoder = BodyDecoder::new(BodyFraming::Length(5));
        assert_eq!(decoder.decode(b"abc", 100), Ok(Decoded { consumed: 3, payload: b"abc" }));
        assert_eq!(decoder.remaining(), Some(2));
        assert_eq!(decoder.decode(b"deGET", 100), Ok(Decoded { consumed: 2, payload: b"de" }));
        assert!(decoder.is_done());
        assert_eq!(decoder.decode(b"GET", 100), Ok(Decoded { consumed: 0, payload: b"" }));
    }

    #[test]
    fn no_body_and_length_zero_are_done_at_once() {
        assert!(BodyDecoder::new(BodyFraming::None).is_done());
        assert!(BodyDecoder::new(BodyFraming::Length(0)).is_done());
        assert!(!BodyDecoder::new(BodyFraming::Chunked).is_done());
    }

    #[test]
    fn only_a_body_without_length_may_end_with_the_connection() {
        let mut until_close = BodyDecoder::new(BodyFraming::UntilClose);
        assert_eq!(until_close.decode(b"abc", 2), Ok(Decoded { consumed: 2, payload: b"ab" }));
        assert!(!until_close.is_done());
        assert_eq!(until_close.end_of_input(), Ok(()));
        assert!(until_close.is_done());

        let mut length = BodyDecoder::new(BodyFraming::Length(5));
        length.decode(b"abc", 100).unwrap();
        assert_eq!(length.end_of_input(), Err(BodyError::Truncated));
        let mut chunked = BodyDecoder::new(BodyFraming::Chunked);
        chunked.decode(b"3\r\nabc\r\n", 100).unwrap();
        assert_eq!(chunked.end_of_input(), Err(BodyError::Truncated));
        chunked.decode(b"0\r\n\r\n", 100).unwrap();
        assert_eq!(chunked.end_of_input(), Ok(()));
    }
}
