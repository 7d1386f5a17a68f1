// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests that the handler gives back, to be proxied anew (internal RPC, retry packet). There is no answer.

use serde::{Deserialize, Serialize};

use crate::inspect::Inspected;
use crate::{Error, Octets, RequestData, RequestState};

/// The requests, and what the client sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Retry<'a> {
    /// The clients' sessions. Not all members have a meaning here.
    #[serde(borrow)]
    pub requests: Vec<RequestState<'a>>,
    /// What the client sent.
    #[serde(borrow)]
    pub request_data: RequestData<'a>,
    /// What the handler knows of the client.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Inspected<'a>>,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// Number of the last connection given back to this proxy, for statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_seq: Option<u32>,
    /// Requests of one round that are the same in all may be sent to the backend as one (ours; originals neither send nor read it).
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub round: Option<Octets<'a>>,
}

impl<'a> Retry<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// Something is missing or has another type; the packet is dropped.
    pub fn decode(message: &'a [u8]) -> Result<Self, Error> {
        tnetstring::from_slice(message)
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// The client's user data are nested too deep.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        tnetstring::to_vec(self)
    }
}
