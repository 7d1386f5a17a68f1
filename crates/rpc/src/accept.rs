// SPDX-License-Identifier: AGPL-3.0-or-later
//! Giving requests to the handler, together with the backend's response (internal RPC, method accept).

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::call::Method;
use crate::inspect::Inspected;
use crate::stats::ConnMax;
use crate::{Octets, RequestData, RequestState, ResponseData, is_false};

/// The requests, and everything that the handler must know to hold them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Accept<'a> {
    /// One for each client that waits for this response.
    #[serde(borrow)]
    pub requests: Vec<RequestState<'a>>,
    /// What the backend was sent.
    #[serde(borrow)]
    pub request_data: RequestData<'a>,
    /// What the client sent.
    #[serde(borrow)]
    pub orig_request_data: RequestData<'a>,
    /// What the backend answered. Absent if no backend was asked.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseData<'a>>,
    /// What the handler said when it was asked about the request.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Inspected<'a>>,
    /// The route's id.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The route is counted and limited apart from others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub separate_stats: bool,
    /// Put before the names of channels that the backend gives.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub channel_prefix: Option<&'a str>,
    /// Of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<i32>,
    /// Channels of the target, by their full names.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<&'a str>,
    /// The target may be on a private network.
    #[serde(default, skip_serializing_if = "is_false")]
    pub trusted: bool,
    /// The route wants sessions to be detected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_session: bool,
    /// The client has the response's head and body already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub response_sent: bool,
    /// Connections before and after the requests are given away, if connections are counted this way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conn_max: Vec<ConnMax>,
}

/// What a handler reads of an [`Accept`]. The request as the backend got it must be there and is not decoded: lists of headers
/// that nobody looks at were a third of what taking over a hold cost.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Offer<'a> {
    /// As [`Accept::requests`].
    #[serde(borrow)]
    pub requests: Vec<RequestState<'a>>,
    /// As [`Accept::request_data`].
    pub request_data: IgnoredAny,
    /// As [`Accept::orig_request_data`].
    #[serde(borrow)]
    pub orig_request_data: Asked<'a>,
    /// As [`Accept::response`].
    #[serde(borrow)]
    pub response: Option<ResponseData<'a>>,
    /// As [`Accept::route`].
    #[serde(borrow)]
    pub route: Option<&'a str>,
    /// As [`Accept::separate_stats`].
    #[serde(default)]
    pub separate_stats: bool,
    /// As [`Accept::channel_prefix`].
    #[serde(borrow)]
    pub channel_prefix: Option<&'a str>,
    /// As [`Accept::channels`].
    #[serde(borrow, default)]
    pub channels: Vec<&'a str>,
    /// As [`Accept::trusted`].
    #[serde(default)]
    pub trusted: bool,
    /// As [`Accept::response_sent`].
    #[serde(default)]
    pub response_sent: bool,
    /// As [`Accept::conn_max`].
    #[serde(default)]
    pub conn_max: Vec<ConnMax>,
}

/// Method and URI of a request, without the rest of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Asked<'a> {
    /// Request method.
    #[serde(borrow)]
    pub method: Octets<'a>,
    /// Absolute URI.
    #[serde(borrow)]
    pub uri: Octets<'a>,
}

impl Method for Accept<'_> {
    const NAME: &'static str = "accept";
}

/// What the handler has decided. With neither, it has nothing to add to a response that was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accepted<'a> {
    /// The requests are the handler's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accepted: bool,
    /// They are not; this is the response.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseData<'a>>,
}
