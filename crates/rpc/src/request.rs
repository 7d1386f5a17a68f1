// SPDX-License-Identifier: AGPL-3.0-or-later
//! What calls about requests have in common: the request, the response, and where the client's session stands.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use tnetstring::Value;
use zhttp::session::HandedOver;
use zhttp::{Id, Peers};

use crate::{Headers, Octets, is_false};

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestData<'a> {
    /// Request method.
    #[serde(borrow)]
    pub method: Octets<'a>,
    /// Absolute URI.
    #[serde(borrow)]
    pub uri: Octets<'a>,
    /// Headers. A retry may come without.
    #[serde(borrow, default)]
    pub headers: Headers<'a>,
    /// All of the body, or the beginning of it.
    #[serde(borrow)]
    pub body: Octets<'a>,
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseData<'a> {
    /// Status.
    pub code: u16,
    /// Status text.
    #[serde(borrow)]
    pub reason: Octets<'a>,
    /// Headers.
    #[serde(borrow)]
    pub headers: Headers<'a>,
    /// Content.
    #[serde(borrow)]
    pub body: Octets<'a>,
}

/// Which session of which client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rid<'a> {
    /// The client's instance.
    #[serde(borrow)]
    pub sender: Octets<'a>,
    /// The session's id.
    #[serde(borrow)]
    pub id: Octets<'a>,
}

/// A request whose session goes from one server to another, and what must be known to answer it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RequestState<'a> {
    /// The session.
    #[serde(borrow)]
    pub rid: Rid<'a>,
    /// Number of the next packet from the client.
    pub in_seq: u32,
    /// Number of the next packet to the client.
    pub out_seq: u32,
    /// Body bytes that may be sent. Below zero counts as none.
    #[serde(deserialize_with = "credits")]
    pub out_credits: u32,
    /// Responses go through ROUTER instead of PUB.
    #[serde(default, skip_serializing_if = "is_false")]
    pub router_resp: bool,
    /// The response has begun, with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_code: Option<u16>,
    /// Goes back with every packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Value>,
    /// The client came with TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub https: bool,
    /// The client's address, without port.
    #[serde(borrow, default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<&'a str>,
    /// The address that the client is said to have.
    #[serde(borrow, default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    pub logical_peer_address: Option<&'a str>,
    /// Errors may be shown in detail.
    #[serde(default, skip_serializing_if = "is_false")]
    pub debug: bool,
    /// The handler had it before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_retry: bool,
    /// The handler is to add headers for access from other sites.
    #[serde(default, skip_serializing_if = "is_false")]
    pub auto_cross_origin: bool,
    /// The handler is to wrap the response in a call of this function.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub jsonp_callback: Option<Octets<'a>>,
    /// With status and headers inside.
    #[serde(default, skip_serializing_if = "is_false")]
    pub jsonp_extended_response: bool,
    /// Time in ms that the connection has lived and statistics do not know of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreported_time: Option<i64>,
}

/// A session that can not be taken over, though its description is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No instance has such a name, or there have been too many.
    #[error("rid: the sender must be the name of an instance, of 1 to 64 bytes without spaces")]
    Sender,
    /// No session has such an id.
    #[error("rid: the id must have 1 to 64 bytes")]
    Id,
}

impl<'a> RequestState<'a> {
    /// Describes a session that is given away. The rest is empty.
    pub fn of(session: &'a HandedOver, peers: &'a Peers) -> Self {
        RequestState {
            rid: Rid { sender: (&**peers.name(session.client)).into(), id: session.id.as_bytes().into() },
            in_seq: session.in_seq,
            out_seq: session.out_seq,
            out_credits: session.credits,
            router_resp: session.by_router,
            ..RequestState::default()
        }
    }

    /// The session to be taken over. Its client's instance becomes known to `peers`.
    ///
    /// # Errors
    /// The instance or the id is none.
    pub fn session(&self, peers: &mut Peers) -> Result<HandedOver, StateError> {
        Ok(HandedOver {
            client: peers.intern(&self.rid.sender).ok_or(StateError::Sender)?,
            id: Id::new(&self.rid.id).ok_or(StateError::Id)?,
            in_seq: self.in_seq,
            out_seq: self.out_seq,
            credits: self.out_credits,
            by_router: self.router_resp,
        })
    }
}

fn credits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    i64::deserialize(deserializer).map(|count| count.clamp(0, i64::from(u32::MAX)) as u32)
}

/// An address as text, perhaps with a zone behind `%`. One that is none makes the message invalid, as in the original.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de str>, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    let number = text.split_once('%').map_or(text, |(number, _)| number);
    match number.parse::<IpAddr>() {
        Ok(_) => Ok(Some(text)),
        Err(_) => {
            Err(serde::de::Error::custom(format_args!("{:?} is not an IP address", text.escape_default().to_string())))
        }
    }
}
