// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a successor of this proxy must know of one WebSocket, so that it can go on with it. The client's frontend keeps it.

use rpc::Octets;
use serde::{Deserialize, Serialize};
use zhttp::Packet;
use zhttp::recovery::MAX_RECORD;

use super::record::Said;
use crate::request::uri::{Scheme, Uri};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Legacy<'a> {
    /// The version, which is set when it is written.
    pub v: u32,
    /// Its public name.
    #[serde(borrow)]
    pub cid: Octets<'a>,
    /// The first packet.
    #[serde(borrow)]
    pub request: Octets<'a>,
    /// The id of its route.
    #[serde(borrow)]
    pub route: Octets<'a>,
    /// Which target of the route it is with.
    pub target: u32,
    /// The client came with TLS, or is believed to have.
    #[serde(default)]
    pub secure: bool,
    /// The client's proxy has signed.
    #[serde(default)]
    pub trusted: bool,
    /// The backend speaks GRIP, and puts this before messages for the client.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Octets<'a>>,
    /// The handler has been told of it.
    #[serde(default)]
    pub told: bool,
    /// The handler has answered.
    #[serde(default)]
    pub known: bool,
    /// What the backend has told the handler: each with a letter in front.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Octets<'a>>,
    /// Names and values for `Meta-` headers, by turns.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub meta: Vec<Octets<'a>>,
    /// Seconds of silence after which the backend is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
    /// The outbound process that has the backend's connection, if that is a WebSocket.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Octets<'a>>,
    /// What the backend of such has told the handler in front of this position has been done.
    #[serde(default)]
    pub handled: u64,
    /// Bytes of the client's first message that the backend has taken already.
    #[serde(default)]
    pub taken: u32,
    /// The backend is not to hear of the client any more.
    #[serde(default)]
    pub detached: bool,
    /// The client has been sent its close.
    #[serde(default)]
    pub closed: bool,
    /// The backend has closed.
    #[serde(default)]
    pub closed_by_backend: bool,
}

impl<'a> Legacy<'a> {
    /// As it is kept; empty if it would be too long.
    pub fn encode(&self) -> Vec<u8> {
        let written = tnetstring::to_vec(&Legacy { v: VERSION, ..self.clone() }).unwrap_or_default();
        if written.len() <= MAX_RECORD { written } else { Vec::new() }
    }

    /// As the client came, or is believed to have come.
    pub fn scheme(&self, request: &Packet<'_>) -> Option<Scheme> {
        Some(Uri::parse(request.uri?)?.scheme.with_tls(self.secure))
    }

    /// Reads what a predecessor has left.
    pub fn decode(record: &'a [u8]) -> Option<Self> {
        tnetstring::from_slice(record).ok().filter(|legacy: &Self| legacy.v == VERSION)
    }
}

/// The form in which something that was said is kept.
pub fn write_said(said: &Said) -> Octets<'static> {
    match said {
        Said::Channel(channel) => [b"r", channel.as_bytes()].concat().into(),
        Said::Instruction(message) => [b"c", &message[..]].concat().into(),
    }
}

/// Reads that form.
pub fn read_said(bytes: &[u8]) -> Option<Said> {
    let (kind, rest) = bytes.split_first()?;
    match kind {
        b'r' => Some(Said::Channel(std::str::from_utf8(rest).ok()?.into())),
        b'c' => Some(Said::Instruction(rest.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_can_be_read_and_what_is_too_long_is_not_left() {
        let said = [Said::Channel("a".into()), Said::Instruction(b"{}"[..].into())];
        let mut legacy = Legacy {
            cid: b"c".into(),
            prefix: Some(b"".into()),
            said: said.iter().map(write_said).collect(),
            meta: vec![b"user".into(), b"alice".into()],
            interval: Some(20),
            taken: 3,
            ..Legacy::default()
        };
        let written = legacy.encode();
        let read = Legacy::decode(&written).unwrap();
        assert_eq!(read, Legacy { v: VERSION, ..legacy.clone() });
        assert_eq!(read.said.iter().filter_map(|said| read_said(said)).collect::<Vec<_>>(), said);
        legacy.request = vec![b'x'; MAX_RECORD].into();
        assert!(legacy.encode().is_empty());
        for foreign in [&b""[..], b"}", b"0:}", &written[..9]] {
            assert_eq!(Legacy::decode(foreign), None);
        }
    }
}
