// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a successor reads of a record is what its predecessor held.

use super::*;
use proptest::prelude::*;
use rpc::Octets;
use zhttp::Peers;

type Pairs = Vec<(String, String)>;

/// Headers of a response that holds, all parts of it at will. A value has no quotes, which would be read as such.
fn holding() -> impl Strategy<Value = Pairs> {
    let text = "[a-z0-9 ,;=%ä]{1,12}";
    let filter = prop::sample::select(vec!["skip-self", "skip-users", "require-sub", "build-id", "var-subst"]);
    let channel = ("[a-z0-9-]{1,8}", prop::option::of(text), prop::collection::vec(filter, 0..3));
    let channel = channel.prop_map(|(name, prev_id, filters)| {
        let prev_id = prev_id.map(|id| format!("; prev-id=\"{id}\"")).unwrap_or_default();
        let filters: String = filters.iter().map(|filter| format!("; filter={filter}")).collect();
        ("Grip-Channel".to_string(), format!("{name}{prev_id}{filters}"))
    });
    let mode = prop::sample::select(vec!["stream", "response"]);
    let keep_alive = (text, prop::sample::select(vec!["idle", "interval"]), 1..1000u32);
    let keep_alive = keep_alive.prop_map(|(data, mode, timeout)| {
        ("Grip-Keep-Alive".into(), format!("\"{data}\\\\n\"; format=cstring; mode={mode}; timeout={timeout}"))
    });
    let meta = ("[a-z]{1,5}", text).prop_map(|(name, value)| ("Grip-Set-Meta".into(), format!("{name}=\"{value}\"")));
    let next = (1..1000u32).prop_map(|timeout| ("Grip-Link".into(), format!("</n?x>; rel=next; timeout={timeout}")));
    let gone = Just(("Grip-Link".into(), "</gone>; rel=gone".into()));
    let timeout = (1..1000u32).prop_map(|timeout| ("Grip-Timeout".into(), timeout.to_string()));
    let own = Just(("Content-Type".into(), "text/plain".into()));
    let some = prop::collection::vec(prop_oneof![keep_alive, meta, next, gone, timeout, own], 0..6);
    (mode, prop::collection::vec(channel, 1..4), some)
        .prop_map(|(mode, channels, some)| [vec![("Grip-Hold".to_string(), mode.to_string())], channels, some].concat())
}

/// What a route says of a hold.
fn route() -> impl Strategy<Value = (Option<String>, Option<String>, Vec<String>, [bool; 4])> {
    let name = || prop::option::of("[a-z]{1,6}");
    (name(), name(), prop::collection::vec("[a-z]{1,6}", 0..3), any::<[bool; 4]>())
}

/// All that an instruct says of a hold; what the client gets at once, or at last, only for long-polls.
fn of_hold<'a>(instruct: &Instruct<'a>) -> Instruct<'a> {
    let mut held = instruct.clone();
    if held.hold == Some(HoldMode::Stream) {
        held.response =
            Instruct::read(BackendResponse { code: 200, reason: b"", headers: &[], body: b"" }).unwrap().response;
    }
    held
}

fn of_route<'a>(accept: &Accept<'a>) -> impl PartialEq + std::fmt::Debug + use<'a> {
    let request = accept.requests.first().map(|request| (request.debug, request.cross_origin.clone()));
    let route = (accept.route, accept.route_id, accept.trusted);
    (accept.method, accept.prefix, accept.channels.clone(), route, request)
}

proptest! {
    #[test]
    fn a_hold_is_what_its_record_says(
        headers in holding(), body in any::<Vec<u8>>(), (id, prefix, channels, [debug, apart, trusted, cors]) in route(),
    ) {
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let origin: Vec<(&[u8], &[u8])> = vec![(b"Origin", b"http://o"), (b"Cookie", b"a=b")];
        let (method, uri): (Octets<'_>, Octets<'_>) = (b"GET"[..].into(), b"http://h/p?q"[..].into());
        let data = RequestData { method, uri, headers: Headers(origin), ..RequestData::default() };
        let request = RequestState { rid: nobody(), debug, auto_cross_origin: cors, in_seq: 3, ..RequestState::default() };
        let response = ResponseData {
            code: 200, reason: b"OK"[..].into(), headers: Headers(headers), body: (&body[..]).into(),
        };
        let call = Call {
            requests: vec![request],
            orig_request_data: data,
            response: Some(response),
            route: id.as_deref(),
            separate_stats: apart,
            channel_prefix: prefix.as_deref(),
            channels: channels.iter().map(String::as_str).collect(),
            trusted,
            ..Call::default()
        };
        let mut bytes = Vec::new();
        tnetstring::append(&call, &mut bytes).unwrap();
        let (item, _) = tnetstring::split(&bytes).unwrap();
        let mut peers = Peers::default();
        let accept = Accept::read(item, &mut peers).unwrap();
        let instruct = Instruct::read(accept.response.backend());
        prop_assume!(instruct.is_ok());
        let instruct = instruct.unwrap();

        let records = records(&accept, &instruct);
        prop_assert_eq!(records.len(), 1);
        let restored = read(&records[0], &mut peers).unwrap();
        let again = Instruct::read(restored.response.backend()).unwrap();
        prop_assert_eq!(of_hold(&again), of_hold(&instruct));
        prop_assert_eq!(of_route(&restored), of_route(&accept));
        prop_assert!(restored.response_sent);
        if instruct.next.is_some() || instruct.gone.is_some() {
            prop_assert_eq!(restored.uri, accept.uri);
        }
        // The next successor has the same.
        prop_assert_eq!(super::records(&restored, &again), records);
    }

    #[test]
    fn a_hold_after_a_page_is_what_its_record_says(headers in holding(), (id, prefix, implicit, [trusted, ..]) in route()) {
        let headers: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let head = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: b"" };
        let instruct = Instruct::read(head);
        prop_assume!(instruct.as_ref().is_ok_and(|instruct| instruct.hold == Some(HoldMode::Stream)));
        let (route, prefix) = (id.unwrap_or_default(), prefix.unwrap_or_default());
        let site = Site { route, root: "http://h".into(), prefix, implicit, trusted };
        let record = after_page(&site, "http://h/next", &head).unwrap();
        let mut peers = Peers::default();
        let restored = read(&record, &mut peers).unwrap();
        let again = Instruct::read(restored.response.backend()).unwrap();
        prop_assert_eq!(of_hold(&again), of_hold(&instruct.unwrap()));
        prop_assert_eq!(restored.uri, b"http://h/next");
        prop_assert_eq!((restored.prefix, restored.route_id, restored.trusted), (&*site.prefix, &*site.route, trusted));
        prop_assert_eq!(restored.channels, site.implicit);
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(bytes in any::<Vec<u8>>()) {
        let mut peers = Peers::default();
        for bytes in [bytes.clone(), [&[VERSION], &bytes[..]].concat()] {
            if let Err(error) = read(&bytes, &mut peers) {
                prop_assert!(error.to_string().len() < 200, "{}", error);
            }
        }
    }

    #[test]
    fn a_record_with_a_flaw_is_a_record_or_refused(headers in holding(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let headers: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let head = BackendResponse { code: 200, reason: b"OK", headers: &headers, body: b"" };
        let mut record = after_page(&Site { root: "http://h".into(), ..Site::default() }, "http://h/next", &head).unwrap().to_vec();
        let at = at.index(record.len());
        let mut peers = Peers::default();
        prop_assert!(read(&record[..at], &mut peers).is_err());
        record[at] = byte;
        if let Ok(accept) = read(&record, &mut peers) {
            let _ = Instruct::read(accept.response.backend());
        }
        record.push(byte);
        let _ = read(&record, &mut peers);
    }
}
