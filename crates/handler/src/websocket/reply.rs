// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the proxy is told of a WebSocket.

use std::rc::Rc;

use bytes::Bytes;
use grip::item::WsType;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An item has come.
    Ack(Box<[u8]>),
    /// The WebSocket is not known, or can not go on.
    Cancel,
    /// A message for the client.
    Send {
        /// Its type.
        kind: WsType,
        /// Its content; a ping may have none.
        content: Option<Bytes>,
        /// It waits for others, and the proxy says under this number when it has left.
        number: Option<u64>,
    },
    /// Tell when the client has been sent nothing for so many seconds, or each time they have passed; none: never.
    KeepAliveSetup(Option<(u32, bool)>),
    /// Close the connection.
    Close {
        /// Status, if any.
        code: Option<i32>,
        /// Text.
        reason: Rc<str>,
        /// The client has its close from us.
        told: bool,
    },
    /// Ask the backend.
    Refresh,
    /// End the connection to the backend.
    Detach,
}
