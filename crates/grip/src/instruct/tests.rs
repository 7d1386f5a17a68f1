// SPDX-License-Identifier: AGPL-3.0-or-later
use super::*;
use proptest::prelude::*;

fn read_response<'a>(code: u16, headers: &'a [(&'a [u8], &'a [u8])], body: &'a [u8]) -> Result<Instruct<'a>, String> {
    Instruct::read(BackendResponse { code, reason: b"OK", headers, body }).map_err(|e| e.to_string())
}

/// Hands an instruct of these headers to `check`.
fn with<T>(headers: &[(&str, &str)], check: impl FnOnce(Result<Instruct<'_>, String>) -> T) -> T {
    let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    check(read_response(200, &headers, b"body"))
}

fn error(name: &str, value: &str) -> String {
    with(&[("Grip-Hold", "stream"), (name, value)], |i| i.unwrap_err())
}

fn json(body: &str) -> Result<Instruct<'_>, String> {
    read_response(200, &[(b"Content-Type", b"application/grip-instruct; charset=utf-8")], body.as_bytes())
}

fn names(instruct: &Instruct<'_>) -> Vec<String> {
    instruct.channels.iter().map(|c| c.name.clone()).collect()
}

fn header_names(instruct: &Instruct<'_>) -> Vec<String> {
    instruct.response.headers.iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn a_response_without_grip_headers_asks_for_nothing() {
    with(&[("Content-Type", "text/plain")], |instruct| {
        let instruct = instruct.unwrap();
        assert_eq!(instruct.hold, None);
        assert_eq!(&instruct.response.body[..], b"body");
    });
    assert!(!concerns(&[(b"Content-Type", b"text/plain")]));
    assert!(concerns(&[(b"grip-hold", b"x")]));
    assert!(concerns(&[(b"content-type", b"application/grip-instruct")]));
}

#[test]
fn a_hold_is_response_or_stream_and_nothing_else() {
    with(&[("grip-hold", "response")], |i| assert_eq!(i.unwrap().hold, Some(HoldMode::Response)));
    with(&[("Grip-Hold", "stream")], |i| assert_eq!(i.unwrap().hold, Some(HoldMode::Stream)));
    for wrong in ["", "Stream", "x"] {
        let text = with(&[("Grip-Hold", wrong)], |i| i.unwrap_err());
        assert_eq!(text, "Grip-Hold must be set to either 'response' or 'stream'");
    }
}

#[test]
fn channels_come_from_all_lines_with_ids_and_filters() {
    let headers = [
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a; prev-id=5, b; filter=skip-self; filter=build-id"),
        ("Grip-Channel", "c; Prev-Id=\"x,y\"; Filter=ignored"),
    ];
    with(&headers, |instruct| {
        let channels = instruct.unwrap().channels;
        assert_eq!(channels[0], Channel { name: "a".into(), prev_id: Some("5".into()), filters: vec![] });
        assert_eq!(channels[1].filters, ["skip-self", "build-id"]);
        assert_eq!(channels[2], Channel { name: "c".into(), prev_id: Some("x,y".into()), filters: vec![] });
    });
}

#[test]
fn an_empty_quoted_prev_id_is_none_and_an_empty_plain_one_is_empty() {
    with(&[("Grip-Channel", "a; prev-id=\"\", b; prev-id=")], |instruct| {
        let channels = instruct.unwrap().channels;
        assert_eq!(channels[0].prev_id, None);
        assert_eq!(channels[1].prev_id.as_deref(), Some(""));
    });
}

#[test]
fn a_channel_with_an_unclosed_quote_or_without_a_name_is_dropped() {
    with(&[("Grip-Hold", "stream"), ("Grip-Channel", "a; prev-id=\"x")], |i| assert!(i.unwrap().channels.is_empty()));
    with(&[("Grip-Channel", ",a,")], |i| assert_eq!(names(&i.unwrap()), ["a"]));
}

#[test]
fn a_channel_has_at_most_five_filters() {
    let five = "a; filter=1; filter=2; filter=3; filter=4; filter=5";
    with(&[("Grip-Channel", five)], |i| assert!(i.is_ok()));
    assert_eq!(error("Grip-Channel", &format!("{five}; filter=6")), "too many filters for channel 'a'");
}

#[test]
fn the_timeout_is_55_seconds_or_what_is_said_but_at_least_5() {
    with(&[], |i| assert_eq!(i.unwrap().timeout.as_secs(), 55));
    with(&[("Grip-Timeout", " 30 ")], |i| assert_eq!(i.unwrap().timeout.as_secs(), 30));
    with(&[("Grip-Timeout", "1")], |i| assert_eq!(i.unwrap().timeout.as_secs(), 5));
    assert_eq!(error("Grip-Timeout", "x"), "failed to parse Grip-Timeout");
    assert_eq!(error("Grip-Timeout", "-1"), "Grip-Timeout has invalid value");
}

#[test]
fn keep_alives_have_formats_and_modes() {
    let keep_alive = |value: &str| with(&[("Grip-Keep-Alive", value)], |i| i.unwrap().keep_alive.unwrap());
    let plain = keep_alive("ping");
    assert_eq!((&plain.data[..], plain.timeout.as_secs(), plain.mode), (&b"ping"[..], 55, KeepAliveMode::Idle));
    let c = keep_alive(r"a\n\r\\\x3b\q; format=cstring; timeout=0; mode=interval");
    assert_eq!((&c.data[..], c.timeout.as_secs(), c.mode), (&b"a\n\r\\;"[..], 1, KeepAliveMode::Interval));
    assert_eq!(keep_alive("AP8=; format=base64").data, b"\0\xff");
    assert_eq!(keep_alive("a,b; timeout=20").data, b"a,b");
}

#[test]
fn each_mistake_in_a_keep_alive_has_its_text() {
    for (value, text) in [
        ("; timeout=5", "Grip-Keep-Alive cannot be empty"),
        ("a; mode=x", "no such Grip-Keep-Alive mode 'x'"),
        ("a; timeout=x", "failed to parse Grip-Keep-Alive timeout value"),
        ("a; timeout=-1", "Grip-Keep-Alive timeout has invalid value"),
        (r"a\x1; format=cstring", "failed to parse Grip-Keep-Alive cstring format"),
        ("a; format=x", "no such Grip-Keep-Alive format 'x'"),
    ] {
        assert_eq!(error("Grip-Keep-Alive", value), text, "{value}");
    }
}

#[test]
fn meta_is_set_by_name_and_the_last_value_counts() {
    with(&[("Grip-Set-Meta", "a=1, b=\"x, y\", a=2; ignored=3")], |instruct| {
        assert!(instruct.unwrap().meta.iter().eq([("a", "2"), ("b", "x, y")]));
    });
}

#[test]
fn a_status_replaces_the_responses() {
    let status = |value: &str| {
        with(&[("Grip-Status", value)], |i| {
            let response = i.unwrap().response;
            (response.code.get(), String::from_utf8(response.reason.as_bytes().to_vec()).unwrap())
        })
    };
    assert_eq!(status("404"), (404, "Not Found".to_string()));
    assert_eq!(status("201 Very Well"), (201, "Very Well".to_string()));
    assert_eq!(status(""), (200, "OK".to_string()));
    assert_eq!(error("Grip-Status", "x"), "Grip-Status contains invalid status code");
    assert_eq!(error("Grip-Status", "1000"), "Grip-Status contains invalid status code");
}

#[test]
fn a_response_that_can_not_be_sent_is_refused() {
    for (headers, text) in [
        (&[("Grip-Status", "101")][..], "status code 101 is not between 200 and 999"),
        (&[("Grip-Status", "5 x")], "status code 5 is not between 200 and 999"),
        (&[("Grip-Status", "200 a\rb")], "the reason has a control character"),
        (&[("X", "a\x1b[1m")], "the value of header 'X' has a control character"),
        (&[("X Y", "a")], "'X Y' is no name of a header"),
    ] {
        let expected = format!("response cannot be sent: {text}");
        assert_eq!(with(headers, |instruct| instruct.unwrap_err()), expected);
    }
    for (response, text) in [
        (r#"{"code":0}"#, "status code 0 is not between 200 and 999"),
        (r#"{"reason":"a\r\nX: y"}"#, "the reason has a control character"),
        (r#"{"headers":{"X":"a\nb"}}"#, "the value of header 'X' has a control character"),
        (r#"{"headers":[["X: y","z"]]}"#, "'X: y' is no name of a header"),
    ] {
        let expected = format!("response cannot be sent: {text}");
        assert_eq!(json(&format!(r#"{{"response":{response}}}"#)).unwrap_err(), expected);
    }
    // What the client does not get to see harms nobody.
    with(&[("X", "a\x01"), ("Y", "1"), ("Grip-Expose-Headers", "Y")], |i| assert_eq!(header_names(&i.unwrap()), ["Y"]));
}

/// Each of these took time or memory by the square of its size.
#[test]
fn documents_with_very_many_parts_are_read_in_one_pass() {
    let many = 100_000;
    let meta = (0..many).map(|n| format!("\"k{n}\":\"\"")).collect::<Vec<_>>().join(",");
    let document = format!(r#"{{"hold":{{"channels":[],"meta":{{{meta}}}}}}}"#);
    assert_eq!(json(&document).unwrap().meta.len(), many);
    let names = (0..many).map(|n| format!("x{n}")).collect::<Vec<_>>();
    let exposed = names.join(",");
    let mut headers: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    headers.push(("Grip-Expose-Headers", &exposed));
    with(&headers, |instruct| assert_eq!(instruct.unwrap().response.headers.len(), many));
    let set = names.join("=1,");
    with(&[("Grip-Set-Meta", set.as_str())], |instruct| assert_eq!(instruct.unwrap().meta.len(), many));
}

#[test]
fn links_are_next_or_gone() {
    with(&[("Grip-Link", "</next?n=1>; rel=next; timeout=3, </gone>; rel=gone, </x>")], |instruct| {
        let instruct = instruct.unwrap();
        assert_eq!(instruct.next, Some(NextLink { uri: "/next?n=1".into(), timeout: Duration::from_secs(3) }));
        assert_eq!(instruct.gone.as_deref(), Some("/gone"));
    });
    for (value, text) in [
        ("/next; rel=next", "failed to parse Grip-Link value"),
        ("<>; rel=next", "failed to parse Grip-Link value"),
        ("<http://[bad>; rel=next; x", "Grip-Link contains invalid link"),
        ("<http://[::1]x/>; rel=next", "Grip-Link contains invalid link"),
        ("<http://h:port/>; rel=next", "Grip-Link contains invalid link"),
        ("<http://h:65536/>; rel=next", "Grip-Link contains invalid link"),
        ("<http:///a>; rel=next", "Grip-Link contains invalid link"),
        ("<http://a b/>; rel=next", "Grip-Link contains invalid link"),
        ("<http://\u{fc}.test/>; rel=next", "Grip-Link contains invalid link"),
        ("</a>; rel=next; timeout=2147483648", "failed to parse Grip-Link timeout value"),
        ("</a>; rel=next; timeout=x", "failed to parse Grip-Link timeout value"),
        ("</a>; rel=next; timeout=-1", "Grip-Link timeout has invalid value"),
    ] {
        assert_eq!(error("Grip-Link", value), text, "{value}");
    }
}

#[test]
fn what_can_not_stand_in_a_link_is_escaped() {
    // As Pushpin 1.36 asks for them.
    for (link, asked) in [
        ("n m", "n%20m"),
        ("/n?a=b c&d=%20", "/n?a=b%20c&d=%20"),
        ("/n?a='b'&c=[d]", "/n?a='b'&c=[d]"),
        ("/n?{x}|<\\^`", "/n?%7Bx%7D%7C%3C%5C%5E%60"),
        ("/n?%zz%4", "/n?%25zz%254"),
        ("/n\u{fc}?\u{fc}", "/n%C3%BC?%C3%BC"),
        ("/n?a\tb", "/n?a%09b"),
        ("http://user@[::1]:8080/a b", "http://user@[::1]:8080/a%20b"),
        ("https://h?a b", "https://h?a%20b"),
        ("http://h:/", "http://h:/"),
    ] {
        with(&[("Grip-Link", &*format!("<{link}>; rel=gone"))], |instruct| {
            assert_eq!(instruct.unwrap().gone.as_deref(), Some(asked));
        });
    }
}

#[test]
fn headers_for_the_proxy_and_about_the_connection_are_taken_out() {
    let headers = [
        ("Content-Type", "text/plain"),
        ("Grip-Hold", "stream"),
        ("Connection", "close"),
        ("Content-Length", "4"),
        ("Content-Encoding", "gzip"),
        ("X-A", "1"),
        ("transfer-encoding", "chunked"),
    ];
    with(&headers, |instruct| {
        assert_eq!(header_names(&instruct.unwrap()), ["Content-Type", "Content-Encoding", "X-A"]);
    });
}

#[test]
fn exposed_headers_are_the_only_ones_left() {
    with(&[("X-A", "1"), ("X-B", "2"), ("Grip-Expose-Headers", "x-b, x-c")], |instruct| {
        assert_eq!(header_names(&instruct.unwrap()), ["X-B"]);
    });
}

#[test]
fn a_document_says_it_all_in_json() {
    let instruct = json(
        r#"{"hold":{"mode":"stream","channels":[{"name":"a","prev-id":"1","filters":["f"]}],"timeout":"30",
            "keep-alive":{"content":"ka","timeout":7},"meta":{"user":"bob"}},
            "response":{"code":201,"headers":{"X-A":"1"},"body":"hi"}}"#,
    )
    .unwrap();
    assert_eq!(instruct.hold, Some(HoldMode::Stream));
    let channel = Channel { name: "a".into(), prev_id: Some("1".into()), filters: vec!["f".into()] };
    assert_eq!(instruct.channels, [channel]);
    assert_eq!(instruct.timeout.as_secs(), 30);
    let keep_alive = instruct.keep_alive.unwrap();
    assert_eq!((keep_alive.timeout.as_secs(), keep_alive.mode), (7, KeepAliveMode::Interval));
    assert_eq!(instruct.response.code.get(), 201);
    assert_eq!(instruct.response.reason.as_bytes(), b"Created");
    assert_eq!(instruct.response.headers.len(), 1);
    assert_eq!(&instruct.response.body[..], b"hi");
}

#[test]
fn each_mistake_in_a_document_has_its_text() {
    for (body, text) in [
        ("x", "failed to parse application/grip-instruct content as JSON"),
        ("1", "failed to parse application/grip-instruct content as JSON"),
        ("[]", "instruct must be an object"),
        (r#"{"hold":1}"#, "instruct contains 'hold' with wrong type"),
        (r#"{"hold":{"mode":"x"}}"#, "hold 'mode' must be set to either 'response' or 'stream'"),
        (r#"{"hold":{"mode":1}}"#, "hold contains 'mode' with wrong type"),
        (r#"{"hold":{}}"#, "hold does not contain 'channels'"),
        (r#"{"hold":{"channels":1}}"#, "hold contains 'channels' with wrong type"),
        (r#"{"hold":{"channels":[1]}}"#, "channel is not an object"),
        (r#"{"hold":{"channels":[{}]}}"#, "channel does not contain 'name'"),
        (r#"{"hold":{"channels":[{"name":1}]}}"#, "channel contains 'name' with wrong type"),
        (r#"{"hold":{"channels":[{"name":"a","prev-id":1}]}}"#, "channel contains 'prev-id' with wrong type"),
        (r#"{"hold":{"channels":[{"name":"a","filters":1}]}}"#, "channel contains 'filters' with wrong type"),
        (r#"{"hold":{"channels":[{"name":"a","filters":[1]}]}}"#, "filters contains value with wrong type"),
        (
            r#"{"hold":{"channels":[{"name":"a","filters":["1","2","3","4","5","6"]}]}}"#,
            "too many filters for channel 'a'",
        ),
        (r#"{"hold":{"channels":[],"timeout":[]}}"#, "hold contains 'timeout' with wrong type"),
        (r#"{"hold":{"channels":[],"timeout":-1}}"#, "hold contains 'timeout' with invalid value"),
        (r#"{"hold":{"channels":[],"keep-alive":1}}"#, "hold contains 'keep-alive' with wrong type"),
        (r#"{"hold":{"channels":[],"keep-alive":{"content":1}}}"#, "keep-alive contains 'content' with wrong type"),
        (
            r#"{"hold":{"channels":[],"keep-alive":{"content":"","timeout":-1}}}"#,
            "keep-alive contains 'timeout' with invalid value",
        ),
        (r#"{"hold":{"channels":[],"meta":1}}"#, "hold contains 'meta' with wrong type"),
        (r#"{"hold":{"channels":[],"meta":{"k":1}}}"#, "'meta' contains 'k' with wrong type"),
        (r#"{"response":{"code":[]}}"#, "response contains 'code' with wrong type"),
        (r#"{"response":{"code":1000}}"#, "response contains 'code' with invalid value"),
        (r#"{"response":{"headers":1}}"#, "response contains 'headers' with wrong type"),
        (r#"{"response":{"headers":[["a"]]}}"#, "headers contains list with wrong number of elements"),
        (r#"{"response":{"body":1}}"#, "response contains 'body' with wrong type"),
    ] {
        assert_eq!(json(body).unwrap_err(), text, "{body}");
    }
    let headers: [(&[u8], &[u8]); 1] = [(b"Content-Type", b"application/grip-instruct")];
    assert_eq!(
        read_response(201, &headers, b"{}").unwrap_err(),
        "response code for application/grip-instruct content must be 200"
    );
}

#[test]
fn a_document_without_anything_is_an_empty_response() {
    let instruct = json("{}").unwrap();
    assert_eq!(instruct.hold, None);
    assert!(instruct.response.headers.is_empty() && instruct.response.body.is_empty());
}

proptest! {
    #[test]
    fn arbitrary_header_values_never_panic(
        name in prop::sample::select(vec!["Grip-Hold", "Grip-Channel", "Grip-Timeout", "Grip-Keep-Alive", "Grip-Set-Meta",
            "Grip-Status", "Grip-Link", "Grip-Expose-Headers", "Content-Type"]),
        value in prop::collection::vec(any::<u8>(), 0..100),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = read_response(200, &[(name.as_bytes(), &value), (b"Content-Type", b"application/grip-instruct")], &body);
        let _ = read_response(200, &[(name.as_bytes(), &value)], &body);
    }
}

#[test]
fn what_says_nothing_to_us_is_no_mistake() {
    with(
        &[("Grip-Link", "a b; rel=prev, no link at all; x=y, </next>; rel=next"), ("Grip-Keep-Alive", "")],
        |instruct| {
            let instruct = instruct.unwrap();
            assert_eq!(instruct.next.unwrap().uri, "/next");
            assert!(instruct.keep_alive.is_none());
        },
    );
}

#[test]
fn seconds_beyond_the_originals_integers_are_no_number() {
    for (value, wanted) in [("2147483648", "failed to parse Grip-Timeout"), ("-1", "Grip-Timeout has invalid value")] {
        with(&[("Grip-Timeout", value)], |instruct| assert_eq!(instruct.unwrap_err().to_string(), wanted));
    }
}
