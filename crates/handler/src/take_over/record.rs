// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a hold's frontend keeps, so that a successor of this handler can go on with it: the call by which the proxy gave it over,
//! without what nobody needs again. So a successor holds by the same code, and what it can not read it can not hold.

use std::rc::Rc;

use grip::head::starts_with_grip;
use grip::instruct::BackendResponse;
use grip::{HoldMode, Instruct};
use rpc::accept::Accept as Call;
use rpc::inspect::Inspected;
use rpc::{Headers, RequestData, RequestState, ResponseData, Rid};
use tnetstring::Item;
use zhttp::recovery::MAX_RECORD;

use super::accept::{Accept, AcceptError};
use crate::cohort::Site;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// Stands where a session has its own.
const NOBODY: &[u8] = b"-";

/// The place of the suite whose process holds.
pub const PLACE: &[u8] = b"h0";

/// The records of the requests of a call: one for all, or one each if something of the client is needed again. None if it would be
/// too long, or can not be taken up.
pub fn records(accept: &Accept<'_>, instruct: &Instruct<'_>) -> Vec<Rc<[u8]>> {
    let Some(mode) = instruct.hold else {
        // It holds after its next page, which is different then.
        return Vec::new();
    };
    let asks_again = instruct.next.is_some() || instruct.channels.iter().any(|channel| channel.prev_id.is_some());
    let scripts = accept.requests.iter().any(|request| request.cross_origin.is_some());
    let whole = scripts || mode == HoldMode::Response && asks_again;
    let count = if whole { accept.requests.len() } else { 1 };
    let uri = asks_again || instruct.gone.is_some();
    let records: Option<Vec<_>> =
        (0..count).map(|number| write(accept, instruct, uri, whole.then_some(number))).collect();
    records.unwrap_or_default()
}

fn write(accept: &Accept<'_>, instruct: &Instruct<'_>, uri: bool, whole: Option<usize>) -> Option<Rc<[u8]>> {
    let method = accept.method.into();
    let address = if uri { accept.uri } else { b"http://-/" };
    let mut state = RequestState { debug: accept.requests.first()?.debug, ..RequestState::default() };
    let mut data = RequestData { method, uri: address.into(), ..RequestData::default() };
    let mut inspect = None;
    if let Some(number) = whole {
        let members = accept.members.as_ref()?;
        state = tnetstring::from_item(members.requests.items().ok()?.nth(number)?.ok()?).ok()?;
        data = tnetstring::from_item(members.data).ok()?;
        inspect = members.inspect.and_then(|item| tnetstring::from_item::<Inspected<'_>>(item).ok());
    }
    (state.rid, state.in_seq, state.out_seq, state.out_credits) = (nobody(), 0, 0, 0);
    (state.user_data, state.response_code) = (None, None);
    let backend = accept.response.backend();
    let is_json = backend.headers.iter().any(|(name, value)| is_instruct(name, value));
    // What a stream begins with has been sent.
    let rest = is_json || instruct.hold == Some(HoldMode::Response);
    let headers = backend.headers.iter().filter(|(name, _)| rest || starts_with_grip(name)).copied().collect();
    let body = if rest { backend.body } else { b"" };
    let call = Call {
        requests: vec![state],
        orig_request_data: data,
        response: Some(ResponseData {
            code: backend.code,
            reason: backend.reason.into(),
            headers: Headers(headers),
            body: body.into(),
        }),
        inspect,
        route: Some(accept.route_id).filter(|route| !route.is_empty()),
        separate_stats: accept.route.is_some(),
        channel_prefix: Some(accept.prefix).filter(|prefix| !prefix.is_empty()),
        channels: accept.channels.clone(),
        trusted: accept.trusted,
        response_sent: true,
        ..Call::default()
    };
    finish(&call)
}

/// The record of streams that are held after a page, by the head of that. None if the page is of another site, whose links go
/// another way.
pub fn after_page(site: &Site, uri: &str, head: &BackendResponse<'_>) -> Option<Rc<[u8]>> {
    let is_json = head.headers.iter().any(|(name, value)| is_instruct(name, value));
    if is_json || !grip::link::same_site(&site.root, uri) {
        return None;
    }
    let headers = head.headers.iter().filter(|(name, _)| starts_with_grip(name)).copied().collect();
    let call = Call {
        requests: vec![RequestState { rid: nobody(), ..RequestState::default() }],
        orig_request_data: RequestData {
            method: b"GET"[..].into(),
            uri: uri.as_bytes().into(),
            ..RequestData::default()
        },
        response: Some(ResponseData { code: head.code, headers: Headers(headers), ..ResponseData::default() }),
        route: Some(site.route.as_str()).filter(|route| !route.is_empty()),
        channel_prefix: Some(site.prefix.as_str()).filter(|prefix| !prefix.is_empty()),
        channels: site.implicit.iter().map(String::as_str).collect(),
        trusted: site.trusted,
        response_sent: true,
        ..Call::default()
    };
    finish(&call)
}

fn finish(call: &Call<'_>) -> Option<Rc<[u8]>> {
    let mut record = Vec::with_capacity(1024);
    record.push(VERSION);
    tnetstring::append(call, &mut record).ok()?;
    (record.len() <= MAX_RECORD).then(|| record.into())
}

fn nobody() -> Rid<'static> {
    Rid { sender: NOBODY.into(), id: NOBODY.into() }
}

fn is_instruct(name: &[u8], value: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Type") && value.starts_with(b"application/grip-instruct")
}

/// The call of a record, as its `accept` would be decoded.
///
/// # Errors
/// It is of another version or was not written by [`records`].
pub fn read<'a>(record: &'a [u8], peers: &mut zhttp::Peers) -> Result<Accept<'a>, RecordError> {
    let (&version, call) = record.split_first().ok_or(RecordError::Version(0))?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let (item, rest): (Item<'a>, _) = tnetstring::split(call)?;
    if !rest.is_empty() {
        return Err(RecordError::Trailing(rest.len()));
    }
    Ok(Accept::read(item, peers)?)
}

/// Why a record is of no use. Its sessions can only be closed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It was written by a newer or much older process.
    #[error("version {0} is not known; version {VERSION} is")]
    Version(u8),
    /// Something follows.
    #[error("{0} bytes follow the call")]
    Trailing(usize),
    /// It is no call.
    #[error(transparent)]
    Encoding(#[from] tnetstring::Error),
    /// It is none that can be accepted.
    #[error(transparent)]
    Call(#[from] AcceptError),
}

#[cfg(test)]
mod tests;
