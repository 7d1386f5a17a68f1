// SPDX-License-Identifier: AGPL-3.0-or-later
//! The command sockets: of the handler, for operators and libraries, and of the proxy, for the handler (control, command
//! socket; internal RPC, proxy command socket).
//!
//! `recover` has no arguments. `publish` has published items, which are `grip`'s to read.

use serde::{Deserialize, Serialize};

use crate::Octets;
use crate::call::Method;

/// Which of these connections are there? The answer is a list of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnCheck<'a> {
    /// Ids of connections.
    #[serde(borrow)]
    pub ids: Vec<Octets<'a>>,
}

impl Method for ConnCheck<'_> {
    const NAME: &'static str = "conncheck";
}

/// Lets the backends of WebSockets be asked for what is new. The answer is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh<'a> {
    /// Of one connection.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub cid: Option<Octets<'a>>,
    /// Of all that are subscribed to a channel. The proxy does not know this.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Octets<'a>>,
}

impl Method for Refresh<'_> {
    const NAME: &'static str = "refresh";
}

/// The answer to `get-zmq-uris`: where publishers and operators reach the handler. What is not configured is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ZmqUris {
    /// The command socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The PULL socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_pull: Option<String>,
    /// The SUB socket, if it is bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_sub: Option<String>,
}
