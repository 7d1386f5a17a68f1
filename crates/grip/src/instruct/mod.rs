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

use crate::reason::default_reason;
use crate::tree::Malformed;

/// Headers of the instruct's response.
pub type Headers<'a> = Vec<(Cow<'a, [u8]>, Cow<'a, [u8]>)>;

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
    /// Data for filters; names are unique.
    pub meta: Vec<(String, String)>,
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
    /// Status, 0 to 999.
    pub code: u16,
    /// Status text, never empty.
    pub reason: Cow<'a, [u8]>,
    /// Headers without those for the proxy, those about the connection, and the length.
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
        Ok(draft.finish())
    }
}

/// Whether a response has anything in it for the proxy, so that reading it as an instruct is worth while.
pub fn concerns(headers: &[(&[u8], &[u8])]) -> bool {
    headers.iter().any(|(name, _)| starts_with_grip(name)) || from_headers::is_instruct_document(headers)
}

fn starts_with_grip(name: &[u8]) -> bool {
    name.len() >= 5 && name[..5].eq_ignore_ascii_case(b"grip-")
}

/// An instruct in the making: header and JSON form add to each other.
struct Draft<'a> {
    hold: Option<HoldMode>,
    channels: Vec<Channel>,
    timeout: Option<u32>,
    keep_alive: Option<(Vec<u8>, u32)>,
    keep_alive_mode: Option<KeepAliveMode>,
    meta: Vec<(String, String)>,
    code: u16,
    reason: Cow<'a, [u8]>,
    headers: Headers<'a>,
    body: Cow<'a, [u8]>,
    exposed: Vec<Vec<u8>>,
    next: Option<NextLink>,
    gone: Option<String>,
}

impl<'a> Draft<'a> {
    fn set_meta(&mut self, name: String, value: String) {
        match self.meta.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.meta.push((name, value)),
        }
    }

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

    fn finish(mut self) -> Instruct<'a> {
        let exposed = &self.exposed;
        self.headers.retain(|(name, _)| {
            !is_for_the_hop(name) && (exposed.is_empty() || exposed.iter().any(|e| e.eq_ignore_ascii_case(name)))
        });
        if self.reason.is_empty() {
            self.reason = Cow::Borrowed(default_reason(self.code).as_bytes());
        }
        let mode = self.keep_alive_mode.unwrap_or(KeepAliveMode::Interval);
        let keep_alive = self.keep_alive.map(|(data, timeout)| KeepAlive {
            data,
            timeout: Duration::from_secs(u64::from(timeout.max(1))),
            mode,
        });
        let timeout = self.timeout.unwrap_or(DEFAULT_TIMEOUT).max(MIN_TIMEOUT);
        Instruct {
            hold: self.hold,
            channels: self.channels,
            timeout: Duration::from_secs(u64::from(timeout)),
            keep_alive,
            meta: self.meta,
            response: Response { code: self.code, reason: self.reason, headers: self.headers, body: self.body },
            next: self.next,
            gone: self.gone,
        }
    }
}

/// Whether a header is for the proxy or about the backend's connection, so that no client gets to see it. The length
/// belongs to the backend's body, not to what is sent in its place. The coding stays: the body is sent as it came.
fn is_for_the_hop(name: &[u8]) -> bool {
    const HOP: [&str; 4] = ["Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"];
    starts_with_grip(name) || HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}
