// SPDX-License-Identifier: AGPL-3.0-or-later
use super::*;
use crate::head::{Headers, Reason, StatusCode};
use bytes::Bytes;
use proptest::prelude::*;

fn json(item: &str) -> Result<Item, MessageError> {
    from_message(format!("J{item}").as_bytes(), None)
}

fn error(item: &str) -> String {
    match json(item) {
        Err(MessageError::Item(e)) => e.to_string(),
        other => panic!("{other:?}"),
    }
}

fn stream_content(item: &Item) -> &[u8] {
    match &item.formats.http_stream {
        Some(Action::Send(stream)) => &stream.content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_three_framings_mean_the_same() {
    let plain = from_message(b"49:7:channel,3:zz3,11:http-stream,14:7:content,1:x,}}", None).unwrap();
    assert_eq!(plain.channel, "zz3");
    assert_eq!(stream_content(&plain), b"x");
    assert_eq!(from_message(b"T49:7:channel,3:zz3,11:http-stream,14:7:content,1:x,}}", None).unwrap(), plain);
    assert_eq!(json(r#"{"channel":"zz3","http-stream":{"content":"x"}}"#).unwrap(), plain);
}

#[test]
fn bytes_after_a_tnetstring_are_ignored_and_a_cut_one_is_an_error() {
    assert!(from_message(b"T49:7:channel,3:zz3,11:http-stream,14:7:content,1:x,}}more", None).is_ok());
    assert_eq!(from_message(b"T5:abc,", None), Err(MessageError::Tnetstring));
    assert_eq!(from_message(b"", None), Err(MessageError::Tnetstring));
    assert_eq!(from_message(b"J{", None), Err(MessageError::Json));
    assert_eq!(from_message(b"J[]", None), Err(MessageError::NotJsonObject));
}

#[test]
fn binary_content_is_base64_in_json_and_plain_in_tnetstring() {
    let item = json(r#"{"channel":"c","http-stream":{"content-bin":"AP8=","content":"ignored"}}"#).unwrap();
    assert_eq!(stream_content(&item), b"\0\xff");
    let item = from_message(b"48:7:channel,1:c,11:http-stream,15:7:content,2:\0\xff,}}", None).unwrap();
    assert_eq!(stream_content(&item), b"\0\xff");
}

#[test]
fn a_topic_is_the_channel_whatever_the_item_says() {
    let item = from_message(br#"J{"channel":"other","http-stream":{"content":"x"}}"#, Some("c")).unwrap();
    assert_eq!(item.channel, "c");
    let item = from_message(br#"J{"channel":"other","http-stream":{"content":"x"}}"#, Some("")).unwrap();
    assert_eq!(item.channel, "other");
}

#[test]
fn a_full_item_is_read() {
    let item = json(
        r#"{"channel":"test","id":"2","prev-id":"1","meta":{"sender":"bob"},"size":5,"no-seq":true,"formats":{
            "http-response":{"code":201,"headers":{"Content-Type":"text/plain"},"body":"hello\n"},
            "http-stream":{"action":"close"},"ws-message":{"content":"hello"}}}"#,
    )
    .unwrap();
    assert_eq!((item.id.as_deref(), item.prev_id.as_deref()), (Some("2"), Some("1")));
    let headers = Headers::new(vec![(b"Content-Type".into(), b"text/plain".into())]).unwrap();
    assert!(item.meta.iter().eq([("sender", "bob")]));
    assert_eq!((item.size, item.no_seq), (Some(5), true));
    assert_eq!(
        item.formats.http_response,
        Some(Action::Send(HttpResponse {
            code: StatusCode::new(201).unwrap(),
            reason: Reason::new(&b"Created"[..], StatusCode::OK).unwrap(),
            headers,
            hidden: [].into(),
            alone: false,
            body: ResponseBody::Whole(Bytes::from_static(b"hello\n")),
            content_filters: None,
        }))
    );
    assert_eq!(item.formats.http_stream, Some(Action::Close));
    let Some(WsMessage::Send(ws)) = item.formats.ws_message else { panic!() };
    assert_eq!((ws.kind, ws.content.as_deref()), (WsType::Text, Some(&b"hello"[..])));
}

#[test]
fn each_mistake_has_the_text_that_publishers_know() {
    for (item, text) in [
        (r#"{}"#, "publish item object does not contain 'channel'"),
        (r#"{"channel":1}"#, "publish item object contains 'channel' with wrong type"),
        (r#"{"channel":"c","id":null}"#, "publish item object contains 'id' with wrong type"),
        (r#"{"channel":"c","prev-id":1}"#, "publish item object contains 'prev-id' with wrong type"),
        (r#"{"channel":"c"}"#, "no formats specified"),
        (r#"{"channel":"c","formats":{}}"#, "no formats specified"),
        (r#"{"channel":"c","formats":[]}"#, "publish item object contains 'formats' with wrong type"),
        (r#"{"channel":"c","http-stream":1}"#, "'http-stream' is not an object"),
        (r#"{"channel":"c","http-stream":{}}"#, "'http-stream' does not contain 'content' or 'content-bin'"),
        (r#"{"channel":"c","http-stream":{"action":1}}"#, "'http-stream' contains 'action' with wrong type"),
        (r#"{"channel":"c","http-stream":{"action":"x"}}"#, ""),
        (r#"{"channel":"c","http-stream":{"content":1}}"#, "'http-stream' contains 'content' with wrong type"),
        (
            r#"{"channel":"c","http-response":{}}"#,
            "'http-response' does not contain 'body', 'body-bin', or 'body-patch'",
        ),
        (r#"{"channel":"c","http-response":{"code":[]}}"#, "'http-response' contains 'code' with wrong type"),
        (r#"{"channel":"c","http-response":{"code":1000}}"#, "'http-response' contains 'code' with invalid value"),
        (r#"{"channel":"c","http-response":{"reason":1}}"#, "'http-response' contains 'reason' with wrong type"),
        (r#"{"channel":"c","http-response":{"headers":1}}"#, "'http-response' contains 'headers' with wrong type"),
        (r#"{"channel":"c","http-response":{"headers":[1]}}"#, "headers contains element with wrong type"),
        (
            r#"{"channel":"c","http-response":{"headers":[["a"]]}}"#,
            "headers contains list with wrong number of elements",
        ),
        (r#"{"channel":"c","http-response":{"headers":[[1,"a"]]}}"#, "header contains name element with wrong type"),
        (r#"{"channel":"c","http-response":{"headers":[["a",1]]}}"#, "header contains value element with wrong type"),
        (r#"{"channel":"c","http-response":{"headers":{"a":1}}}"#, "headers contains 'a' with wrong type"),
        (r#"{"channel":"c","ws-message":{}}"#, "'ws-message' does not contain 'content' or 'content-bin'"),
        (r#"{"channel":"c","ws-message":{"type":"x"}}"#, "'ws-message' contains 'type' with unknown value"),
        (
            r#"{"channel":"c","ws-message":{"action":"close","code":-1}}"#,
            "'ws-message' contains 'code' with invalid value",
        ),
        (
            r#"{"channel":"c","http-stream":{"content-filters":1}}"#,
            "'http-stream' contains 'content-filters' with wrong type",
        ),
        (
            r#"{"channel":"c","http-stream":{"content":"x","content-filters":["a","b","c","d","e","f"]}}"#,
            "content-filters contains more than 5 elements",
        ),
        (
            r#"{"channel":"c","http-stream":{"content-filters":[1]}}"#,
            "content-filters contains element with wrong type",
        ),
        (
            r#"{"channel":"c","ws-message":{"content":"x"},"meta":1}"#,
            "publish item object contains 'meta' with wrong type",
        ),
        (r#"{"channel":"c","ws-message":{"content":"x"},"meta":{"k":1}}"#, "'meta' contains 'k' with wrong type"),
        (
            r#"{"channel":"c","ws-message":{"content":"x"},"size":[]}"#,
            "publish item object contains 'size' with wrong type",
        ),
        (
            r#"{"channel":"c","ws-message":{"content":"x"},"size":-1}"#,
            "publish item object contains 'size' with invalid value",
        ),
        (
            r#"{"channel":"c","ws-message":{"content":"x"},"size":2147483648}"#,
            "publish item object contains 'size' with invalid value",
        ),
        (
            r#"{"channel":"c","ws-message":{"content":"x"},"no-seq":1}"#,
            "publish item object contains 'no-seq' with wrong type",
        ),
    ] {
        assert_eq!(error(item), text, "{item}");
    }
    let not_object = from_message(b"T1:x,", None).unwrap_err();
    assert_eq!(not_object.to_string(), "invalid format: publish item object is not an object");
}

#[test]
fn a_head_that_can_not_be_sent_is_refused_in_either_encoding_and_the_item_is_named() {
    for (json_members, tnet_members, text) in [
        (r#""code":101"#, "4:code,3:101#", "status code 101 is not between 200 and 999"),
        (r#""code":"0""#, "4:code,1:0,", "status code 0 is not between 200 and 999"),
        (r#""reason":"a\r\nb""#, "6:reason,4:a\r\nb,", "the reason has a control character"),
        (
            r#""headers":{"X":"a\u0001"}"#,
            "7:headers,9:1:X,2:a\x01,}",
            "the value of header 'X' has a control character",
        ),
        (r#""headers":[["X Y","a"]]"#, "7:headers,14:10:3:X Y,1:a,]]", "'X Y' is no name of a header"),
        (r#""headers":{"":"a"}"#, "7:headers,7:0:,1:a,}", "'' is no name of a header"),
    ] {
        let expected = format!("'http-response' cannot be sent: {text}");
        let item = format!(r#"{{"channel":"c","http-response":{{{json_members},"body":"x"}}}}"#);
        assert_eq!(error(&item), expected);
        let good = r#"{"channel":"c","http-response":{"body":"x"}}"#;
        let request = format!(r#"{{"items":[{good},{item}]}}"#);
        let refusal = from_request(request.as_bytes()).unwrap_err().to_string();
        assert_eq!(refusal, format!("Invalid format: items[1]: {expected}"));
        let response = map(&(tnet_members.to_string() + "4:body,1:x,"));
        let message = map(&format!("7:channel,1:c,13:http-response,{response}"));
        let refusal = from_message(message.as_bytes(), None).unwrap_err().to_string();
        assert_eq!(refusal, format!("invalid format: {expected}"));
    }
}

/// A tnetstring map around its entries.
fn map(entries: &str) -> String {
    format!("{}:{entries}}}", entries.len())
}

#[test]
fn publishers_have_no_say_in_headers_about_the_connection() {
    let item = json(
        r#"{"channel":"c","http-response":{"body":"x","headers":[["content-length","9"],["Transfer-Encoding","chunked"],
            ["Connection","close"],["Grip-Hold","stream"],["X","1"]]}}"#,
    );
    let Some(Action::Send(response)) = item.unwrap().formats.http_response else { panic!() };
    assert!(response.headers.iter().eq([(&b"X"[..], &b"1"[..])]));
}

#[test]
fn an_error_is_short_however_long_the_name_it_is_about() {
    for members in [
        r#""meta":{"K":1}"#,
        r#""http-response":{"headers":{"K":1},"body":""}"#,
        r#""http-response":{"headers":{"K ":""},"body":""}"#,
    ] {
        let item = format!(
            r#"{{"channel":"c","ws-message":{{"content":""}},{}}}"#,
            members.replace('K', &"k".repeat(100_000))
        );
        assert!(error(&item).len() < 400);
    }
}

#[test]
fn unknown_formats_are_ignored_but_count() {
    let item = json(r#"{"channel":"c","formats":{"x":{}}}"#).unwrap();
    assert_eq!(item.formats, Formats::default());
}

#[test]
fn a_ping_needs_no_content() {
    let item = json(r#"{"channel":"c","ws-message":{"type":"ping"}}"#).unwrap();
    let Some(WsMessage::Send(ws)) = item.formats.ws_message else { panic!() };
    assert_eq!((ws.kind, ws.content), (WsType::Ping, None));
}

#[test]
fn what_no_frame_can_have_is_refused_or_left_out() {
    for kind in ["ping", "pong"] {
        let item = |length| {
            format!(r#"{{"channel":"c","ws-message":{{"type":"{kind}","content":"{}"}}}}"#, "x".repeat(length))
        };
        assert!(json(&item(125)).is_ok());
        assert!(error(&item(126)).contains("'ws-message' cannot be sent: a ping or pong has more than 125 bytes"));
    }
    let text = r#"{"channel":"c","ws-message":{"type":"text","content-bin":"/w=="}}"#;
    assert!(error(text).contains("'ws-message' cannot be sent: text is not UTF-8"));
    assert!(json(&text.replace("text", "binary")).is_ok());
    let codes = [(1000, true), (1001, true), (4999, true), (0, false), (999, false), (1005, false), (1015, false)];
    for (code, sent) in codes.into_iter().chain([(2999, false), (5000, false), (70_000, false)]) {
        let item = json(&format!(r#"{{"channel":"c","ws-message":{{"action":"close","code":{code}}}}}"#)).unwrap();
        let Some(WsMessage::Close { code: read, .. }) = item.formats.ws_message else { panic!() };
        assert_eq!(read, sent.then_some(code));
    }
}

#[test]
fn a_request_is_valid_as_a_whole_or_not_at_all() {
    let text = |body: &str| from_request(body.as_bytes()).unwrap_err().to_string();
    assert_eq!(text("x"), "Body is not valid JSON.");
    assert_eq!(text("1"), "Body is not valid JSON.");
    assert_eq!(text("[]"), "Invalid format.");
    assert_eq!(text("{}"), "Invalid format: object does not contain 'items'");
    assert_eq!(text(r#"{"items":{}}"#), "Invalid format: object contains 'items' with wrong type");
    assert_eq!(
        text(r#"{"items":[{"channel":"c","http-stream":{"content":"x"}},1]}"#),
        "Invalid format: publish item object is not an object"
    );
    for (body, report) in
        [(r#"{"items":[]}"#, false), (r#"{"items":[],"report":true}"#, true), (r#"{"items":[],"report":1}"#, false)]
    {
        assert_eq!(from_request(body.as_bytes()), Ok(Request { items: vec![], report }));
    }
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic(message in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = from_message(&message, None);
        let _ = from_request(&message);
    }

    #[test]
    fn a_damaged_message_never_panics(at in 0usize..50, byte in any::<u8>()) {
        let mut message = b"T49:7:channel,3:zz3,11:http-stream,14:7:content,1:x,}}".to_vec();
        message[at] = byte;
        let _ = from_message(&message, None);
    }
}
