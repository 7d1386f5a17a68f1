// SPDX-License-Identifier: AGPL-3.0-or-later
//! Packets of the originals, as observed on the wire, and what is made of packets that are not as they should be.

use rpc::accept::{Accept, Accepted, Offer};
use rpc::call::{self, Call, CallError, Reply, condition};
use rpc::command::{ConnCheck, Refresh, ZmqUris};
use rpc::inspect::{Inspect, Inspected};
use rpc::retry::Retry;
use rpc::stats::{self, ConnKind, ConnMaxNotice, StatsError};
use rpc::ws_control::{self, Item, Kind};
use rpc::{Error, Headers, Octets, RequestData, RequestState, ResponseData, StateError};
use serde_json::{Value, json};
use zhttp::session::HandedOver;
use zhttp::{Id, Peers};

/// A packet, written as JSON.
fn packet(value: &Value) -> Vec<u8> {
    tnetstring::to_vec(value).unwrap()
}

/// What is in a packet, whatever the order of its keys.
fn content(bytes: &[u8]) -> Value {
    fn plain(value: tnetstring::Value) -> Value {
        match value {
            tnetstring::Value::Null => Value::Null,
            tnetstring::Value::Bool(value) => value.into(),
            tnetstring::Value::Int(value) => value.into(),
            tnetstring::Value::Float(value) => value.into(),
            tnetstring::Value::Bytes(value) => String::from_utf8(value).unwrap().into(),
            tnetstring::Value::List(values) => values.into_iter().map(plain).collect(),
            tnetstring::Value::Map(entries) => {
                entries.into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), plain(value))).collect()
            }
        }
    }
    let (_, rest) = tnetstring::split(bytes).unwrap();
    assert_eq!(rest, b"", "nothing may follow a packet");
    plain(tnetstring::from_slice(bytes).unwrap())
}

fn inspect_call() -> Value {
    json!({
        "id": "c688f417-0ce8-439e-9a07-e7ee5d7f0eb1", "method": "inspect",
        "args": {"method": "GET", "uri": "http://127.0.0.1:7999/rt?x=1", "body": "",
            "headers": [["Host", "127.0.0.1:7999"], ["User-Agent", "ua1"], ["Accept", "*/*"], ["Referer", "http://ref/"]]},
    })
}

#[test]
fn an_inspect_call_of_the_original_is_read_and_written() {
    let bytes = packet(&inspect_call());
    let call = Call::decode(&bytes).unwrap();
    assert_eq!((call.method, call.id.map(<[u8]>::len), call.from), (&b"inspect"[..], Some(36), None));
    let inspect: Inspect = call.args().unwrap();
    assert_eq!((&*inspect.uri, inspect.truncated), (&b"http://127.0.0.1:7999/rt?x=1"[..], false));
    assert_eq!(inspect.headers.0[3], (&b"Referer"[..], &b"http://ref/"[..]));
    assert_eq!(content(&call::encode(None, call.id, &inspect).unwrap()), inspect_call());
}

#[test]
fn the_answer_to_inspect_is_written_as_the_original_does() {
    let answer = call::success(Some(b"1"), &Inspected::default()).unwrap();
    assert_eq!(answer, b"57:2:id,1:1,7:success,4:true!5:value,19:8:no-proxy,5:false!}}");
    let reply = Reply::decode(&answer).unwrap();
    let inspected: Inspected = tnetstring::from_item(reply.result.unwrap()).unwrap();
    assert_eq!((reply.id, inspected), (&b"1"[..], Inspected::default()));
}

#[test]
fn all_that_may_be_in_an_answer_to_inspect_is_kept() {
    let full = json!({"no-proxy": true, "sharing-key": "k", "sid": "s", "last-ids": {"a": "1", "b": "2"},
        "user-data": {"any": [1, null]}, "inspect-again": 60000});
    let bytes = packet(&full);
    let inspected = tnetstring::from_slice::<Inspected>(&bytes).unwrap().into_owned();
    assert_eq!(inspected.last_ids[&Octets::from("b")], Octets::from("2"));
    assert_eq!(content(&tnetstring::to_vec(&inspected).unwrap()), full);
}

fn accept_call() -> Value {
    json!({
        "from": "proxy_32746", "id": "cc23cc35-ee2f-4ec4-a316-6acd1960c019", "method": "accept",
        "args": {
            "requests": [{"rid": {"sender": "connmgr", "id": "1-0-0"}, "in-seq": 2, "out-seq": 2, "out-credits": 8192,
                "router-resp": true, "peer-address": "127.0.0.1", "logical-peer-address": "127.0.0.1"}],
            "request-data": {"method": "GET", "uri": "http://127.0.0.1:7999/hold",
                "headers": [["Host", "127.0.0.1:7999"], ["Grip-Sig", "eyJ0"]], "body": ""},
            "orig-request-data": {"method": "GET", "uri": "http://127.0.0.1:7999/hold",
                "headers": [["Host", "127.0.0.1:7999"]], "body": ""},
            "response": {"code": 200, "reason": "OK", "body": "timeout\n",
                "headers": [["Content-Type", "text/plain"], ["Grip-Hold", "response"], ["Grip-Channel", "test"]]},
            "inspect": {"no-proxy": false}, "trusted": true, "route": "*,*,*,*"},
    })
}

#[test]
fn an_accept_call_of_the_original_is_read_and_written() {
    let bytes = packet(&accept_call());
    let call = Call::decode(&bytes).unwrap();
    assert_eq!((call.from, call.method), (Some(&b"proxy_32746"[..]), &b"accept"[..]));
    let accept: Accept = call.args().unwrap();
    assert_eq!((accept.route, accept.trusted, accept.response_sent), (Some("*,*,*,*"), true, false));
    let response = accept.response.as_ref().unwrap();
    assert_eq!((response.code, &*response.body), (200, &b"timeout\n"[..]));
    let mut peers = Peers::default();
    let session = accept.requests[0].session(&mut peers).unwrap();
    let expected = HandedOver {
        client: peers.find(b"connmgr").unwrap(),
        id: Id::new(b"1-0-0").unwrap(),
        in_seq: 2,
        out_seq: 2,
        credits: 8192,
        by_router: true,
    };
    assert_eq!(session, expected);
    let mut state = RequestState::of(&session, &peers);
    (state.peer_address, state.logical_peer_address) = (Some("127.0.0.1"), Some("127.0.0.1"));
    assert_eq!(state, accept.requests[0]);
    assert_eq!(content(&call::encode(call.from, call.id, &accept).unwrap()), accept_call());
}

#[test]
fn what_a_handler_reads_of_an_accept_call_is_what_is_in_it() {
    let bytes = packet(&accept_call());
    let call = Call::decode(&bytes).unwrap();
    let (accept, offer): (Accept, Offer) = (call.args().unwrap(), call.args().unwrap());
    assert_eq!(offer.requests, accept.requests);
    assert_eq!(offer.orig_request_data.uri, accept.orig_request_data.uri);
    assert_eq!(offer.orig_request_data.method, accept.orig_request_data.method);
    assert_eq!((offer.response, offer.route), (accept.response, accept.route));
    let mut without = accept_call();
    without["args"].as_object_mut().unwrap().remove("request-data");
    let bytes = packet(&without);
    assert!(Call::decode(&bytes).unwrap().args::<Offer>().is_err());
}

#[test]
fn an_accept_call_in_the_middle_of_a_response_has_its_status_and_counts_of_connections() {
    let mut call = accept_call();
    let args = call["args"].as_object_mut().unwrap();
    args["requests"][0]["response-code"] = 200.into();
    args["requests"][0]["unreported-time"] = 17.into();
    args["requests"][0]["user-data"] = json!({"a": [1, true]});
    args.insert("response-sent".into(), true.into());
    args.insert("separate-stats".into(), true.into());
    args.insert("channel-prefix".into(), "pfx-".into());
    args.insert("channels".into(), json!(["a", "b"]));
    args.insert("log-level".into(), 3.into());
    args.insert(
        "conn-max".into(),
        json!([{"from": "p", "max": 1, "ttl": 60}, {"from": "p", "max": 0, "ttl": 60, "retry-seq": 0}]),
    );
    let bytes = packet(&call);
    let accept: Accept = Call::decode(&bytes).unwrap().args().unwrap();
    assert_eq!((accept.requests[0].response_code, accept.requests[0].unreported_time), (Some(200), Some(17)));
    assert_eq!((accept.channels.len(), accept.log_level, accept.conn_max[1].retry_seq), (2, Some(3), Some(0)));
    assert_eq!(
        content(&call::encode(Some(b"proxy_32746"), call["id"].as_str().map(str::as_bytes), &accept).unwrap()),
        call
    );
}

#[test]
fn what_the_handler_decides_is_a_hold_a_response_or_nothing() {
    let accepted = Accepted { accepted: true, response: None };
    assert_eq!(tnetstring::to_vec(&accepted).unwrap(), b"18:8:accepted,4:true!}");
    assert_eq!(tnetstring::to_vec(&Accepted::default()).unwrap(), b"0:}");
    let response =
        ResponseData { code: 404, reason: "No".into(), headers: Headers(vec![(b"A", b"b")]), body: b"\xff\0".into() };
    let bytes = tnetstring::to_vec(&Accepted { accepted: false, response: Some(response.clone()) }).unwrap();
    assert_eq!(tnetstring::from_slice::<Accepted>(&bytes).unwrap().response, Some(response));
}

#[test]
fn a_refusal_comes_with_the_words_of_the_handler() {
    let text = "Grip-Hold must be set to either 'response' or 'stream'";
    let bytes = call::failure(Some(b"fafb6d35"), condition::BAD_FORMAT, Some(text));
    let expected = json!({"id": "fafb6d35", "success": false, "condition": "bad-format", "value": text});
    assert_eq!(content(&bytes), expected);
    let failure = Reply::decode(&bytes).unwrap().result.unwrap_err();
    assert_eq!((failure.condition, failure.text()), (&b"bad-format"[..], Some(text.as_bytes())));
}

#[test]
fn an_answer_without_id_is_written_for_a_call_without_one() {
    assert_eq!(call::success(None, &()).unwrap(), b"28:7:success,4:true!5:value,0:~}");
    let unknown = call::failure(Some(b"1"), condition::METHOD_NOT_FOUND, None);
    assert_eq!(unknown, b"59:2:id,1:1,7:success,5:false!9:condition,16:method-not-found,}");
}

#[test]
fn a_retry_of_the_original_is_read_and_written() {
    let retry = json!({
        "requests": [{"rid": {"sender": "connmgr", "id": "1-0-0"}, "in-seq": 3, "out-seq": 4, "out-credits": 8192,
            "router-resp": true, "peer-address": "127.0.0.1"}],
        "retry-seq": 0, "route": "*,*,*,*", "inspect": {"no-proxy": false},
        "request-data": {"method": "GET", "uri": "http://127.0.0.1:7999/hold", "body": "", "headers": [["Accept", "*/*"]]},
    });
    let bytes = packet(&retry);
    let read = Retry::decode(&bytes).unwrap();
    assert_eq!((read.retry_seq, read.requests[0].in_seq, read.requests[0].out_seq), (Some(0), 3, 4));
    assert_eq!(content(&read.encode().unwrap()), retry);
    let mut without_headers = retry;
    without_headers["request-data"].as_object_mut().unwrap().remove("headers");
    assert_eq!(Retry::decode(&packet(&without_headers)).unwrap().request_data.headers, Headers::default());
}

#[test]
fn a_websocket_is_announced_and_acknowledged() {
    let here = json!({"from": "proxy_3172", "items": [{"type": "here", "req-id": "0", "cid": "2572816f",
        "uri": "ws://example.com/sub/x", "ttl": 60, "route": "myid", "separate-stats": true, "channel-prefix": "pfx-",
        "log-level": 3, "trusted": true}]});
    let bytes = packet(&here);
    let read = ws_control::Packet::decode(&bytes).unwrap();
    assert_eq!((read.items[0].kind, read.items[0].ttl), (Kind::Here, Some(60)));
    assert_eq!(content(&read.encode().unwrap()), here);
    let ack = Item { req_id: Some("2".into()), ..Item::new(Kind::Ack, "2572816f") };
    let setup =
        Item { timeout: Some(2), keep_alive_mode: Some("idle".into()), ..Item::new(Kind::KeepAliveSetup, "2572816f") };
    let answer = ws_control::Packet {
        from: Some("handler_3242".into()),
        items: vec![ack, setup],
        ..ws_control::Packet::default()
    };
    let expected = json!({"from": "handler_3242", "items": [{"type": "ack", "req-id": "2", "cid": "2572816f"},
        {"type": "keep-alive-setup", "timeout": 2, "keep-alive-mode": "idle", "cid": "2572816f"}]});
    assert_eq!(content(&answer.encode().unwrap()), expected);
}

#[test]
fn messages_and_closes_for_websockets_are_read() {
    let bytes = packet(&json!({"items": [
        {"type": "send", "content-type": "text", "message": "ka", "cid": "c", "queue": true},
        {"type": "close", "code": 4001, "reason": "bye", "cid": "c"}, {"type": "gone", "cid": "c", "ttl": -5}]}));
    let read = ws_control::Packet::decode(&bytes).unwrap();
    assert_eq!((read.from, read.items[0].queue, read.items[1].code), (None, true, Some(4001)));
    // Seconds below zero count as none.
    assert_eq!(read.items[2].ttl, Some(0));
    for wrong in
        [json!({"items": [{"type": "other", "cid": "c"}]}), json!({"items": [{"type": "gone"}]}), json!({"from": "p"})]
    {
        assert!(ws_control::Packet::decode(&packet(&wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn statistics_of_the_original_are_read_and_written() {
    for message in [
        &b"conn T100:2:id,13:connmgr:0-0-0,3:ttl,3:120#4:from,13:handler_28644,12:peer-address,9:127.0.0.1,4:type,4:http,}"[..],
        b"conn T68:2:id,13:connmgr:0-0-0,4:from,13:handler_28644,11:unavailable,4:true!}",
        b"sub T87:3:ttl,2:60#7:channel,2:c1,11:subscribers,1:1#4:from,13:handler_28644,4:mode,8:response,}",
        b"sub T77:7:channel,2:s2,4:from,13:handler_28644,4:mode,6:stream,11:unavailable,4:true!}",
        b"message T94:7:item-id,1:1,7:channel,2:c1,5:count,1:1#4:from,13:handler_28644,9:transport,13:http-response,}",
        b"activity T36:5:count,1:5#4:from,13:handler_28644,}",
        b"counts T49:17:requests-received,1:5#4:from,13:handler_28644,}",
    ] {
        let read = stats::Packet::decode(message).unwrap();
        let written = read.encode().unwrap();
        let map = |bytes: &[u8]| content(&bytes[bytes.iter().position(|&b| b == b'T').unwrap() + 1..]);
        assert_eq!(map(&written), map(message), "{}", message.escape_ascii());
        assert_eq!(stats::Packet::decode(&written), Ok(read));
    }
    let Ok(stats::Packet::Conn(conn)) = stats::Packet::decode(b"conn T27:2:id,1:1,4:type,2:ws,0:,0:~}") else {
        panic!()
    };
    assert_eq!(conn.kind, Some(ConnKind::Ws));
}

#[test]
fn statistics_that_are_wrong_are_refused() {
    for (message, expected) in [
        (&b"conn"[..], StatsError::Format),
        (b"conn J{}", StatsError::Format),
        (b"what T0:}", StatsError::Type("what".into())),
    ] {
        assert_eq!(stats::Packet::decode(message), Err(expected));
    }
    for message in
        [&b"activity T12:5:count,2:-1#}"[..], b"conn T20:2:id,1:1,4:type,3:udp,}", b"counts T0:}", b"sub T4:1:x#]"]
    {
        assert!(matches!(stats::Packet::decode(message), Err(StatsError::Content(_))), "{}", message.escape_ascii());
    }
}

#[test]
fn counts_of_connections_are_a_call_without_answer() {
    let notice = ConnMaxNotice { conn_max: Vec::new() };
    let bytes = call::encode(Some(b"p"), None, &notice).unwrap();
    assert_eq!(content(&bytes), json!({"from": "p", "method": "conn-max", "args": {"conn-max": []}}));
}

#[test]
fn commands_are_read_and_answered() {
    let bytes = call::encode(None, Some(b"1"), &ConnCheck { ids: vec!["connmgr:0-0-0".into(), "x".into()] }).unwrap();
    assert_eq!(content(&bytes), json!({"id": "1", "method": "conncheck", "args": {"ids": ["connmgr:0-0-0", "x"]}}));
    let check: ConnCheck = Call::decode(&bytes).unwrap().args().unwrap();
    assert_eq!(check.ids.len(), 2);
    let refresh = call::encode(None, Some(b"1"), &Refresh { cid: Some("c".into()), channel: None }).unwrap();
    assert_eq!(content(&refresh), json!({"id": "1", "method": "refresh", "args": {"cid": "c"}}));
    let uris = ZmqUris { command: Some("tcp://c".into()), publish_pull: None, publish_sub: Some("tcp://s".into()) };
    assert_eq!(content(&tnetstring::to_vec(&uris).unwrap()), json!({"command": "tcp://c", "publish-sub": "tcp://s"}));
    // Without arguments, as tools send it.
    assert_eq!(Call::decode(b"28:2:id,1:1,6:method,7:recover,}").unwrap().args.payload, b"");
    assert!(Call::decode(b"28:2:id,1:1,6:method,7:recover,}").unwrap().args::<ConnCheck>().is_err());
}

#[test]
fn what_is_no_call_or_no_answer_says_why() {
    for (bytes, expected) in [
        (&b"0:}"[..], CallError::Field("method")),
        (b"14:6:method,2:xx#}", CallError::Encoding(Error::UnknownType(b'0'))),
        (b"27:6:method,1:x,4:args,4:1:a,]}", CallError::Field("args")),
        (b"18:6:method,1:x,2:id,0:~}", CallError::Encoding(Error::Truncated)),
    ] {
        let result = Call::decode(bytes).map(drop);
        match &expected {
            CallError::Field(_) => assert_eq!(result, Err(expected), "{}", bytes.escape_ascii()),
            CallError::Encoding(_) => assert!(result.is_err()),
        }
    }
    for value in [
        json!({}),
        json!({"id": "1"}),
        json!({"success": true, "value": 1}),
        json!({"id": "1", "success": true}),
        json!({"id": "1", "success": "true"}),
        json!({"id": 1, "success": false}),
        json!([]),
    ] {
        assert!(Reply::decode(&packet(&value)).is_err(), "{value}");
    }
}

/// Takes something away from an `accept` call, or puts something wrong in.
#[test]
fn a_known_key_of_a_wrong_type_and_a_missing_one_make_a_call_invalid_and_unknown_keys_do_not() {
    let read = |args: &Value| {
        let bytes = packet(args);
        tnetstring::from_slice::<Accept>(&bytes).map(drop)
    };
    let good = accept_call()["args"].clone();
    assert_eq!(read(&good), Ok(()));
    for required in ["requests", "request-data", "orig-request-data"] {
        let mut args = good.clone();
        args.as_object_mut().unwrap().remove(required);
        assert!(read(&args).is_err(), "{required}");
    }
    for required in ["rid", "in-seq", "out-seq", "out-credits"] {
        let mut args = good.clone();
        args["requests"][0].as_object_mut().unwrap().remove(required);
        assert!(read(&args).is_err(), "{required}");
    }
    for (key, wrong) in [
        ("in-seq", json!(-1)),
        ("in-seq", json!("x")),
        ("router-resp", json!("true")),
        ("https", json!(1)),
        ("peer-address", json!("localhost")),
        ("peer-address", json!("")),
        ("logical-peer-address", json!("1.2.3")),
        ("rid", json!(["connmgr", "1"])),
        ("response-code", json!(70000)),
    ] {
        let mut args = good.clone();
        args["requests"][0][key] = wrong.clone();
        assert!(read(&args).is_err(), "{key} {wrong}");
    }
    for (key, right) in [
        ("in-seq", json!("7")),
        ("out-credits", json!(-5)),
        ("peer-address", json!("fe80::1%eth0")),
        ("peer-address", json!("::1")),
        ("what", json!({"is": [[["this"]]]})),
    ] {
        let mut args = good.clone();
        args["requests"][0][key] = right.clone();
        assert_eq!(read(&args), Ok(()), "{key} {right}");
    }
    for headers in [json!([["a"]]), json!([["a", "b", "c"]]), json!(["a"]), json!([["a", 1]]), json!({"a": "b"})] {
        let mut args = good.clone();
        args["response"]["headers"] = headers.clone();
        assert!(read(&args).is_err(), "{headers}");
    }
}

#[test]
fn a_session_of_nobody_is_not_taken_over() {
    let mut peers = Peers::default();
    let state = RequestState { rid: rpc::Rid { sender: "a b".into(), id: "1".into() }, ..RequestState::default() };
    assert_eq!(state.session(&mut peers), Err(StateError::Sender));
    let state = RequestState { rid: rpc::Rid { sender: "a".into(), id: "".into() }, ..RequestState::default() };
    assert_eq!(state.session(&mut peers), Err(StateError::Id));
}

/// Values that are kept as they are come from clients, so they may be anything.
#[test]
fn values_that_are_nested_too_deep_make_a_call_invalid() {
    for (depth, works) in [(20, true), (40, false), (100_000, false)] {
        let (mut lengths, mut length) = (Vec::new(), 0usize);
        for _ in 0..depth {
            let prefix = format!("{length}:");
            length += prefix.len() + 1;
            lengths.push(prefix);
        }
        lengths.reverse();
        let deep = [lengths.concat(), "]".repeat(depth)].concat();
        let bytes = packet(&accept_call()["args"]);
        let inner = bytes.strip_suffix(b"}").unwrap();
        let inner = &inner[inner.iter().position(|&byte| byte == b':').unwrap() + 1..];
        // Once where it is kept, once where it is skipped.
        for key in ["inspect", "whatever"] {
            let value = if key == "inspect" {
                let map = format!("8:no-proxy,4:true!9:user-data,{deep}");
                format!("{}:{map}}}", map.len())
            } else {
                deep.clone()
            };
            let without = String::from_utf8(inner.to_vec()).unwrap().replace("7:inspect,19:8:no-proxy,5:false!}", "");
            let map = format!("{without}{}:{key},{value}", key.len());
            let bytes = format!("{}:{map}}}", map.len());
            let result = tnetstring::from_slice::<Accept>(bytes.as_bytes());
            assert_eq!(result.is_ok(), works || key == "whatever", "{depth} {key}: {:?}", result.err());
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Call::decode(&bytes).map(|call| (call.args::<Accept>().is_ok(), call.args::<Inspect>().is_ok()));
        let _ = (Reply::decode(&bytes), Retry::decode(&bytes), ws_control::Packet::decode(&bytes));
        let _ = stats::Packet::decode(&[b"conn T", &bytes[..]].concat());
    }

    #[test]
    fn what_is_written_is_read(method: Vec<u8>, uri: Vec<u8>, name: Vec<u8>, value: Vec<u8>, body: Vec<u8>, code: u16, truncated: bool) {
        let headers = Headers(vec![(&name, &value), (&value, &name)]);
        let data = RequestData { method: method.clone().into(), uri: uri.clone().into(), headers: headers.clone(), body: body.clone().into() };
        let accept = Accept {
            request_data: data.clone(),
            orig_request_data: data,
            response: Some(ResponseData { code, reason: uri.clone().into(), headers: headers.clone(), body: body.clone().into() }),
            response_sent: truncated,
            ..Accept::default()
        };
        let bytes = call::encode(Some(&name), Some(&value), &accept).unwrap();
        let call = Call::decode(&bytes).unwrap();
        proptest::prop_assert_eq!((call.from, call.id), (Some(&name[..]), Some(&value[..])));
        proptest::prop_assert_eq!(call.args::<Accept>(), Ok(accept));
        let inspect = Inspect { method: method.into(), uri: uri.into(), headers, body: body.into(), truncated, ..Inspect::default() };
        let bytes = call::encode(None, None, &inspect).unwrap();
        proptest::prop_assert_eq!(Call::decode(&bytes).unwrap().args::<Inspect>(), Ok(inspect));
    }
}
