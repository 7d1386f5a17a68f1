// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes from backends and publishers: instructs, items, and what filters make of them.

use grip::filter::{self, Context, Filter};
use grip::instruct::BackendResponse;
use grip::websocket::events::{Events, encode};
use grip::{Instruct, Meta, item};
use wire::http1::{Limits, parse_response};

/// An item that is published, by PULL and SUB, and by HTTP.
pub fn item(data: &[u8]) {
    let _ = item::from_message(data, None);
    let _ = item::from_message(data, Some("topic"));
    let _ = item::from_request(data);
}

/// The response of a backend that may be an instruct: what it gives to a client can be sent.
pub fn instruct(data: &[u8]) {
    let Ok(Some((head, length))) = parse_response(data, &Limits::default(), "GET") else { return };
    let headers: Vec<_> = head.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    let response = BackendResponse { code: head.code, reason: head.reason, headers: &headers, body: &data[length..] };
    let Ok(instruct) = Instruct::read(response) else { return };
    for (name, value) in instruct.response.headers.iter() {
        assert!(![name, value].concat().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

/// Filters: the first line is a format of ids, the second what the subscriber is, the rest what is published.
pub fn filter(data: &[u8]) {
    const ALL: [Filter; 5] =
        [Filter::SkipSelf, Filter::SkipUsers, Filter::RequireSub, Filter::BuildId, Filter::VarSubst];
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (format, value) = (text(), text());
    let content = lines.next().unwrap_or_default();
    let entry = |name: &str, value: &str| (name.to_string(), value.to_string());
    let subscriber: Meta =
        [entry("id_format", &format), entry("user", &value), entry("id_encoding", "base64")].into_iter().collect();
    let publisher: Meta = [entry("skip_users", &format), entry("require_sub", &value)].into_iter().collect();
    let channels = [(value.as_str(), None), ("b", Some(format.as_str()))];
    let context = Context { subscriber: &subscriber, publisher: &publisher, channels: &channels };
    for filters in [&ALL[..], &ALL[3..], &ALL[4..]] {
        let _ = filter::message(filters, &context, content);
        let _ = filter::response(filters, &subscriber, content);
    }
    let _ = grip::json::parse(content);
}

/// The body with which a backend answers WebSocket events: what is read is the same when it is written and read again.
pub fn events(data: &[u8]) {
    let events: Vec<_> = Events::new(data.to_vec().into()).filter_map(Result::ok).collect();
    let again: Result<Vec<_>, _> = Events::new(encode(&events)).collect();
    assert_eq!(again, Ok(events));
}
