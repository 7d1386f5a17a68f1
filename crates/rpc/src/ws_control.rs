// SPDX-License-Identifier: AGPL-3.0-or-later
//! What proxy and handler tell each other about held WebSockets (internal RPC, ws-control).

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Octets, is_false};

/// Items for one receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packet<'a> {
    /// Who sends it, and where answers go. Pushpin up to 1.38 does not say.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub from: Option<Octets<'a>>,
    /// In order.
    #[serde(borrow)]
    pub items: Vec<Item<'a>>,
    /// From the handler: which items are of which message. From the proxy: the messages that have come so far.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark<'a>>,
    /// The proxy has named all its WebSockets, as it does for a handler that has just come.
    #[serde(default, rename = "named-all", skip_serializing_if = "is_false")]
    pub named_all: bool,
    /// The proxy takes items for many WebSockets at once; said with `named_all` (ours).
    #[serde(default, skip_serializing_if = "is_false")]
    pub many: bool,
    /// The handler knows what that means. Pushpin's says nothing.
    #[serde(default, rename = "takes-up", skip_serializing_if = "is_false")]
    pub takes_up: bool,
}

/// A published message with an id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark<'a> {
    /// Its number: the higher the later.
    pub run: u64,
    /// Its channel.
    #[serde(borrow)]
    pub channel: Octets<'a>,
    /// Its id.
    #[serde(borrow)]
    pub id: Octets<'a>,
    /// The first of its items in the packet.
    #[serde(default)]
    pub first: u32,
    /// How many there are.
    #[serde(default)]
    pub count: u32,
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// Something is missing, of another type or not known; the whole packet is dropped.
    pub fn decode(message: &'a [u8]) -> Result<Self, Error> {
        tnetstring::from_slice(message)
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// None that an item of this type can cause.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        tnetstring::to_vec(self)
    }
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The proxy has a WebSocket for the handler.
    Here,
    /// It still has it.
    KeepAlive,
    /// It is gone.
    Gone,
    /// A control message of the backend.
    Grip,
    /// The client is to be sent something when it was silent.
    KeepAliveSetup,
    /// The other side does not know the WebSocket.
    Cancel,
    /// A message for the client.
    Send,
    /// The client was silent.
    NeedKeepAlive,
    /// The target's own channel.
    Subscribe,
    /// Ask the backend.
    Refresh,
    /// Close the connection.
    Close,
    /// The backend is not to hear of the client any more.
    Detach,
    /// An item with a `req-id` has come.
    Ack,
}

/// One item. Which members have a meaning depends on its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Item<'a> {
    /// Which WebSocket.
    #[serde(borrow)]
    pub cid: Octets<'a>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// To be acknowledged.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<Octets<'a>>,
    /// Of the client's request.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub uri: Option<Octets<'a>>,
    /// `text` or `binary`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Octets<'a>>,
    /// A message.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub message: Option<Octets<'a>>,
    /// The message may wait for others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub queue: bool,
    /// Why the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The same as text.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Octets<'a>>,
    /// Errors may be shown in detail.
    #[serde(default, skip_serializing_if = "is_false")]
    pub debug: bool,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<Octets<'a>>,
    /// The route is counted and limited apart from others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub separate_stats: bool,
    /// Put before the names of channels that the backend gives.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub channel_prefix: Option<Octets<'a>>,
    /// Of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<i32>,
    /// The target may be on a private network.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trusted: bool,
    /// The WebSocket is named again: the number of the last message that has come for it, 0 if none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// A channel's name.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Octets<'a>>,
    /// Seconds until the WebSocket is forgotten unless it is named again.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// Seconds of silence.
    #[serde(default, deserialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// What silence is counted from.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub keep_alive_mode: Option<Octets<'a>>,
    /// Where the client's session is, so that the handler can push into it (ours).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client<'a>>,
    /// What a server that pushes needs to know of the session (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// What is pushed because of the control messages before comes after so many packets of the proxy (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// The client has been told already (ours).
    #[serde(default, skip_serializing_if = "is_false")]
    pub told: bool,
    /// The message is for these WebSockets as well: the shortest forms of their UUIDs (ours).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Octets<'a>>,
}

/// A client's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Client<'a> {
    /// The frontend's instance.
    #[serde(borrow)]
    pub sender: Octets<'a>,
    /// The session's id there.
    #[serde(borrow)]
    pub id: Octets<'a>,
    /// It is to be answered through the ROUTER.
    #[serde(default, skip_serializing_if = "is_false")]
    pub router_resp: bool,
}

/// What a second server of a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Bytes that it may send.
    pub credits: u32,
}

impl<'a> Item<'a> {
    /// An item with nothing but its type.
    pub fn new(kind: Kind, cid: impl Into<Octets<'a>>) -> Self {
        Item {
            cid: cid.into(),
            kind,
            req_id: None,
            uri: None,
            content_type: None,
            message: None,
            queue: false,
            code: None,
            reason: None,
            debug: false,
            route: None,
            separate_stats: false,
            channel_prefix: None,
            log_level: None,
            trusted: false,
            run: None,
            channel: None,
            ttl: None,
            timeout: None,
            keep_alive_mode: None,
            client: None,
            lane: None,
            after: None,
            told: false,
            also: None,
        }
    }
}

/// Below zero counts as none.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    i64::deserialize(deserializer).map(|seconds| Some(seconds.clamp(0, i64::from(u32::MAX)) as u32))
}
