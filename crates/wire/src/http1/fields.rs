// SPDX-License-Identifier: AGPL-3.0-or-later
//! Header fields, and what those of them that concern framing and persistence say together.

use serde::{Deserialize, Serialize};

use super::{BodyFraming, HeadError};

/// Protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// One header field as it stood in the message: case, order and bytes unchanged, whitespace around the value removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, a token.
    pub name: &'a str,
    /// The value, without control bytes other than tab; not necessarily UTF-8.
    pub value: &'a [u8],
}

/// Whether a comma separated header value contains this token, in any case.
pub fn list_contains(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
}

/// What the fields that concern the connection say.
#[derive(Debug, Default)]
pub(super) struct Summary<'a> {
    /// The one value of all `Content-Length` fields.
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// `Expect` contains `100-continue`.
    pub(super) expects_continue: bool,
    /// `Upgrade` contains `websocket`.
    pub(super) websocket: bool,
    /// The value of the last `Host` field, unchecked: it means something in requests only.
    pub(super) host: Option<&'a [u8]>,
    /// Several `Host` fields differ.
    pub(super) hosts_differ: bool,
}

impl<'a> Summary<'a> {
    /// Takes one field into account. Lengths of names tell almost all fields apart without comparing them.
    pub(super) fn add(&mut self, field: Field<'a>) -> Result<(), HeadError> {
        let named = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if named("Host") => {
                self.hosts_differ |= self.host.is_some_and(|other| !other.eq_ignore_ascii_case(field.value));
                self.host = Some(field.value);
            }
            6 if named("Expect") => self.expects_continue |= list_contains(field.value, b"100-continue"),
            7 if named("Upgrade") => self.websocket |= list_contains(field.value, b"websocket"),
            10 if named("Connection") => {
                self.close |= list_contains(field.value, b"close");
                self.keep_alive |= list_contains(field.value, b"keep-alive");
            }
            14 if named("Content-Length") => {
                let length = parse_length(field.value).ok_or(HeadError::ContentLength)?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(HeadError::ContentLength);
                }
                self.length = Some(length);
            }
            17 if named("Transfer-Encoding") => {
                if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The framing that the fields declare; `None` if they declare none.
    pub(super) fn framing(&self, version: Version) -> Result<Option<BodyFraming>, HeadError> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(HeadError::AmbiguousLength),
            // Something on the way that does not know chunks has passed it on, and may see another end.
            (None, true) if version == Version::Http10 => Err(HeadError::TransferEncoding),
            (None, true) => Ok(Some(BodyFraming::Chunked)),
            (Some(length), false) => Ok(Some(BodyFraming::Length(length))),
            (None, false) => Ok(None),
        }
    }

    pub(super) fn persistent(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// The value of a `Content-Length`: digits and nothing else, because a sign, a list or a space is where readers differ;
/// at most 2^63-1, because many can not count further.
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let length = value.iter().try_fold(0u64, |length, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })?;
    (length <= i64::MAX as u64).then_some(length)
}
