// SPDX-License-Identifier: AGPL-3.0-or-later
//! Statistics: `<type> T<map>` in one frame, published by the proxy to the handler and by the handler to whoever listens
//! (control, stats).
//!
//! Of [`Report`], members that a receiver does not use are read nevertheless: a wrong type anywhere makes the packet
//! invalid.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::call::Method;
use crate::{Error, is_false};

/// A packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    /// A connection is there, or gone.
    Conn(Conn<'a>),
    /// Something has happened on a route.
    Activity(Activity<'a>),
    /// Counts that are of no route.
    Counts(Counts<'a>),
    /// An item was published.
    Message(Message<'a>),
    /// A channel has subscribers, or none any more.
    Sub(Sub<'a>),
    /// What has happened in an interval.
    Report(Box<Report<'a>>),
}

/// Why a packet is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatsError {
    /// There is no type, space and format byte before the map.
    #[error("a packet must begin with its type, a space and T")]
    Format,
    /// The type is not known.
    #[error("there is no type {0}")]
    Type(String),
    /// The map can not be read.
    #[error("{0}")]
    Content(#[from] Error),
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// It is none; it is dropped.
    pub fn decode(message: &'a [u8]) -> Result<Self, StatsError> {
        let space = message.iter().position(|&byte| byte == b' ').ok_or(StatsError::Format)?;
        let (name, map) = message.split_at(space);
        let map = map.strip_prefix(b" T").ok_or(StatsError::Format)?;
        Ok(match name {
            b"conn" => Packet::Conn(tnetstring::from_slice(map)?),
            b"activity" => Packet::Activity(tnetstring::from_slice(map)?),
            b"counts" => Packet::Counts(tnetstring::from_slice(map)?),
            b"message" => Packet::Message(tnetstring::from_slice(map)?),
            b"sub" => Packet::Sub(tnetstring::from_slice(map)?),
            b"report" => Packet::Report(tnetstring::from_slice(map)?),
            name => return Err(StatsError::Type(name.escape_ascii().to_string())),
        })
    }

    /// Writes a packet in JSON, its members sorted.
    pub fn encode_json(&self) -> Vec<u8> {
        let (name, object) = match self {
            Packet::Conn(packet) => ("conn", serde_json::to_value(packet)),
            Packet::Activity(packet) => ("activity", serde_json::to_value(packet)),
            Packet::Counts(packet) => ("counts", serde_json::to_value(packet)),
            Packet::Message(packet) => ("message", serde_json::to_value(packet)),
            Packet::Sub(packet) => ("sub", serde_json::to_value(packet)),
            Packet::Report(packet) => ("report", serde_json::to_value(packet)),
        };
        // Texts and numbers can always be written.
        format!("{name} J{}", object.unwrap_or_default()).into_bytes()
    }

    /// Names the sending instance.
    pub fn set_from(&mut self, instance: &str) {
        let from = match self {
            Packet::Conn(packet) => &mut packet.from,
            Packet::Activity(packet) => &mut packet.from,
            Packet::Counts(packet) => &mut packet.from,
            Packet::Message(packet) => &mut packet.from,
            Packet::Sub(packet) => &mut packet.from,
            Packet::Report(packet) => &mut packet.from,
        };
        *from = instance.to_string().into();
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// None that a packet of this type can cause.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let (name, map) = match self {
            Packet::Conn(packet) => ("conn", tnetstring::to_vec(packet)?),
            Packet::Activity(packet) => ("activity", tnetstring::to_vec(packet)?),
            Packet::Counts(packet) => ("counts", tnetstring::to_vec(packet)?),
            Packet::Message(packet) => ("message", tnetstring::to_vec(packet)?),
            Packet::Sub(packet) => ("sub", tnetstring::to_vec(packet)?),
            Packet::Report(packet) => ("report", tnetstring::to_vec(packet)?),
        };
        Ok([name.as_bytes(), b" T", &map].concat())
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnKind {
    /// HTTP.
    Http,
    /// WebSocket.
    Ws,
}

/// A connection is there, or with `unavailable` gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Conn<'a> {
    /// The sending instance.
    #[serde(borrow, default)]
    pub from: Cow<'a, str>,
    /// `<instance>:<session>`, or the id of a WebSocket.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<Cow<'a, str>>,
    /// What it speaks.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ConnKind>,
    /// The client's address.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<Cow<'a, str>>,
    /// The client came with TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ssl: bool,
    /// Seconds until it counts as gone unless it is named again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// It is gone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unavailable: bool,
}

/// Something has happened on a route, so many times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity<'a> {
    /// The sending instance.
    #[serde(borrow, default)]
    pub from: Cow<'a, str>,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<Cow<'a, str>>,
    /// How often.
    pub count: u32,
}

/// Counts that are of no route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts<'a> {
    /// The sending instance.
    #[serde(borrow, default)]
    pub from: Cow<'a, str>,
    /// Requests since the last packet.
    pub requests_received: u32,
}

/// An item was published and has met subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Message<'a> {
    /// The sending instance.
    #[serde(borrow, default)]
    pub from: Cow<'a, str>,
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// The item's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub item_id: Option<Cow<'a, str>>,
    /// Subscribers.
    pub count: u32,
    /// `http-response`, `http-stream` or `ws-message`.
    #[serde(borrow)]
    pub transport: Cow<'a, str>,
    /// Blocks of a large item, times subscribers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u32>,
}

/// A channel has subscribers of a kind, or with `unavailable` none any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sub<'a> {
    /// The sending instance.
    #[serde(borrow, default)]
    pub from: Cow<'a, str>,
    /// `response`, `stream` or `ws`.
    #[serde(borrow)]
    pub mode: Cow<'a, str>,
    /// The channel.
    #[serde(borrow)]
    pub channel: Cow<'a, str>,
    /// Seconds until it counts as left unless it is named again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<u32>,
    /// None any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unavailable: bool,
}

/// The most connections of a route at a time, in calls to the handler (internal RPC, conn-max mode).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConnMax {
    /// The sending instance.
    pub from: String,
    /// The route's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Connections.
    pub max: u32,
    /// Seconds that this holds.
    pub ttl: u32,
    /// Connections that the handler gave back up to this number are counted here again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_seq: Option<u32>,
}

/// A call without an answer that has only [`ConnMax`] packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConnMaxNotice {
    /// The packets.
    pub conn_max: Vec<ConnMax>,
}

impl Method for ConnMaxNotice {
    const NAME: &'static str = "conn-max";
}

/// What has happened on a route in an interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Report<'a> {
    /// The sending instance.
    #[serde(borrow)]
    pub from: Cow<'a, str>,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<Cow<'a, str>>,
    /// The most at a time.
    pub connections: u32,
    /// Minutes that clients were connected.
    pub minutes: u32,
    /// Items published.
    pub received: u32,
    /// Deliveries.
    pub sent: u32,
    /// Of those, responses of long-polls.
    pub http_response_sent: u32,
    /// Blocks published, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_received: Option<u32>,
    /// Blocks delivered, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks_sent: Option<u32>,
    /// The interval in ms.
    pub duration: u32,
    /// Bytes of heads from clients.
    pub client_header_bytes_received: u32,
    /// Bytes of heads to clients.
    pub client_header_bytes_sent: u32,
    /// Bytes of bodies from clients.
    pub client_content_bytes_received: u32,
    /// Bytes of bodies to clients.
    pub client_content_bytes_sent: u32,
    /// WebSocket messages from clients.
    pub client_messages_received: u32,
    /// WebSocket messages to clients.
    pub client_messages_sent: u32,
    /// Bytes of heads from backends.
    pub server_header_bytes_received: u32,
    /// Bytes of heads to backends.
    pub server_header_bytes_sent: u32,
    /// Bytes of bodies from backends.
    pub server_content_bytes_received: u32,
    /// Bytes of bodies to backends.
    pub server_content_bytes_sent: u32,
    /// WebSocket messages from backends.
    pub server_messages_received: u32,
    /// WebSocket messages to backends.
    pub server_messages_sent: u32,
}

impl Report<'_> {
    /// Adds the bytes and messages of another.
    pub fn add_traffic(&mut self, other: &Report<'_>) {
        for (own, other) in [
            (&mut self.client_header_bytes_received, other.client_header_bytes_received),
            (&mut self.client_header_bytes_sent, other.client_header_bytes_sent),
            (&mut self.client_content_bytes_received, other.client_content_bytes_received),
            (&mut self.client_content_bytes_sent, other.client_content_bytes_sent),
            (&mut self.client_messages_received, other.client_messages_received),
            (&mut self.client_messages_sent, other.client_messages_sent),
            (&mut self.server_header_bytes_received, other.server_header_bytes_received),
            (&mut self.server_header_bytes_sent, other.server_header_bytes_sent),
            (&mut self.server_content_bytes_received, other.server_content_bytes_received),
            (&mut self.server_content_bytes_sent, other.server_content_bytes_sent),
            (&mut self.server_messages_received, other.server_messages_received),
            (&mut self.server_messages_sent, other.server_messages_sent),
        ] {
            *own = own.wrapping_add(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_members_sorted() {
        let mut packet = Packet::Conn(Conn {
            id: "connmgr:0-0-0".into(),
            kind: Some(ConnKind::Http),
            peer_address: Some("127.0.0.1".into()),
            ttl: Some(120),
            ..Conn::default()
        });
        packet.set_from("handler_1");
        let expected =
            r#"conn J{"from":"handler_1","id":"connmgr:0-0-0","peer-address":"127.0.0.1","ttl":120,"type":"http"}"#;
        assert_eq!(String::from_utf8(packet.encode_json()).unwrap(), expected);
    }
}
