// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a client has asked for, kept so that the proxy can ask for it anew (internal RPC, retry packet).
//!
//! It is kept as it came, undecoded, in one piece: thousands of long-polls wait, and most get their answer without it.

use std::collections::BTreeMap;

use rpc::inspect::Inspected;
use rpc::retry::Retry;
use rpc::{Octets, RequestData, RequestState};
use serde::Deserialize;
use tnetstring::{Item, Kind, Value};
use zhttp::Peers;

use crate::context::GivenBack;

/// The same, decoded.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked<'a> {
    #[serde(borrow)]
    request: RequestState<'a>,
    #[serde(borrow)]
    request_data: RequestData<'a>,
    #[serde(borrow)]
    inspect: Option<Inspected<'a>>,
    #[serde(borrow)]
    route: Option<&'a str>,
}

/// Puts together what is kept of a request: the state of the client's session as it came, and members of the call that are
/// the same for all of its requests.
pub fn keep(request: Item<'_>, members: &Members<'_>) -> Box<[u8]> {
    let mut payload = Vec::with_capacity(64 + request.payload.len() + members.data.payload.len());
    let mut add = |key: &str, value: Item<'_>| {
        append(&mut payload, Item { kind: Kind::Bytes, payload: key.as_bytes() });
        append(&mut payload, value);
    };
    add("request", request);
    add("request-data", members.data);
    members.inspect.into_iter().for_each(|inspect| add("inspect", inspect));
    members.route.into_iter().for_each(|route| add("route", route));
    payload.into_boxed_slice()
}

/// What is kept of a call, undecoded.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    /// The list of requests.
    pub requests: Item<'a>,
    /// What the client sent.
    pub data: Item<'a>,
    /// What was said when the proxy asked about it.
    pub inspect: Option<Item<'a>>,
    /// The route's id.
    pub route: Option<Item<'a>>,
}

impl<'a> Members<'a> {
    /// Finds them among the arguments of an `accept` call.
    pub fn find(args: Item<'a>) -> Option<Self> {
        let (mut requests, mut data, mut inspect, mut route) = (None, None, None, None);
        for entry in args.entries().ok()? {
            let (key, value) = entry.ok()?;
            match key {
                b"requests" => requests = Some(value),
                b"orig-request-data" => data = Some(value),
                b"inspect" => inspect = Some(value),
                b"route" => route = Some(value),
                _ => {}
            }
        }
        Some(Members { requests: requests?, data: data?, inspect, route })
    }

    /// What the client sent, decoded.
    ///
    /// # Errors
    /// It is not a request.
    pub fn request(&self) -> Result<RequestData<'a>, tnetstring::Error> {
        tnetstring::from_item(self.data)
    }
}

fn append(out: &mut Vec<u8>, item: Item<'_>) {
    out.extend_from_slice(item.payload.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(item.payload);
    out.push(item.kind.type_byte());
}

/// The packet by which `instance` gives a request back, with the session as it is now, the last messages that the client has,
/// and those that are known. The latter come back as [`known`] should the backend want a hold again. Equal requests of the
/// same round may be sent to the backend as one.
///
/// # Errors
/// What was kept is not what [`keep`] has made of a call that could be read, or the client's own data are nested too deep.
pub fn give_back(poll: &GivenBack<'_>, instance: &[u8], peers: &Peers) -> Result<Vec<u8>, tnetstring::Error> {
    let GivenBack { asked: kept, last_ids, known, .. } = *poll;
    let asked: Asked<'_> = tnetstring::from_item(Item { kind: Kind::Map, payload: kept })?;
    let state = RequestState::of(poll.session, peers);
    let request = RequestState {
        response_code: None,
        is_retry: false,
        logical_peer_address: None,
        rid: state.rid,
        in_seq: state.in_seq,
        out_seq: state.out_seq,
        out_credits: state.out_credits,
        router_resp: state.router_resp,
        ..asked.request
    };
    let mut inspect = asked.inspect;
    if !last_ids.is_empty() {
        let ids: BTreeMap<Octets<'_>, Octets<'_>> =
            last_ids.iter().map(|(name, id)| (name.as_bytes().into(), id.as_bytes().into())).collect();
        inspect.get_or_insert_default().last_ids.extend(ids);
    }
    if !known.is_empty() {
        let known = known.iter().map(|(name, id)| (name.as_bytes().to_vec(), Value::Bytes(id.as_bytes().to_vec())));
        inspect.get_or_insert_default().user_data = Some(Value::Map(known.collect()));
    }
    let round = [instance, b"|", poll.round.to_string().as_bytes()].concat();
    Retry {
        requests: vec![request],
        request_data: asked.request_data,
        inspect,
        route: asked.route,
        retry_seq: None,
        round: Some(round.as_slice().into()),
    }
    .encode()
}

/// The ids of the last items of channels, as they were known when the request was given back the last time. Empty if it
/// never was.
pub fn known(kept: &[u8]) -> Vec<(String, String)> {
    let asked: Result<Asked<'_>, _> = tnetstring::from_item(Item { kind: Kind::Map, payload: kept });
    let Some(Value::Map(known)) = asked.ok().and_then(|asked| asked.inspect?.user_data) else { return Vec::new() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = |(name, id): &(Vec<u8>, Value)| match id {
        Value::Bytes(id) => Some((text(name), text(id))),
        _ => None,
    };
    known.iter().filter_map(id).collect()
}
