// SPDX-License-Identifier: AGPL-3.0-or-later
//! Messages about whose end two readers could disagree. Each is refused, with the reason that its sender may read.

use wire::http1::{BodyFraming, HeadError, Limits, parse_request, parse_response};

/// Name, header lines, error.
const AMBIGUOUS: &[(&str, &str, HeadError)] = &[
    ("length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", HeadError::AmbiguousLength),
    ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", HeadError::AmbiguousLength),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n", HeadError::ContentLength),
    ("list of lengths", "Content-Length: 5, 5\r\n", HeadError::ContentLength),
    ("negative length", "Content-Length: -5\r\n", HeadError::ContentLength),
    ("signed length", "Content-Length: +5\r\n", HeadError::ContentLength),
    ("hexadecimal length", "Content-Length: 0x5\r\n", HeadError::ContentLength),
    ("length with letters", "Content-Length: 5a\r\n", HeadError::ContentLength),
    ("length with space", "Content-Length: 5 5\r\n", HeadError::ContentLength),
    ("empty length", "Content-Length:\r\n", HeadError::ContentLength),
    ("length over 64 bits", "Content-Length: 18446744073709551616\r\n", HeadError::ContentLength),
    ("length over 63 bits", "Content-Length: 9223372036854775808\r\n", HeadError::ContentLength),
    ("length wrapping around", "Content-Length: 99999999999999999999999\r\n", HeadError::ContentLength),
    ("length in other digits", "Content-Length: \u{0665}\r\n", HeadError::ContentLength),
    ("unknown coding", "Transfer-Encoding: xchunked\r\n", HeadError::TransferEncoding),
    ("chunked not last", "Transfer-Encoding: chunked, identity\r\n", HeadError::TransferEncoding),
    ("another coding first", "Transfer-Encoding: gzip, chunked\r\n", HeadError::TransferEncoding),
    ("empty element", "Transfer-Encoding: ,chunked\r\n", HeadError::TransferEncoding),
    ("coding with parameter", "Transfer-Encoding: chunked;q=1\r\n", HeadError::TransferEncoding),
    ("quoted coding", "Transfer-Encoding: \"chunked\"\r\n", HeadError::TransferEncoding),
    ("vertical tab", "Transfer-Encoding: \x0bchunked\r\n", HeadError::HeaderValue),
    ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", HeadError::TransferEncoding),
    ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HeadError::TransferEncoding),
    ("empty coding", "Transfer-Encoding:\r\n", HeadError::TransferEncoding),
    ("space before the colon", "Transfer-Encoding : chunked\r\n", HeadError::HeaderName),
    ("tab before the colon", "Transfer-Encoding\t: chunked\r\n", HeadError::HeaderName),
    ("space before the name", "X: y\r\n Transfer-Encoding: chunked\r\n", HeadError::HeaderName),
    ("folded value", "Transfer-Encoding:\r\n chunked\r\n", HeadError::HeaderName),
    ("name with NUL", "Transfer-Encoding\0: chunked\r\n", HeadError::HeaderName),
    ("empty name", ": chunked\r\n", HeadError::HeaderName),
    ("no colon", "Transfer-Encoding\r\n", HeadError::HeaderName),
    ("NUL in a value", "X: a\0b\r\n", HeadError::HeaderValue),
    ("carriage return in a value", "X: a\rTransfer-Encoding: chunked\r\n", HeadError::HeaderValue),
];

/// What means nothing in a response, whose sender says no more by it than that the body is as it is.
const AMBIGUOUS_IN_REQUESTS: &[(&str, &str, HeadError)] = &[
    ("identity", "Transfer-Encoding: identity\r\n", HeadError::TransferEncoding),
    (
        "chunked and identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        HeadError::TransferEncoding,
    ),
];

#[test]
fn every_ambiguous_request_is_refused() {
    for (name, lines, expected) in AMBIGUOUS.iter().chain(AMBIGUOUS_IN_REQUESTS) {
        let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        assert_eq!(parse_request(text.as_bytes(), &Limits::default()).map(|_| ()), Err(*expected), "{name}");
        assert_eq!(expected.status(), 400);
    }
}

#[test]
fn every_ambiguous_response_is_refused_also_where_no_body_is_expected() {
    for (name, lines, expected) in AMBIGUOUS {
        for method in ["GET", "HEAD"] {
            let text = format!("HTTP/1.1 200 OK\r\nServer: s\r\n{lines}\r\n");
            let result = parse_response(text.as_bytes(), &Limits::default(), method);
            assert_eq!(result.map(|_| ()), Err(*expected), "{name}");
        }
    }
}

#[test]
fn request_lines_that_are_read_differently_are_refused() {
    for (line, expected) in [
        ("GET /a HTTP/2.0", HeadError::Version),
        ("GET /a HTTP/1.2", HeadError::Version),
        ("GET /a http/1.1", HeadError::Version),
        ("GET /a", HeadError::Token),
        ("GET  /a HTTP/1.1", HeadError::Token),
        ("GET /a  HTTP/1.1", HeadError::Version),
        ("GET\t/a HTTP/1.1", HeadError::Token),
        ("GET /a b HTTP/1.1", HeadError::Version),
        ("GET /\u{e4} HTTP/1.1", HeadError::Token),
        ("GET /\0 HTTP/1.1", HeadError::Token),
        ("GET /\x7f HTTP/1.1", HeadError::Token),
        ("GET a HTTP/1.1", HeadError::Token),
        ("GET * HTTP/1.1", HeadError::Token),
        ("GET ftp://h/ HTTP/1.1", HeadError::Token),
        ("GET http:///a HTTP/1.1", HeadError::Token),
        ("GET http://user@h/a HTTP/1.1", HeadError::Host),
        ("GET http://h:99999/ HTTP/1.1", HeadError::Host),
        ("GET http://:80/ HTTP/1.1", HeadError::Host),
        ("GET http://[::1/ HTTP/1.1", HeadError::Host),
        ("CONNECT /x HTTP/1.1", HeadError::Connect),
        ("CONNECT http://h/x HTTP/1.1", HeadError::Connect),
        ("CONNECT h:80 HTTP/1.1", HeadError::Connect),
        ("CONNECT * HTTP/1.1", HeadError::Connect),
        (" GET /a HTTP/1.1", HeadError::Token),
        ("\x16\x03\x01\x02\0\x01\0", HeadError::Token),
        ("hello world", HeadError::Token),
    ] {
        let text = format!("{line}\r\nHost: h\r\n\r\n");
        assert_eq!(parse_request(text.as_bytes(), &Limits::default()).map(|_| ()), Err(expected), "{line:?}");
    }
}

#[test]
fn hosts_that_are_read_differently_are_refused() {
    for lines in
        ["Host: a\r\nHost: b", "Host: a b", "Host: a/b", "Host: a@b", "Host: a, b", "Host: a?b", "Host: \u{e4}"]
    {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
        let result = parse_request(text.as_bytes(), &Limits::default());
        assert_eq!(result.map(|_| ()), Err(HeadError::Host), "{lines}");
    }
}

#[test]
fn chunks_in_a_message_of_1_0_are_refused() {
    let error = Err(HeadError::TransferEncoding);
    let request = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_request(request, &Limits::default()).map(|_| ()), error);
    let response = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_response(response, &Limits::default(), "GET").map(|_| ()), error);
}

#[test]
fn the_largest_length_is_accepted() {
    let text = b"POST / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n";
    let (head, _) = parse_request(text, &Limits::default()).unwrap().unwrap();
    assert_eq!(head.framing, BodyFraming::Length(i64::MAX as u64));
}

#[test]
fn a_length_that_signed_readers_can_not_count_is_refused() {
    for length in ["9223372036854775808", "18446744073709551615", "99999999999999999999999"] {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(parse_request(text.as_bytes(), &Limits::default()).map(|_| ()), Err(HeadError::ContentLength));
    }
}
