// SPDX-License-Identifier: AGPL-3.0-or-later
//! Publish items: what a publisher sends to a channel, in JSON or tnetstring (publishing, item format).
//!
//! An item has the same message in up to three formats, one for each way a client may be held. Input comes from the
//! HTTP endpoint, the PULL and SUB sockets and the command socket; the handler fans the result out.

mod formats;
#[cfg(test)]
mod tests;

use serde_json::Value as Json;
use tnetstring::Checked;

pub use formats::{Action, Formats, HttpResponse, HttpStream, ResponseBody, WsMessage, WsSend, WsType};

use crate::json;
use crate::meta::Meta;
use crate::tree::{Malformed, Node};

/// One published message.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The full name of the channel; no prefix is added.
    pub channel: String,
    /// The message's id.
    pub id: Option<String>,
    /// The id of the message before it.
    pub prev_id: Option<String>,
    /// The message, in each format it has.
    pub formats: Formats,
    /// Data for filters.
    pub meta: Meta,
    /// The size to count instead of the content's, in bytes.
    pub size: Option<u64>,
    /// Is not sequenced with the channel's other messages.
    pub no_seq: bool,
}

/// Why a message that should hold one item does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// After `J` there is no JSON.
    #[error("invalid format (json parse failed)")]
    Json,
    /// After `J` there is JSON, but no object.
    #[error("invalid format (not a valid json object)")]
    NotJsonObject,
    /// The bytes are no tnetstring.
    #[error("invalid format (tnetstring parse failed)")]
    Tnetstring,
    /// The item itself.
    #[error("invalid format: {0}")]
    Item(#[from] Malformed),
}

/// Why the body of a publish request is refused. The texts are those publishers know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is neither a JSON object nor an array.
    #[error("Body is not valid JSON.")]
    Json,
    /// The body is an array.
    #[error("Invalid format.")]
    Array,
    /// The list of items, or one of them.
    #[error("Invalid format: {0}")]
    Item(#[from] Malformed),
}

/// Reads a message of the PULL and SUB sockets: `J` and JSON, `T` and tnetstring, or tnetstring alone. `topic` is the
/// channel of a SUB message; if it is not empty it counts, whatever the item says.
///
/// # Errors
/// The message holds no valid item.
pub fn from_message(message: &[u8], topic: Option<&str>) -> Result<Item, MessageError> {
    if let Some(document) = message.strip_prefix(b"J") {
        return from_json(document, topic);
    }
    let encoded = message.strip_prefix(b"T").unwrap_or(message);
    let checked = tnetstring::split(encoded).and_then(|(value, _)| Checked::new(value));
    Ok(Item::read(Node::Tnet(checked.map_err(|_| MessageError::Tnetstring)?), topic)?)
}

/// Reads one item in JSON, as a line of a batch is. A `topic` counts as it does in [`from_message`].
///
/// # Errors
/// The document is no valid item.
pub fn from_json(document: &[u8], topic: Option<&str>) -> Result<Item, MessageError> {
    match json::parse(document).map_err(|_| MessageError::Json)? {
        value @ Json::Object(_) => Ok(Item::read(Node::Json(&value), topic)?),
        _ => Err(MessageError::NotJsonObject),
    }
}

/// The body of a publish request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is to be published, in this order.
    pub items: Vec<Item>,
    /// Whether the publisher wants to know who got it (`"report": true`).
    pub report: bool,
}

/// Reads the body of a publish request: `{"items":[...]}`. All items are valid, or none counts.
///
/// # Errors
/// The body, or one of its items, is not valid.
pub fn from_request(body: &[u8]) -> Result<Request, RequestError> {
    match json::parse(body) {
        Ok(value @ Json::Object(_)) => {
            let items = from_members(Node::Json(&value))?;
            Ok(Request { items, report: value["report"] == true })
        }
        Ok(Json::Array(_)) => Err(RequestError::Array),
        _ => Err(RequestError::Json),
    }
}

/// Reads the member `items` of an object, as it is in a publish request and in the arguments of a publish command.
///
/// # Errors
/// `items` is missing, or is not a list of valid items.
pub fn from_members(object: Node<'_>) -> Result<Vec<Item>, Malformed> {
    let items = object.get("items").ok_or(Malformed::Missing("object".into(), "'items'"))?;
    let list = items.list().ok_or_else(|| Malformed::WrongType("object".into(), "items".into()))?;
    let item = |(at, node)| {
        Item::read(node, None).map_err(|error| match error {
            // Not one of the texts that publishers match on, so that it may say which item it is about.
            Malformed::Unsendable(..) => Malformed::other(format!("items[{at}]: {error}")),
            error => error,
        })
    };
    list.into_iter().enumerate().map(item).collect()
}

const ITEM: &str = "publish item object";

impl Item {
    /// Reads one item. A `topic` that is not empty is the channel.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order in which they are documented.
    pub fn read(node: Node<'_>, topic: Option<&str>) -> Result<Self, Malformed> {
        if !node.is_object() {
            return Err(Malformed::NotObject(ITEM.into()));
        }
        let channel = match topic {
            Some(topic) if !topic.is_empty() => topic.to_string(),
            _ => node.string_member("channel", ITEM)?.ok_or(Malformed::Missing(ITEM.into(), "'channel'"))?.into_owned(),
        };
        let id = node.string_member("id", ITEM)?.map(Into::into);
        let prev_id = node.string_member("prev-id", ITEM)?.map(Into::into);
        let formats = Formats::read(node)?;
        let meta = node.strings_member("meta", ITEM)?.into_iter().collect();
        let size = node.number_member("size", ITEM, 0..=i64::from(i32::MAX))?.map(|size| size as u64);
        let no_seq = match node.get("no-seq") {
            None => false,
            Some(flag) => flag.boolean().ok_or_else(|| Malformed::WrongType(ITEM.into(), "no-seq".into()))?,
        };
        Ok(Item { channel, id, prev_id, formats, meta, size, no_seq })
    }
}
