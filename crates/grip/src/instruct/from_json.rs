// SPDX-License-Identifier: AGPL-3.0-or-later
//! The JSON form: a body of type `application/grip-instruct`. What the headers said still counts; nothing of the HTTP
//! response's own headers and body does.

use std::borrow::Cow;

use super::{BackendResponse, Channel, DEFAULT_KEEP_ALIVE, Draft, HoldMode, InstructError};
use crate::tree::{Malformed, Node};

const HOLD: &str = "hold";
const CHANNEL: &str = "channel";
const KEEP_ALIVE: &str = "keep-alive";
const RESPONSE: &str = "response";

/// The originals' integers end here.
const MAX_SECONDS: i64 = i32::MAX as i64;

pub(super) fn read(response: BackendResponse<'_>, draft: &mut Draft<'_>) -> Result<(), InstructError> {
    if response.code != 200 {
        return Err(InstructError::new("response code for application/grip-instruct content must be 200"));
    }
    let document = crate::json::parse(response.body)
        .ok()
        .filter(|v| v.is_object() || v.is_array())
        .ok_or(InstructError::new("failed to parse application/grip-instruct content as JSON"))?;
    let document = Node::Json(&document);
    if !document.is_object() {
        return Err(InstructError::new("instruct must be an object"));
    }
    draft.headers.clear();
    draft.exposed.clear();
    draft.body = Cow::Borrowed(b"");
    if let Some(hold) = document.get("hold") {
        if !hold.is_object() {
            return Err(Malformed::WrongType("instruct".into(), "hold".into()).into());
        }
        read_hold(hold, draft)?;
    }
    if let Some(response) = document.get("response") {
        if !response.is_object() {
            return Err(Malformed::WrongType("instruct".into(), "response".into()).into());
        }
        read_response(response, draft)?;
    }
    Ok(())
}

fn read_hold(hold: Node<'_>, draft: &mut Draft<'_>) -> Result<(), InstructError> {
    draft.hold = Some(match hold.string_member("mode", HOLD)?.as_deref() {
        None | Some("response") => HoldMode::Response,
        Some("stream") => HoldMode::Stream,
        Some(_) => return Err(InstructError::new("hold 'mode' must be set to either 'response' or 'stream'")),
    });
    let channels = hold.get("channels").ok_or(Malformed::Missing(HOLD.into(), "'channels'"))?;
    let channels = channels.list().ok_or_else(|| Malformed::WrongType(HOLD.into(), "channels".into()))?;
    for channel in channels {
        draft.add_channel(read_channel(channel)?)?;
    }
    if let Some(timeout) = hold.number_member("timeout", HOLD, 0..=MAX_SECONDS)? {
        draft.timeout = Some(timeout as u32);
    }
    if let Some(keep_alive) = hold.get("keep-alive") {
        if !keep_alive.is_object() {
            return Err(Malformed::WrongType(HOLD.into(), "keep-alive".into()).into());
        }
        let content = match keep_alive.base64_member("content-bin", KEEP_ALIVE)? {
            Some(content) => Some(content),
            None => keep_alive.string_member("content", KEEP_ALIVE)?.map(|c| c.into_owned().into_bytes()),
        };
        let timeout = keep_alive.number_member("timeout", KEEP_ALIVE, 0..=MAX_SECONDS)?;
        if let Some(content) = content {
            draft.keep_alive = Some((content, timeout.unwrap_or(i64::from(DEFAULT_KEEP_ALIVE)) as u32));
        }
    }
    draft.meta.extend(hold.strings_member("meta", HOLD)?);
    Ok(())
}

fn read_channel(node: Node<'_>) -> Result<Channel, Malformed> {
    if !node.is_object() {
        return Err(Malformed::NotObject(CHANNEL.into()));
    }
    let name = node.string_member("name", CHANNEL)?.ok_or(Malformed::Missing(CHANNEL.into(), "'name'"))?.into_owned();
    let prev_id = node.string_member("prev-id", CHANNEL)?.map(Into::into);
    let filters = match node.get("filters") {
        None => Vec::new(),
        Some(filters) => {
            let list = filters.list().ok_or_else(|| Malformed::WrongType(CHANNEL.into(), "filters".into()))?;
            let wrong = || Malformed::other("filters contains value with wrong type");
            list.into_iter().map(|f| Ok(f.text().ok_or_else(wrong)?.into_owned())).collect::<Result<_, Malformed>>()?
        }
    };
    Ok(Channel { name, prev_id, filters })
}

fn read_response(response: Node<'_>, draft: &mut Draft<'_>) -> Result<(), InstructError> {
    if let Some(code) = response.number_member("code", RESPONSE, 0..=999)? {
        draft.code = code as u16;
        draft.reason = Cow::Borrowed(b"");
    }
    if let Some(reason) = response.string_member("reason", RESPONSE)?
        && !reason.is_empty()
    {
        draft.reason = Cow::Owned(reason.into_owned().into_bytes());
    }
    let headers = response.headers_member(RESPONSE)?;
    draft.headers = headers.into_iter().map(|(n, v)| (Cow::Owned(n), Cow::Owned(v))).collect();
    if let Some(body) = response.base64_member("body-bin", RESPONSE)? {
        draft.body = Cow::Owned(body);
    } else if let Some(body) = response.string_member("body", RESPONSE)? {
        draft.body = Cow::Owned(body.into_owned().into_bytes());
    }
    Ok(())
}
