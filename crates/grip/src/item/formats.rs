// SPDX-License-Identifier: AGPL-3.0-or-later
//! The formats of an item: `http-response` for long-polls, `http-stream` for streams, `ws-message` for WebSockets.

use std::borrow::Cow;

use bytes::Bytes;
use wire::websocket::{MAX_CONTROL, is_sendable};

use super::ITEM;
use crate::MAX_FILTERS;
use crate::head::{Headers, Names, Reason, StatusCode, is_for_the_hop};
use crate::header::elements;
use crate::tree::{Malformed, Node};

/// What an item asks for in one format.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<T> {
    /// Deliver this.
    Send(T),
    /// There is something new: ask the backend.
    Hint,
    /// End the response or connection.
    Close,
    /// Make a WebSocket-over-HTTP connection ask its backend.
    Refresh,
}

/// The formats of an item; at least one, unless only unknown ones were named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Formats {
    /// For clients that wait for a response.
    pub http_response: Option<Action<HttpResponse>>,
    /// For clients that read a stream.
    pub http_stream: Option<Action<HttpStream>>,
    /// For WebSockets.
    pub ws_message: Option<WsMessage>,
}

impl Formats {
    /// The length of the content in bytes for long-polls, streams and WebSockets, as far as there is something for them.
    pub fn lengths(&self) -> [Option<usize>; 3] {
        let response = self.http_response.as_ref().map(|action| match action {
            Action::Send(HttpResponse { body: ResponseBody::Whole(body), .. }) => body.len(),
            _ => 0,
        });
        let stream = self.http_stream.as_ref().map(|action| match action {
            Action::Send(stream) => stream.content.len(),
            _ => 0,
        });
        let socket = self.ws_message.as_ref().map(|message| match message {
            WsMessage::Send(send) => send.content.as_ref().map_or(0, Bytes::len),
            _ => 0,
        });
        [response, stream, socket]
    }
}

/// A whole response.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpResponse {
    /// Status.
    pub code: StatusCode,
    /// Status text.
    pub reason: Reason<'static>,
    /// Headers, without those that are for the proxy or about the connection.
    pub headers: Headers<'static>,
    /// Names of headers that no client is to see, though they were published or are the backend's.
    pub hidden: Box<[Box<[u8]>]>,
    /// Headers that a backend has given are no part of it.
    pub alone: bool,
    /// The content.
    pub body: ResponseBody,
    /// The content filters that the receiving subscription must have.
    pub content_filters: Option<Vec<String>>,
}

impl HttpResponse {
    /// The headers for a client that a backend has given headers of its own for.
    pub fn headers_over<'s>(
        &'s self,
        own: impl IntoIterator<Item = (&'s [u8], &'s [u8])>,
    ) -> Vec<(&'s [u8], &'s [u8])> {
        if self.alone {
            return self.headers.iter().collect();
        }
        let mut headers = self.headers.over(own);
        if !self.hidden.is_empty() {
            let hidden = Names::new(self.hidden.iter().map(|name| &**name));
            headers.retain(|(name, _)| !hidden.contains(name));
        }
        headers
    }
}

/// The content of a published response.
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseBody {
    /// These bytes.
    Whole(Bytes),
    /// Changes to the body of the receiver's own instruct (JSON Patch).
    Patch(Vec<serde_json::Value>),
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpStream {
    /// The bytes to append.
    pub content: Bytes,
    /// The content filters that the receiving subscription must have.
    pub content_filters: Option<Vec<String>>,
}

/// What happens to a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub enum WsMessage {
    /// A message.
    Send(WsSend),
    /// A close frame.
    Close {
        /// Status, if any.
        code: Option<u64>,
        /// Text.
        reason: String,
    },
    /// A WebSocket-over-HTTP connection asks its backend.
    Refresh,
    /// Nothing.
    Hint,
}

/// A WebSocket message.
#[derive(Clone, Debug, PartialEq)]
pub struct WsSend {
    /// Its type.
    pub kind: WsType,
    /// Its content; pings and pongs may have none.
    pub content: Option<Bytes>,
    /// The content filters that the receiving subscription must have.
    pub content_filters: Option<Vec<String>>,
}

/// Types of WebSocket messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsType {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

const RESPONSE: &str = "'http-response'";
const STREAM: &str = "'http-stream'";
const WS: &str = "'ws-message'";

impl Formats {
    /// Reads the formats of an item, from `formats` or, if that is absent, from the item itself.
    pub(super) fn read(item: Node<'_>) -> Result<Self, Malformed> {
        let (holder, named) = match item.get("formats") {
            Some(formats) => {
                let entries = formats.entries().ok_or_else(|| Malformed::WrongType(ITEM.into(), "formats".into()))?;
                (formats, !entries.is_empty())
            }
            None => (item, ["http-response", "http-stream", "ws-message"].iter().any(|f| item.get(f).is_some())),
        };
        if !named {
            return Err(Malformed::other("no formats specified"));
        }
        Ok(Formats {
            http_response: holder.get("http-response").map(read_http_response).transpose()?,
            http_stream: holder.get("http-stream").map(read_http_stream).transpose()?,
            ws_message: holder.get("ws-message").map(read_ws_message).transpose()?,
        })
    }
}

fn read_action(node: Node<'_>, format: &'static str) -> Result<Action<()>, Malformed> {
    if !node.is_object() {
        return Err(Malformed::NotObject(format.into()));
    }
    match node.string_member("action", format)?.as_deref() {
        None | Some("send") => Ok(Action::Send(())),
        Some("hint") => Ok(Action::Hint),
        Some("close") => Ok(Action::Close),
        Some("refresh") => Ok(Action::Refresh),
        Some(_) => Err(Malformed::UnknownAction),
    }
}

fn read_content_filters(node: Node<'_>, format: &'static str) -> Result<Option<Vec<String>>, Malformed> {
    let Some(filters) = node.get("content-filters") else { return Ok(None) };
    let list = filters.list().ok_or_else(|| Malformed::WrongType(format.into(), "content-filters".into()))?;
    let name = |node: Node<'_>| match node.text() {
        Some(name) => Ok(name.into_owned()),
        None => Err(Malformed::other("content-filters contains element with wrong type")),
    };
    let names: Vec<String> = list.into_iter().map(name).collect::<Result<_, _>>()?;
    if names.len() > MAX_FILTERS {
        // No subscription can have as many, so it would reach nobody.
        return Err(Malformed::other(format!("content-filters contains more than {MAX_FILTERS} elements")));
    }
    Ok(Some(names))
}

fn read_http_response(node: Node<'_>) -> Result<Action<HttpResponse>, Malformed> {
    match read_action(node, RESPONSE)? {
        Action::Send(()) => {}
        Action::Hint => return Ok(Action::Hint),
        Action::Close => return Ok(Action::Close),
        Action::Refresh => return Ok(Action::Refresh),
    }
    let content_filters = read_content_filters(node, RESPONSE)?;
    let unsendable = |mistake| Malformed::Unsendable(RESPONSE.into(), mistake);
    let code = node.number_member("code", RESPONSE, 0..=999)?.map(StatusCode::new).transpose().map_err(unsendable)?;
    let code = code.unwrap_or(StatusCode::OK);
    let reason = node.string_member("reason", RESPONSE)?.unwrap_or_default().into_owned();
    let reason = Reason::new(reason.into_bytes(), code).map_err(unsendable)?;
    let headers = node.headers_member(RESPONSE)?;
    let hidden = hidden(&headers);
    // Those that the publisher has a say in.
    let pairs = headers.into_iter().filter(|(name, _)| !is_for_the_hop(name));
    let pairs = pairs.map(|(name, value)| (Cow::Owned(name), Cow::Owned(value))).collect();
    let headers = Headers::new(pairs).map_err(unsendable)?;
    let body = read_response_body(node)?;
    Ok(Action::Send(HttpResponse { code, reason, headers, hidden, alone: false, body, content_filters }))
}

/// Names in `Grip-Expose-Headers`. What is published with it goes out without these headers: the contrary of what the name says,
/// and of what it means in a backend's response, but publishers for Pushpin know it so.
fn hidden(headers: &[(Vec<u8>, Vec<u8>)]) -> Box<[Box<[u8]>]> {
    let lists = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"Grip-Expose-Headers"));
    lists.flat_map(|(_, list)| elements(list)).filter(|name| !name.is_empty()).map(Into::into).collect()
}

fn read_response_body(node: Node<'_>) -> Result<ResponseBody, Malformed> {
    if node.is_json()
        && let Some(body) = node.base64_member("body-bin", RESPONSE)?
    {
        return Ok(ResponseBody::Whole(body.into()));
    }
    if let Some(body) = node.get("body") {
        let body = body.bytes().ok_or_else(|| Malformed::WrongType(RESPONSE.into(), "body".into()))?;
        return Ok(ResponseBody::Whole(Bytes::copy_from_slice(body)));
    }
    if let Some(patch) = node.get("body-patch") {
        let list = patch.list().ok_or_else(|| Malformed::WrongType(RESPONSE.into(), "body-patch".into()))?;
        return Ok(ResponseBody::Patch(list.into_iter().map(Node::to_json).collect()));
    }
    let expected = if node.is_json() { "'body', 'body-bin', or 'body-patch'" } else { "'body' or 'body-patch'" };
    Err(Malformed::Missing(RESPONSE.into(), expected))
}

fn read_http_stream(node: Node<'_>) -> Result<Action<HttpStream>, Malformed> {
    match read_action(node, STREAM)? {
        Action::Send(()) => {}
        Action::Hint => return Ok(Action::Hint),
        Action::Close => return Ok(Action::Close),
        Action::Refresh => return Ok(Action::Refresh),
    }
    let content_filters = read_content_filters(node, STREAM)?;
    let binary = if node.is_json() { node.base64_member("content-bin", STREAM)? } else { None };
    let content = match (binary, node.get("content")) {
        (Some(content), _) => content.into(),
        (None, Some(content)) => {
            let content = content.bytes().ok_or_else(|| Malformed::WrongType(STREAM.into(), "content".into()))?;
            Bytes::copy_from_slice(content)
        }
        (None, None) => {
            let expected = if node.is_json() { "'content' or 'content-bin'" } else { "'content'" };
            return Err(Malformed::Missing(STREAM.into(), expected));
        }
    };
    Ok(Action::Send(HttpStream { content, content_filters }))
}

fn read_ws_message(node: Node<'_>) -> Result<WsMessage, Malformed> {
    match read_action(node, WS)? {
        Action::Send(()) => {}
        Action::Hint => return Ok(WsMessage::Hint),
        Action::Refresh => return Ok(WsMessage::Refresh),
        Action::Close => {
            let code = node.number_member("code", WS, 0..=i64::from(i32::MAX))?.map(|code| code as u64);
            // Clients would take one that no frame may have for a breach of the protocol.
            let code = code.filter(|&code| u16::try_from(code).is_ok_and(is_sendable));
            let reason = node.string_member("reason", WS)?.unwrap_or_default().into_owned();
            return Ok(WsMessage::Close { code, reason });
        }
    }
    let content_filters = read_content_filters(node, WS)?;
    let named = match node.string_member("type", WS)?.as_deref() {
        None => None,
        Some("text") => Some(WsType::Text),
        Some("binary") => Some(WsType::Binary),
        Some("ping") => Some(WsType::Ping),
        Some("pong") => Some(WsType::Pong),
        Some(_) => return Err(Malformed::other("'ws-message' contains 'type' with unknown value")),
    };
    let binary = match node.get("content-bin") {
        None => None,
        Some(content) => {
            let raw = content.bytes().ok_or_else(|| Malformed::WrongType(WS.into(), "content-bin".into()))?;
            Some(if node.is_json() { crate::tree::decode_base64(raw).into() } else { Bytes::copy_from_slice(raw) })
        }
    };
    let (implied, content) = match (binary, node.get("content")) {
        (Some(content), _) => (WsType::Binary, Some(content)),
        (None, Some(content)) => {
            let content = content.bytes().ok_or_else(|| Malformed::WrongType(WS.into(), "content".into()))?;
            (WsType::Text, Some(Bytes::copy_from_slice(content)))
        }
        (None, None) => match named {
            Some(kind @ (WsType::Ping | WsType::Pong)) => (kind, None),
            _ => return Err(Malformed::Missing(WS.into(), "'content' or 'content-bin'")),
        },
    };
    let kind = named.unwrap_or(implied);
    fits(kind, content.as_deref().unwrap_or_default())
        .map_err(|reason| Malformed::other(format!("{WS} cannot be sent: {reason}")))?;
    Ok(WsMessage::Send(WsSend { kind, content, content_filters }))
}

/// Whether a message of this kind may have this content (RFC 6455, 5.5 and 5.6). Clients close their connection otherwise.
fn fits(kind: WsType, content: &[u8]) -> Result<(), &'static str> {
    match kind {
        WsType::Ping | WsType::Pong if content.len() > MAX_CONTROL => Err("a ping or pong has more than 125 bytes"),
        WsType::Text if std::str::from_utf8(content).is_err() => Err("text is not UTF-8"),
        WsType::Ping | WsType::Pong | WsType::Text | WsType::Binary => Ok(()),
    }
}
