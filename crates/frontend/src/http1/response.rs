// SPDX-License-Identifier: AGPL-3.0-or-later
//! The response on its way to the client: status, headers and body of packets become a head and framed pieces
//! (frontend, response emission).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::http1::{
    BodyFraming, EncodeError, LAST_CHUNK, StatusLine, Version, chunk_prefix, parse_length, write_response_head,
};
use zhttp::{Headers, Packet};

use super::shared_body::SharedBody;
use crate::client::output::Output;

/// The response, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Nothing has come.
    Waiting,
    /// The head has gone into the output.
    Running {
        /// For a length: what is left of it.
        framing: BodyFraming,
        /// There is no body on the wire, whatever the framing says: the answer to HEAD, a 204 or a 304.
        bodiless: bool,
    },
}

/// What the request has settled about its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Of the request, and so of the response.
    pub version: Version,
    /// The method is HEAD.
    pub head_only: bool,
    /// Another request may follow.
    pub persistent: bool,
}

/// Why packets do not make a response that a client could read. The server is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// The first data packet has no status code.
    #[error("a response without a status code")]
    NoStatus,
    /// The code is not that of a final response.
    #[error("a response with status {0}, where a final response has 200 to 999")]
    Status(u16),
    /// `Content-Length` is no number, or there are several that differ.
    #[error("a response whose Content-Length is not one number")]
    Length,
    /// The head would not be one.
    #[error("a response that can not be written: {0}")]
    Head(#[from] EncodeError),
    /// More body than the head has declared.
    #[error("{0} bytes of body more than declared")]
    TooLong(u64),
    /// Less body than the head has declared.
    #[error("{0} bytes of body less than declared")]
    TooShort(u64),
}

impl Response {
    /// The head of the response, with the body bytes of its packet, so that a small response leaves in one piece.
    ///
    /// # Errors
    /// The packet can not begin a response; the response is still [`Response::Waiting`].
    pub fn begin(&mut self, packet: &Packet<'_>, terms: &mut Terms) -> Result<Vec<u8>, BadResponse> {
        let code = packet.code.ok_or(BadResponse::NoStatus)?;
        if !(200..1000).contains(&code) {
            return Err(BadResponse::Status(code));
        }
        let (mut framing, bodiless) = framing(packet, code, terms)?;
        let persistent = terms.persistent && framing != BodyFraming::UntilClose;
        let status = StatusLine { version: terms.version, code, reason: packet.reason.unwrap_or(b"") };
        let mut head = Vec::with_capacity(256 + packet.body.len());
        write_response_head(&mut head, status, packet.headers.iter(), framing, persistent)?;
        if !bodiless {
            match &mut framing {
                BodyFraming::None => {}
                BodyFraming::UntilClose => head.extend_from_slice(packet.body),
                BodyFraming::Chunked => {
                    if let Some(len) = std::num::NonZeroUsize::new(packet.body.len()) {
                        head.extend_from_slice(chunk_prefix(len).as_slice());
                        head.extend_from_slice(packet.body);
                        head.extend_from_slice(wire::http1::CHUNK_SUFFIX);
                    }
                }
                BodyFraming::Length(left) => {
                    *left = take(*left, packet.body.len())?;
                    head.extend_from_slice(packet.body);
                }
            }
        }
        terms.persistent = persistent;
        *self = Response::Running { framing, bodiless };
        Ok(head)
    }

    /// Puts the body bytes of a later packet into the output, framed.
    ///
    /// # Errors
    /// More than the head has declared.
    pub fn add_body(&mut self, len: usize, body: &SharedBody<'_>, output: &mut Output) -> Result<(), BadResponse> {
        let Response::Running { framing, bodiless: false } = self else { return Ok(()) };
        match framing {
            BodyFraming::None => {}
            BodyFraming::Chunked => output.push(body.chunk()),
            BodyFraming::UntilClose => output.push(body.plain()),
            BodyFraming::Length(left) => {
                *left = take(*left, len)?;
                output.push(body.plain());
            }
        }
        Ok(())
    }

    /// Ends the body after its last packet.
    ///
    /// # Errors
    /// Less than the head has declared.
    pub fn end(&mut self, output: &mut Output) -> Result<(), BadResponse> {
        match *self {
            Response::Running { bodiless: true, .. } => Ok(()),
            // The client must see that something is missing, so the response is not ended as if it were complete.
            Response::Running { framing: BodyFraming::Length(left @ 1..), .. } => Err(BadResponse::TooShort(left)),
            Response::Running { framing: BodyFraming::Chunked, .. } => {
                output.push(Bytes::from_static(LAST_CHUNK));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the head has gone out and nothing can follow it: the response is complete, whatever the server still
    /// sends.
    pub fn is_bodiless(&self) -> bool {
        matches!(self, Response::Running { bodiless: true, .. })
    }

    /// Whether a connection that just ends would look like the end of this response.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, Response::Running { framing: BodyFraming::UntilClose, bodiless: false })
    }
}

fn take(left: u64, len: usize) -> Result<u64, BadResponse> {
    left.checked_sub(len as u64).ok_or_else(|| BadResponse::TooLong(len as u64 - left))
}

/// How the body is delimited, and whether there is none on the wire.
fn framing(packet: &Packet<'_>, code: u16, terms: &Terms) -> Result<(BodyFraming, bool), BadResponse> {
    let declared = declared_length(packet.headers)?;
    Ok(match declared {
        _ if code == 204 || code == 304 => (BodyFraming::None, true),
        // What the length would be is known to the server only.
        _ if terms.head_only => (declared.map_or(BodyFraming::None, BodyFraming::Length), true),
        Some(length) => (BodyFraming::Length(length), false),
        None if !packet.more => (BodyFraming::Length(packet.body.len() as u64), false),
        None if terms.version == Version::Http11 => (BodyFraming::Chunked, false),
        None => (BodyFraming::UntilClose, false),
    })
}

fn declared_length(headers: Headers<'_>) -> Result<Option<u64>, BadResponse> {
    let mut declared = None;
    for value in headers.values("Content-Length") {
        let length = parse_length(value.trim_ascii()).ok_or(BadResponse::Length)?;
        if declared.is_some_and(|other| other != length) {
            return Err(BadResponse::Length);
        }
        declared = Some(length);
    }
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Terms = Terms { version: Version::Http11, head_only: false, persistent: true };

    fn begin(packet: Packet<'_>, mut terms: Terms) -> Result<String, BadResponse> {
        let head = Response::Waiting.begin(&packet, &mut terms)?;
        Ok(String::from_utf8(head).unwrap())
    }

    #[test]
    fn a_code_that_is_not_final_never_goes_out() {
        for code in [0, 5, 99, 100, 101, 102, 103, 199, 1000, 65535] {
            let packet = Packet { code: Some(code), ..Packet::default() };
            assert_eq!(begin(packet, GET), Err(BadResponse::Status(code)));
        }
        assert_eq!(begin(Packet::default(), GET), Err(BadResponse::NoStatus));
        assert!(begin(Packet { code: Some(999), ..Packet::default() }, GET).is_ok());
    }

    #[test]
    fn a_length_is_digits_and_one() {
        for values in [&["+5"][..], &["-1"], &["5, 5"], &["5", "6"], &[""], &["0x5"], &["9223372036854775808"]] {
            let headers: Vec<(&[u8], &[u8])> =
                values.iter().map(|value| (&b"content-length"[..], value.as_bytes())).collect();
            let packet = Packet { code: Some(200), headers: Headers::Pairs(&headers), ..Packet::default() };
            assert_eq!(begin(packet, GET), Err(BadResponse::Length), "{values:?}");
        }
        let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"2"), (b"content-length", b" 2 ")];
        let packet = Packet { code: Some(200), headers: Headers::Pairs(headers), body: b"ab", ..Packet::default() };
        assert_eq!(begin(packet, GET).unwrap(), "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nab");
    }

    #[test]
    fn the_bytes_behind_a_bodiless_head_are_swallowed() {
        let headers: &[(&[u8], &[u8])] = &[(b"Content-Length", b"4")];
        for (code, head_only) in [(204, false), (304, false), (204, true), (304, true), (200, true)] {
            for more in [false, true] {
                let (mut response, mut output) = (Response::Waiting, Output::default());
                let packet = Packet {
                    code: Some(code),
                    headers: Headers::Pairs(headers),
                    body: b"HTTP/1.1 200 EVIL\r\n\r\n",
                    more,
                    ..Packet::default()
                };
                let head = response.begin(&packet, &mut Terms { head_only, ..GET }).unwrap();
                assert!(head.ends_with(b"\r\n\r\n") && !head.windows(4).any(|w| w == b"EVIL"), "{code}");
                response.add_body(4, &SharedBody::new(b"EVIL"), &mut output).unwrap();
                response.end(&mut output).unwrap();
                assert!(output.is_empty() && response.is_bodiless());
            }
        }
    }
}
