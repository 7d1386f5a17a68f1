// SPDX-License-Identifier: AGPL-3.0-or-later
//! Instructs: what a backend's response asks the proxy to do with the client (GRIP, parsing the instruct).
//!
//! Input is the backend's response as the proxy passes it on with `accept`; output says how to hold the client, on
//! which channels, and which response the client gets. The response borrows from the input.

mod from_headers;
mod from_json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::Duration;

use crate::head::{Headers, Names, Pair, Reason, StatusCode, Unsendable, is_for_the_hop, starts_with_grip};
use crate::meta::Meta;
use crate::tree::Malformed;

/// How long a long-poll waits when the backend does not say.
const DEFAULT_TIMEOUT: u32 = 55;
/// The least a long-poll waits, whatever the backend says: clients that come back at once cost more than they gain.
const MIN_TIMEOUT: u32 = 5;
/// Seconds between keep-alives when the backend does not say.
const DEFAULT_KEEP_ALIVE: u32 = 55;
/// Seconds after which a stream's next link is fetched when the backend does not say.
const DEFAULT_LINK_TIMEOUT: u32 = 120;

/// What a backend asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruct<'a> {
    /// How the client is held; `None` means that it gets the response now.
    pub hold: Option<HoldMode>,
    /// What the client is subscribed to.
    pub channels: Vec<Channel>,
    /// How long a long-poll waits.
    pub timeout: Duration,
    /// What a silent stream sends.
    pub keep_alive: Option<KeepAlive>,
    /// Data for filters.
    pub meta: Meta,
    /// The first response of a stream, the last resort of a long-poll, or all there is.
    pub response: Response<'a>,
    /// Where a stream goes on.
    pub next: Option<NextLink>,
    /// What to call when the client is gone; as written, to be resolved against the request's URI.
    pub gone: Option<String>,
}

/// The two ways to hold an HTTP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldMode {
    /// Long-poll: one message is the response.
    Response,
    /// Streaming: messages are appended to the response.
    Stream,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The name as the backend wrote it, without the route's prefix.
    pub name: String,
    /// The id of the last message that the client has; `None` switches gap detection off.
    pub prev_id: Option<String>,
    /// Filters, in the order in which they apply.
    pub filters: Vec<String>,
}

/// What a silent stream sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The bytes to send.
    pub data: Vec<u8>,
    /// How long to wait; at least a second.
    pub timeout: Duration,
    /// What counts as silence.
    pub mode: KeepAliveMode,
}

/// When a keep-alive is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeepAliveMode {
    /// After so long without a message.
    Idle,
    /// Every so often, whatever is sent.
    Interval,
}

/// Where a stream goes on when its response has ended or was silent for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextLink {
    /// The link as written, to be resolved against the request's URI.
    pub uri: String,
    /// Silence after which it is fetched.
    pub timeout: Duration,
}

/// A response for the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Response<'a> {
    /// Status.
    pub code: StatusCode,
    /// Status text.
    pub reason: Reason<'a>,
    /// Headers, without those that are for the proxy or about the connection.
    pub headers: Headers<'a>,
    /// The content.
    pub body: Cow<'a, [u8]>,
}

/// A backend's response, as it came.
#[derive(Clone, Copy, Debug)]
pub struct BackendResponse<'a> {
    /// Status.
    pub code: u16,
    /// Status text; may be empty.
    pub reason: &'a [u8],
    /// All headers, in order.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The content.
    pub body: &'a [u8],
}

/// Why an instruct is refused. The texts are those backends know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstructError {
    /// A `Grip-*` header, or the JSON form as a whole.
    #[error("{0}")]
    Value(Cow<'static, str>),
    /// Something inside the JSON form.
    #[error("{0}")]
    Json(#[from] Malformed),
    /// The response for the client.
    #[error("response cannot be sent: {0}")]
    Response(#[from] Unsendable),
}

impl InstructError {
    fn new(text: impl Into<Cow<'static, str>>) -> Self {
        InstructError::Value(text.into())
    }
}

impl<'a> Instruct<'a> {
    /// Reads what a response asks for, from its headers and, if its content type says so, from its body.
    ///
    /// # Errors
    /// The first mistake in the instructions; the client then gets an error instead of the response.
    pub fn read(response: BackendResponse<'a>) -> Result<Self, InstructError> {
        let mut draft = from_headers::read(response)?;
        if from_headers::is_instruct_document(response.headers) {
            from_json::read(response, &mut draft)?;
        }
        draft.finish()
    }
}

/// Whether a response has anything in it for the proxy, so that reading it as an instruct is worth while.
pub fn concerns(headers: &[(&[u8], &[u8])]) -> bool {
    headers.iter().any(|(name, _)| starts_with_grip(name)) || from_headers::is_instruct_document(headers)
}

/// An instruct in the making: header and JSON form add to each other.
struct Draft<'a> {
    hold: Option<HoldMode>,
    channels: Vec<Channel>,
    timeout: Option<u32>,
    keep_alive: Option<(Vec<u8>, u32)>,
    keep_alive_mode: Option<KeepAliveMode>,
    /// In the order of the document; of equal names the last one counts.
    meta: Vec<(String, String)>,
    code: u16,
    reason: Cow<'a, [u8]>,
    /// Not looked at yet.
    headers: Vec<Pair<'a>>,
    body: Cow<'a, [u8]>,
    exposed: Vec<Vec<u8>>,
    next: Option<NextLink>,
    gone: Option<String>,
}

impl<'a> Draft<'a> {
    fn add_channel(&mut self, channel: Channel) -> Result<(), InstructError> {
        if channel.filters.len() > crate::MAX_FILTERS {
            return Err(InstructError::new(format!("too many filters for channel '{}'", channel.name)));
        }
        // A subscription to nothing would be one to everything on a SUB socket.
        if !channel.name.is_empty() {
            self.channels.push(channel);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Instruct<'a>, InstructError> {
        let exposed = Names::new(self.exposed.iter().map(Vec::as_slice));
        let is_shown = |name: &[u8]| !is_for_the_hop(name) && (self.exposed.is_empty() || exposed.contains(name));
        self.headers.retain(|(name, _)| is_shown(name));
        let headers = Headers::new(self.headers)?;
        let code = StatusCode::new(i64::from(self.code))?;
        let reason = Reason::new(self.reason, code)?;
        let mode = self.keep_alive_mode.unwrap_or(KeepAliveMode::Interval);
        let keep_alive = self.keep_alive.map(|(data, timeout)| KeepAlive {
            data,
            timeout: Duration::from_secs(u64::from(timeout.max(1))),
            mode,
        });
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT).max(MIN_TIMEOUT);
        Ok(Instruct {
            hold: self.hold,
            channels: self.channels,
            timeout: Duration::from_secs(u64::from(timeout)),
            keep_alive,
            meta: self.meta.into_iter().collect(),
            response: Response { code, reason, headers, body: self.body },
            next: self.next,
            gone: self.gone,
        })
    }
}
