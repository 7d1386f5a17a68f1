// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a backend tells the handler over its WebSocket: the JSON behind `c:` (GRIP, control messages).

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use wire::websocket::MAX_CONTROL;

use crate::item::WsType;
use crate::json;
use crate::tree::{Malformed, Node, decode_base64};

const MESSAGE: &str = "grip control packet";
/// Silence before a keep-alive, unless the backend says otherwise.
const KEEP_ALIVE: Duration = Duration::from_secs(55);
/// How long a delayed message waits, unless the backend says otherwise.
const DELAY: Duration = Duration::from_secs(1);

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Subscribe the client to a channel, or change the filters of a subscription.
    Subscribe {
        /// Without the route's prefix; not empty.
        channel: String,
        /// Names of filters, known or not.
        filters: Vec<String>,
    },
    /// End a subscription.
    Unsubscribe {
        /// Without the route's prefix; not empty.
        channel: String,
    },
    /// The client stays, the backend's connection ends.
    Detach,
    /// Binds the connection to a session, or to none.
    Session {
        /// The session's id.
        id: Option<String>,
    },
    /// Sets data for filters.
    SetMeta {
        /// Not empty.
        name: String,
        /// None: the name is removed.
        value: Option<String>,
    },
    /// What a client is sent that has been sent nothing else; none: nothing.
    KeepAlive(Option<KeepAlive>),
    /// Send a message later.
    SendDelayed {
        /// What is sent.
        message: Message,
        /// How much later.
        delay: Duration,
    },
    /// Send the delayed message now.
    FlushDelayed,
}

/// A message for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: WsType,
    /// Its content.
    pub content: Bytes,
}

/// What a silent client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// What is sent.
    pub message: Message,
    /// After how much silence; whole seconds, at least one.
    pub timeout: Duration,
    /// At fixed intervals, whatever else is sent.
    pub by_interval: bool,
}

/// Why a control message has no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is no JSON.
    #[error("{MESSAGE} is not valid JSON")]
    Json,
    /// Something in it is wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its type does not exist.
    #[error("{MESSAGE} contains 'type' with unknown value")]
    UnknownType,
    /// The type of the message that it carries does not exist.
    #[error("{MESSAGE} contains 'message-type' with unknown value")]
    UnknownMessageType,
    /// Clients would close their connection.
    #[error("{MESSAGE} has a ping or pong of more than 125 bytes")]
    LongPing,
}

impl Control {
    /// Reads what stands behind `c:`.
    ///
    /// # Errors
    /// It has no effect; the connection goes on.
    pub fn read(message: &[u8]) -> Result<Self, ControlError> {
        let value: Json = json::parse(message).map_err(|_| ControlError::Json)?;
        let node = Node::Json(&value);
        if !node.is_object() {
            return Err(Malformed::NotObject(MESSAGE.into()).into());
        }
        let text = |key| node.string_member(key, MESSAGE).map(|text| text.map(Cow::into_owned));
        let required = |key: &'static str, quoted: &'static str| match text(key)? {
            Some(text) if text.is_empty() => Err(Malformed::InvalidValue(MESSAGE.into(), key)),
            Some(text) => Ok(text),
            None => Err(Malformed::Missing(MESSAGE.into(), quoted)),
        };
        Ok(match &*required("type", "'type'")? {
            "subscribe" => Control::Subscribe { channel: required("channel", "'channel'")?, filters: filters(node)? },
            "unsubscribe" => Control::Unsubscribe { channel: required("channel", "'channel'")? },
            "detach" => Control::Detach,
            "session" => Control::Session { id: text("id")?.filter(|id| !id.is_empty()) },
            "set-meta" => Control::SetMeta { name: required("name", "'name'")?, value: text("value")? },
            "keep-alive" => {
                let timeout = seconds(node)?.unwrap_or(KEEP_ALIVE);
                let by_interval = text("mode")?.as_deref() == Some("interval");
                Control::KeepAlive(carried(node)?.map(|message| KeepAlive { message, timeout, by_interval }))
            }
            "send-delayed" => {
                let delay = seconds(node)?.unwrap_or(DELAY);
                let missing = Malformed::Missing(MESSAGE.into(), "'content' or 'content-bin'");
                Control::SendDelayed { message: carried(node)?.ok_or(missing)?, delay }
            }
            "flush-delayed" => Control::FlushDelayed,
            _ => return Err(ControlError::UnknownType),
        })
    }
}

fn filters(node: Node<'_>) -> Result<Vec<String>, Malformed> {
    let wrong = || Malformed::WrongType(MESSAGE.into(), "filters".into());
    let Some(filters) = node.get("filters") else { return Ok(Vec::new()) };
    let list = filters.list().ok_or_else(wrong)?;
    list.into_iter().map(|filter| filter.text().map(Cow::into_owned).ok_or_else(wrong)).collect()
}

/// The member `timeout`; zero counts as absent.
fn seconds(node: Node<'_>) -> Result<Option<Duration>, Malformed> {
    let seconds = node.number_member("timeout", MESSAGE, 0..=i64::from(u32::MAX))?;
    Ok(seconds.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds as u64)))
}

/// The message that a control message carries. Its type is text unless it is named, for `content-bin` too, as it has always
/// been.
fn carried(node: Node<'_>) -> Result<Option<Message>, ControlError> {
    let kind = match node.string_member("message-type", MESSAGE)?.as_deref() {
        None | Some("text") => WsType::Text,
        Some("binary") => WsType::Binary,
        Some("ping") => WsType::Ping,
        Some("pong") => WsType::Pong,
        Some(_) => return Err(ControlError::UnknownMessageType),
    };
    let content = match (node.string_member("content-bin", MESSAGE)?, node.string_member("content", MESSAGE)?) {
        (Some(encoded), _) => decode_base64(encoded.as_bytes()),
        (None, Some(content)) => content.into_owned().into_bytes(),
        (None, None) => return Ok(None),
    };
    if matches!(kind, WsType::Ping | WsType::Pong) && content.len() > MAX_CONTROL {
        return Err(ControlError::LongPing);
    }
    Ok(Some(Message { kind, content: content.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &str) -> Result<Control, String> {
        Control::read(message.as_bytes()).map_err(|error| error.to_string())
    }

    fn message(kind: WsType, content: &'static str) -> Message {
        Message { kind, content: Bytes::from_static(content.as_bytes()) }
    }

    #[test]
    fn each_type_is_read_with_its_members() {
        let subscribe = Control::Subscribe { channel: "c".into(), filters: vec!["skip-self".into(), "x".into()] };
        assert_eq!(read(r#"{"type":"subscribe","channel":"c","filters":["skip-self","x"],"more":1}"#), Ok(subscribe));
        let unsubscribe = Control::Unsubscribe { channel: "c".into() };
        assert_eq!(read(r#"{"type":"unsubscribe","channel":"c"}"#), Ok(unsubscribe));
        assert_eq!(read(r#"{"type":"detach"}"#), Ok(Control::Detach));
        assert_eq!(read(r#"{"type":"session","id":"s"}"#), Ok(Control::Session { id: Some("s".into()) }));
        assert_eq!(read(r#"{"type":"session"}"#), Ok(Control::Session { id: None }));
        let meta = |value: Option<&str>| Control::SetMeta { name: "user".into(), value: value.map(Into::into) };
        assert_eq!(read(r#"{"type":"set-meta","name":"user","value":"bob"}"#), Ok(meta(Some("bob"))));
        assert_eq!(read(r#"{"type":"set-meta","name":"user"}"#), Ok(meta(None)));
        assert_eq!(read(r#"{"type":"flush-delayed"}"#), Ok(Control::FlushDelayed));
    }

    #[test]
    fn messages_have_defaults_as_they_have_always_had() {
        let keep_alive = |message, seconds, by_interval| {
            let timeout = Duration::from_secs(seconds);
            Ok(Control::KeepAlive(Some(KeepAlive { message, timeout, by_interval })))
        };
        let text = || message(WsType::Text, "x");
        assert_eq!(read(r#"{"type":"keep-alive","content":"x"}"#), keep_alive(text(), 55, false));
        assert_eq!(read(r#"{"type":"keep-alive","content":"x","timeout":0}"#), keep_alive(text(), 55, false));
        let all = r#"{"type":"keep-alive","content-bin":"eA==","message-type":"ping","timeout":"3","mode":"interval"}"#;
        assert_eq!(read(all), keep_alive(message(WsType::Ping, "x"), 3, true));
        assert_eq!(read(r#"{"type":"keep-alive","content-bin":"eA=="}"#), keep_alive(text(), 55, false));
        assert_eq!(read(r#"{"type":"keep-alive"}"#), Ok(Control::KeepAlive(None)));
        let delayed = |seconds| Control::SendDelayed { message: text(), delay: Duration::from_secs(seconds) };
        assert_eq!(read(r#"{"type":"send-delayed","content":"x"}"#), Ok(delayed(1)));
        assert_eq!(read(r#"{"type":"send-delayed","content":"x","timeout":9}"#), Ok(delayed(9)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (message, error) in [
            ("", "grip control packet is not valid JSON"),
            ("[]", "grip control packet is not an object"),
            ("{}", "grip control packet does not contain 'type'"),
            (r#"{"type":1}"#, "grip control packet contains 'type' with wrong type"),
            (r#"{"type":"Subscribe"}"#, "grip control packet contains 'type' with unknown value"),
            (r#"{"type":"subscribe"}"#, "grip control packet does not contain 'channel'"),
            (r#"{"type":"subscribe","channel":""}"#, "grip control packet contains 'channel' with invalid value"),
            (
                r#"{"type":"subscribe","channel":"c","filters":"x"}"#,
                "grip control packet contains 'filters' with wrong type",
            ),
            (
                r#"{"type":"subscribe","channel":"c","filters":[1]}"#,
                "grip control packet contains 'filters' with wrong type",
            ),
            (r#"{"type":"set-meta","name":""}"#, "grip control packet contains 'name' with invalid value"),
            (r#"{"type":"send-delayed"}"#, "grip control packet does not contain 'content' or 'content-bin'"),
            (
                &format!(r#"{{"type":"send-delayed","message-type":"ping","content":"{}"}}"#, "x".repeat(126)),
                "grip control packet has a ping or pong of more than 125 bytes",
            ),
            (
                r#"{"type":"keep-alive","content":"x","message-type":"x"}"#,
                "grip control packet contains 'message-type' with unknown value",
            ),
            (
                r#"{"type":"keep-alive","content":"x","timeout":-1}"#,
                "grip control packet contains 'timeout' with invalid value",
            ),
        ] {
            assert_eq!(read(message), Err(error.to_string()), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::read(&message);
        }

        #[test]
        fn any_member_values_are_read_or_refused(
            kind in prop::sample::select(vec!["subscribe", "set-meta", "keep-alive", "send-delayed", "session"]),
            key in prop::sample::select(vec!["channel", "filters", "name", "value", "content", "content-bin", "timeout", "id"]),
            value in prop::sample::select(vec!["null", "1e300", "-1", "[]", "{}", "[null]", "\"\"", "\"\u{0}\"", "true"]),
        ) {
            let _ = Control::read(format!("{{\"type\":\"{kind}\",\"{key}\":{value}}}").as_bytes());
        }
    }
}
