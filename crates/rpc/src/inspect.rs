// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether and how a request is to be proxied: asked before each (internal RPC, method inspect).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tnetstring::Value;

use crate::call::Method;
use crate::{Headers, Octets, is_false};

/// The question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspect<'a> {
    /// Request method.
    #[serde(borrow)]
    pub method: Octets<'a>,
    /// The client's URI.
    #[serde(borrow)]
    pub uri: Octets<'a>,
    /// The client's headers.
    #[serde(borrow)]
    pub headers: Headers<'a>,
    /// The first 10,000 bytes of the body at most.
    #[serde(borrow)]
    pub body: Octets<'a>,
    /// There is more of the body.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// The route wants to know about the client's session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub get_session: bool,
    /// Clients that ask for the same share one request (internal requests).
    #[serde(default, skip_serializing_if = "is_false")]
    pub auto_share: bool,
}

impl Method for Inspect<'_> {
    const NAME: &'static str = "inspect";
}

/// The answer. The proxy repeats it in `accept`, and the handler in a retry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspected<'a> {
    /// Do not ask a backend; the handler answers.
    pub no_proxy: bool,
    /// Clients with the same key share one request.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub sharing_key: Option<Octets<'a>>,
    /// Tells sessions of a client apart.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Octets<'a>>,
    /// The last item that the client has seen of each channel.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub last_ids: BTreeMap<Octets<'a>, Octets<'a>>,
    /// Of no meaning to the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Value>,
    /// How long in ms the handler need not be asked again (ours; originals neither send nor read it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspect_again: Option<u64>,
}

impl Inspected<'_> {
    /// The same with everything copied, for what outlives its message.
    pub fn into_owned(self) -> Inspected<'static> {
        let last_ids = self.last_ids.into_iter().map(|(channel, id)| (channel.into_owned(), id.into_owned()));
        Inspected {
            no_proxy: self.no_proxy,
            sharing_key: self.sharing_key.map(Octets::into_owned),
            sid: self.sid.map(Octets::into_owned),
            last_ids: last_ids.collect(),
            user_data: self.user_data,
            inspect_again: self.inspect_again,
        }
    }
}
