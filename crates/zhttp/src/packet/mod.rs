// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets: bytes as they stand in a ZeroMQ message, and the fields they mean (ZHTTP, encoding and fields).
//!
//! Decoding borrows from the message and leaves headers and id lists undecoded until someone asks, since data, credit
//! and keep-alive packets have none or are only forwarded. Encoding writes back to front into a buffer that is used
//! again. Both are by hand, because every packet of the suite goes through them: measured at a quarter and a fifteenth
//! of what serde and nested temporary buffers cost.
//!
//! Packets are read in `decode` and written in `encode`; [`Ids`], [`Headers`] and [`Ext`] are the fields with a form of
//! their own.

mod decode;
mod encode;
mod ext;
mod field;
mod headers;
mod ids;
#[cfg(test)]
mod tests;

pub use ext::{Ext, Record, Run};
pub use field::DecodeError;
pub use headers::Headers;
pub use ids::Ids;

use tnetstring::Item;

/// What a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Headers, body, or both; packets without a type.
    #[default]
    Data,
    /// The session is over, with a condition.
    Error,
    /// Grants credits, nothing else.
    Credit,
    /// Says that the session still exists.
    KeepAlive,
    /// The session is over.
    Cancel,
    /// The server wants to pass the session to another.
    HandoffStart,
    /// The client agrees, and is silent until the new server speaks.
    HandoffProceed,
    /// WebSocket close.
    Close,
    /// WebSocket ping.
    Ping,
    /// WebSocket pong.
    Pong,
}

impl Kind {
    /// The name that stands in a packet; that of data is only for messages to people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Data => "data",
            Kind::Error => "error",
            Kind::Credit => "credit",
            Kind::KeepAlive => "keep-alive",
            Kind::Cancel => "cancel",
            Kind::HandoffStart => "handoff-start",
            Kind::HandoffProceed => "handoff-proceed",
            Kind::Close => "close",
            Kind::Ping => "ping",
            Kind::Pong => "pong",
        }
    }

    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"error" => Kind::Error,
            b"credit" => Kind::Credit,
            b"keep-alive" => Kind::KeepAlive,
            b"cancel" => Kind::Cancel,
            b"handoff-start" => Kind::HandoffStart,
            b"handoff-proceed" => Kind::HandoffProceed,
            b"close" => Kind::Close,
            b"ping" => Kind::Ping,
            b"pong" => Kind::Pong,
            _ => return None,
        })
    }

    /// Whether nothing follows in the session, and no answer is expected.
    pub fn ends_session(self) -> bool {
        matches!(self, Kind::Error | Kind::Cancel)
    }
}

/// A packet. Fields that are absent are empty, `None` or `false`.
///
/// The comments name the packets in which a field has a meaning: *first* is the first of a session, from its client;
/// *head* the first data packet of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Packet<'a> {
    /// The sending instance; empty if absent.
    pub from: &'a [u8],
    /// The sessions.
    pub ids: Ids<'a>,
    /// The type.
    pub kind: Kind,
    /// Why a session failed (error).
    pub condition: Option<&'a [u8]>,
    /// Further body bytes that may be sent to the sender.
    pub credits: Option<u32>,
    /// More body follows (data).
    pub more: bool,
    /// The client takes a response in several packets (first).
    pub stream: bool,
    /// The client wants responses through its ROUTER socket (first).
    pub router_resp: bool,
    /// What peers of some kinds tell each other besides.
    pub ext: Ext<'a>,
    /// Limit of the response body in bytes (first, to outbound).
    pub max_size: Option<u64>,
    /// Limit of the session's life in ms (first, to outbound).
    pub timeout: Option<u64>,
    /// Request method (first).
    pub method: Option<&'a [u8]>,
    /// Absolute URI (first).
    pub uri: Option<&'a [u8]>,
    /// Headers (first, head).
    pub headers: Headers<'a>,
    /// Status (head, rejected), or WebSocket close code.
    pub code: Option<u16>,
    /// Status text (head, rejected).
    pub reason: Option<&'a [u8]>,
    /// `text` or `binary` (WebSocket data).
    pub content_type: Option<&'a [u8]>,
    /// Content.
    pub body: &'a [u8],
    /// Echoed in every response of the session; any value (first).
    pub user_data: Option<Item<'a>>,
    /// The browser's address, without port (first, from a frontend).
    pub peer_address: Option<&'a [u8]>,
    /// The browser's port (first, from a frontend).
    pub peer_port: Option<u16>,
    /// Where to connect instead of the URI's host (first, to outbound).
    pub connect_host: Option<&'a [u8]>,
    /// Where to connect instead of the URI's port (first, to outbound).
    pub connect_port: Option<u16>,
    /// Allow and deny rules do not apply (first, to outbound).
    pub ignore_policies: bool,
    /// The certificate may be that of `connect_host` (first, to outbound).
    pub trust_connect_host: bool,
    /// Certificates are not checked (first, to outbound).
    pub ignore_tls_errors: bool,
    /// A certificate in PEM, and those between it and its authority, to show to the backend (first, to outbound).
    pub client_cert: Option<&'a [u8]>,
    /// The private key of that certificate, in PEM (first, to outbound).
    pub client_key: Option<&'a [u8]>,
    /// The encoded map that marks an internal request (first, from the handler).
    pub passthrough: Option<&'a [u8]>,
}
