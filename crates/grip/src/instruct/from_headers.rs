// SPDX-License-Identifier: AGPL-3.0-or-later
//! The header form: `Grip-Hold`, `Grip-Channel` and the others, checked in the order in which mistakes are reported.

use std::borrow::Cow;
use std::time::Duration;

use super::{
    BackendResponse, Channel, DEFAULT_KEEP_ALIVE, DEFAULT_LINK_TIMEOUT, Draft, HoldMode, InstructError, KeepAliveMode,
    NextLink,
};
use crate::header::{all_parameters, elements, first, integer, parameters};
use crate::tree::decode_base64;

/// Whether the body is an instruct in JSON.
pub(super) fn is_instruct_document(headers: &[(&[u8], &[u8])]) -> bool {
    let mut types = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-type"));
    types.next().is_some_and(|(_, value)| first(value) == b"application/grip-instruct")
}

/// The values of one header, by its name in lower case.
fn lines<'a>(response: BackendResponse<'a>, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    response.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|&(_, value)| value)
}

/// The elements of a list header over all its lines.
fn list<'a>(response: BackendResponse<'a>, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    lines(response, name).flat_map(elements)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn read(response: BackendResponse<'_>) -> Result<Draft<'_>, InstructError> {
    let mut draft = Draft {
        hold: None,
        channels: Vec::new(),
        timeout: None,
        keep_alive: None,
        keep_alive_mode: None,
        meta: Vec::new(),
        code: response.code,
        reason: Cow::Borrowed(response.reason),
        headers: response.headers.iter().map(|&(n, v)| (Cow::Borrowed(n), Cow::Borrowed(v))).collect(),
        body: Cow::Borrowed(response.body),
        exposed: Vec::new(),
        next: None,
        gone: None,
    };
    if let Some(hold) = lines(response, "grip-hold").next() {
        draft.hold = Some(match hold.trim_ascii() {
            b"response" => HoldMode::Response,
            b"stream" => HoldMode::Stream,
            _ => return Err(InstructError::new("Grip-Hold must be set to either 'response' or 'stream'")),
        });
    }
    for element in list(response, "grip-channel") {
        let Some(parameters) = parameters(element) else { continue };
        let prev_id = parameters.iter().find(|p| p.is("prev-id")).and_then(|p| p.value.as_deref()).map(text);
        let filters = parameters.iter().filter(|p| p.name == b"filter");
        let filters = filters.map(|p| p.value.as_deref().map(text).unwrap_or_default()).collect();
        draft.add_channel(Channel { name: text(first(element)), prev_id, filters })?;
    }
    if let Some(value) = lines(response, "grip-timeout").next() {
        draft.timeout = Some(seconds(value).map_err(|mistake| {
            InstructError::new(match mistake {
                BadSeconds::NoNumber => "failed to parse Grip-Timeout",
                BadSeconds::OutOfRange => "Grip-Timeout has invalid value",
            })
        })?);
    }
    draft.exposed =
        list(response, "grip-expose-headers").filter(|n| !n.is_empty()).map(|n| first(n).to_vec()).collect();
    if let Some(value) = lines(response, "grip-keep-alive").next() {
        read_keep_alive(value, &mut draft)?;
    }
    for element in list(response, "grip-set-meta") {
        let Some(parameters) = all_parameters(element) else { continue };
        let Some(meta) = parameters.first() else {
            return Err(InstructError::new("Grip-Set-Meta cannot be empty"));
        };
        draft.meta.push((text(meta.name), meta.value.as_deref().map(text).unwrap_or_default()));
    }
    if let Some(value) = lines(response, "grip-status").next().map(<[u8]>::trim_ascii)
        && !value.is_empty()
    {
        let end = value.iter().position(|&b| b == b' ').unwrap_or(value.len());
        let code = integer(&value[..end]).filter(|code| (0..=999).contains(code));
        let code = code.ok_or(InstructError::new("Grip-Status contains invalid status code"))?;
        draft.code = code as u16;
        draft.reason = Cow::Borrowed(value[end..].trim_ascii());
    }
    for element in list(response, "grip-link") {
        read_link(element, &mut draft)?;
    }
    Ok(draft)
}

enum BadSeconds {
    NoNumber,
    OutOfRange,
}

fn seconds(text: &[u8]) -> Result<u32, BadSeconds> {
    // What is no integer of the originals' size is none at all for them.
    let number = integer(text).and_then(|number| i32::try_from(number).ok()).ok_or(BadSeconds::NoNumber)?;
    u32::try_from(number).map_err(|_| BadSeconds::OutOfRange)
}

fn read_keep_alive(value: &[u8], draft: &mut Draft<'_>) -> Result<(), InstructError> {
    if value.trim_ascii().is_empty() {
        return Ok(());
    }
    let data = first(value);
    let Some(parameters) = parameters(value) else { return Ok(()) };
    if data.is_empty() {
        return Err(InstructError::new("Grip-Keep-Alive cannot be empty"));
    }
    let find = |name| parameters.iter().find(|p| p.is(name)).map(|p| p.value.as_deref().unwrap_or_default());
    draft.keep_alive_mode = Some(match find("mode") {
        None | Some(b"" | b"idle") => KeepAliveMode::Idle,
        Some(b"interval") => KeepAliveMode::Interval,
        Some(other) => {
            return Err(InstructError::new(format!("no such Grip-Keep-Alive mode '{}'", text(other))));
        }
    });
    let timeout = match find("timeout") {
        None => DEFAULT_KEEP_ALIVE,
        Some(value) => seconds(value).map_err(|mistake| {
            InstructError::new(match mistake {
                BadSeconds::NoNumber => "failed to parse Grip-Keep-Alive timeout value",
                BadSeconds::OutOfRange => "Grip-Keep-Alive timeout has invalid value",
            })
        })?,
    };
    let data = match find("format") {
        None | Some(b"" | b"raw") => data.to_vec(),
        Some(b"cstring") => {
            unescape(data).ok_or(InstructError::new("failed to parse Grip-Keep-Alive cstring format"))?
        }
        Some(b"base64") => decode_base64(data),
        Some(other) => {
            return Err(InstructError::new(format!("no such Grip-Keep-Alive format '{}'", text(other))));
        }
    };
    draft.keep_alive = Some((data, timeout));
    Ok(())
}

/// Replaces `\\`, `\r`, `\n` and `\xHH`. Other escaped characters vanish; an escape that is cut short is an error.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'\\' => out.push(b'\\'),
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b'x' => {
                let digit = |b: u8| (b as char).to_digit(16);
                out.push((digit(bytes.next()?)? << 4 | digit(bytes.next()?)?) as u8);
            }
            _ => {}
        }
    }
    Some(out)
}

fn read_link(element: &[u8], draft: &mut Draft<'_>) -> Result<(), InstructError> {
    let Some(parameters) = parameters(element) else { return Ok(()) };
    let find = |name| parameters.iter().find(|p| p.is(name)).and_then(|p| p.value.as_deref());
    // Links of other relations are somebody else's, whatever they look like.
    if !matches!(find("rel"), Some(b"next" | b"gone")) {
        return Ok(());
    }
    let link = first(element).strip_prefix(b"<").and_then(|link| link.strip_suffix(b">"));
    let link = link.filter(|link| !link.is_empty()).ok_or(InstructError::new("failed to parse Grip-Link value"))?;
    let uri = escaped(link).ok_or(InstructError::new("Grip-Link contains invalid link"))?;
    match find("rel") {
        Some(b"next") => {
            let timeout = match parameters.iter().find(|p| p.is("timeout")) {
                None => DEFAULT_LINK_TIMEOUT,
                Some(p) => seconds(p.value.as_deref().unwrap_or_default()).map_err(|mistake| {
                    InstructError::new(match mistake {
                        BadSeconds::NoNumber => "failed to parse Grip-Link timeout value",
                        BadSeconds::OutOfRange => "Grip-Link timeout has invalid value",
                    })
                })?,
            };
            draft.next = Some(NextLink { uri, timeout: Duration::from_secs(u64::from(timeout)) });
        }
        Some(b"gone") => draft.gone = Some(uri),
        _ => {}
    }
    Ok(())
}

/// A link as it is asked for, in which what can not stand in a URI is escaped; `None` if its authority is no sound one.
fn escaped(link: &[u8]) -> Option<String> {
    let is_of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let scheme = link.windows(3).position(|bytes| bytes == b"://").filter(|&end| link[..end].iter().all(is_of_scheme));
    let path_at = match scheme {
        None => 0,
        Some(end) => {
            let authority = &link[end + 3..];
            let len = authority.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(authority.len());
            if !is_authority(&authority[..len]) {
                return None;
            }
            end + 3 + len
        }
    };
    let mut uri = String::from_utf8_lossy(&link[..path_at]).into_owned();
    for (at, &byte) in link.iter().enumerate().skip(path_at) {
        let is_whole_escape = || link.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'%' if !is_whole_escape() => uri.push_str("%25"),
            byte if stands_in_a_uri(byte) => uri.push(byte.into()),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(uri)
}

fn is_authority(authority: &[u8]) -> bool {
    let host_port = authority.rsplit(|&byte| byte == b'@').next().unwrap_or_default();
    let (host, port) = match host_port.strip_prefix(b"[") {
        Some(literal) => match literal.iter().position(|&byte| byte == b']') {
            Some(end) => literal.split_at(end + 1),
            None => return false,
        },
        None => host_port.split_at(host_port.iter().position(|&byte| byte == b':').unwrap_or(host_port.len())),
    };
    let port = std::str::from_utf8(port).unwrap_or("?");
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok());
    authority.iter().copied().all(stands_in_a_uri) && !host.is_empty() && is_port
}

/// Whether a byte may stand in a URI as it is.
fn stands_in_a_uri(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}
