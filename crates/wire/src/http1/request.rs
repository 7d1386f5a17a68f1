// SPDX-License-Identifier: AGPL-3.0-or-later
//! Server role: the head of a request.

use std::mem::MaybeUninit;

use super::authority::parse_authority;
use super::fields::Summary;
use super::limits::MAX_HEADERS;
use super::{BodyFraming, Field, HeadError, Limits, Version};

/// A request head, borrowed from the buffer it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method, a token, case as sent.
    pub method: &'a str,
    /// The request target as sent: visible ASCII.
    pub target: &'a str,
    /// The version of the request; also that of the response.
    pub version: Version,
    /// All header fields, in order and unchanged.
    pub headers: Vec<Field<'a>>,
    /// How the body that follows is framed; never [`BodyFraming::UntilClose`].
    pub framing: BodyFraming,
    /// Whether another request may follow on the connection.
    pub persistent: bool,
    /// The client waits for `100 Continue` before it sends the body. Only in HTTP/1.1, only if there is a body.
    pub expects_continue: bool,
    /// There is `Upgrade: websocket`.
    pub websocket: bool,
    /// Where the request wants to go, `name[:port]`: from an absolute target, else from `Host`. `None` if neither says.
    pub authority: Option<&'a str>,
    /// Path and query, the target without scheme and authority. For `*`, and for an absolute target without path, it is
    /// empty or begins with `?`.
    pub path: &'a str,
}

impl<'a> RequestHead<'a> {
    /// The value of the first header field of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Appends the URI of the request: scheme (`http`, `ws`, ...), authority (`localhost` if unknown), path and query.
    pub fn write_uri(&self, scheme: &str, out: &mut Vec<u8>) {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let authority = self.authority.unwrap_or("localhost");
        for part in [scheme, "://", authority, slash, self.path] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Reads a request head from the start of `buf`.
///
/// Gives the head and the number of bytes it took; `None` if the head is not complete yet. Call it again with the longer
/// buffer then.
pub fn parse_request<'a>(buf: &'a [u8], limits: &Limits) -> Result<Option<(RequestHead<'a>, usize)>, HeadError> {
    let too_large = HeadError::TooLarge { limit: limits.head_bytes };
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let storage = &mut storage[..limits.headers.min(MAX_HEADERS)];
    let consumed = match parsed.parse_with_uninit_headers(buf, storage)? {
        httparse::Status::Complete(consumed) if consumed > limits.head_bytes => return Err(too_large),
        httparse::Status::Complete(consumed) => consumed,
        httparse::Status::Partial if buf.len() >= limits.head_bytes => return Err(too_large),
        httparse::Status::Partial => return Ok(None),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Token);
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    if !target.is_ascii() {
        return Err(HeadError::Token);
    }

    let mut headers = Vec::with_capacity(parsed.headers.len());
    let mut summary = Summary::default();
    for header in &*parsed.headers {
        let field = Field { name: header.name, value: header.value };
        summary.add(field)?;
        headers.push(field);
    }
    let framing = summary.framing(version)?.unwrap_or(BodyFraming::None);
    let (authority, path) = split_target(method, target)?;
    if summary.hosts_differ {
        return Err(HeadError::Host);
    }
    let host = summary.host.map(parse_authority).transpose()?;
    let has_body = !matches!(framing, BodyFraming::None | BodyFraming::Length(0));
    let head = RequestHead {
        method,
        target,
        version,
        headers,
        framing,
        persistent: summary.persistent(version),
        expects_continue: summary.expects_continue && has_body && version == Version::Http11,
        websocket: summary.websocket,
        authority: authority.or(host).filter(|host| !host.is_empty()),
        path,
    };
    Ok(Some((head, consumed)))
}

/// The authority of an absolute target, and path and query of any.
///
/// Everything else that is neither a path, nor absolute, nor `OPTIONS *` has no meaning for a reverse proxy. Nor has
/// `CONNECT`: what a backend answered would be a tunnel and no response.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Connect);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((None, ""));
    }
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::Token)?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(HeadError::Token);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(HeadError::Token);
    }
    Ok((Some(parse_authority(authority.as_bytes())?), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RequestHead<'_> {
        let (head, consumed) = parse_request(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        assert_eq!(consumed, text.len());
        head
    }

    fn uri(text: &str) -> String {
        let mut out = Vec::new();
        parse(text).write_uri("http", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_keeps_order_case_duplicates_and_bytes() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-B:  1 \r\nx-a: \xff\t2\r\nX-B: 3\r\n\r\nbody";
        let (head, consumed) = parse_request(bytes, &Limits::default()).unwrap().unwrap();
        assert_eq!(consumed, bytes.len() - 4);
        assert_eq!((head.method, head.target, head.path, head.version), ("GET", "/a?b", "/a?b", Version::Http11));
        let fields: Vec<_> = head.headers.iter().map(|field| (field.name, field.value)).collect();
        assert_eq!(fields, [("Host", &b"h"[..]), ("X-B", b"1"), ("x-a", b"\xff\t2"), ("X-B", b"3")]);
        assert_eq!(head.header("x-b"), Some(&b"1"[..]));
    }

    #[test]
    fn an_incomplete_head_is_not_an_error() {
        for length in 0..30 {
            let part = &b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"[..length];
            assert_eq!(parse_request(part, &Limits::default()), Ok(None), "{length}");
        }
    }

    #[test]
    fn empty_lines_before_and_bare_line_feeds_are_accepted() {
        let head = parse("\r\n\nGET /x HTTP/1.1\nHost: h\nA: b\n\n");
        assert_eq!((head.target, head.headers.len()), ("/x", 2));
    }

    #[test]
    fn the_body_is_framed_by_length_or_chunks_or_absent() {
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n").framing, BodyFraming::None);
        assert_eq!(parse("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").framing, BodyFraming::Length(0));
        assert_eq!(parse("POST / HTTP/1.1\r\ncontent-length:\t12 \r\n\r\n").framing, BodyFraming::Length(12));
        let twice = "POST / HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(parse(twice).framing, BodyFraming::Length(12));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding:\tChunked\r\n\r\n";
        assert_eq!(parse(chunked).framing, BodyFraming::Chunked);
    }

    #[test]
    fn persistence_depends_on_version_and_connection() {
        for (text, persistent) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: x\r\nConnection: y, close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
        ] {
            assert_eq!(parse(text).persistent, persistent, "{text}");
        }
    }

    #[test]
    fn continue_is_expected_only_in_1_1_and_with_a_body() {
        let ask = |version, length| {
            format!("POST / HTTP/{version}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
        };
        assert!(parse(&ask("1.1", 5)).expects_continue);
        assert!(!parse(&ask("1.1", 0)).expects_continue);
        assert!(!parse(&ask("1.0", 5)).expects_continue);
        assert!(!parse("POST / HTTP/1.1\r\nExpect: other\r\nContent-Length: 5\r\n\r\n").expects_continue);
    }

    #[test]
    fn websocket_is_told_by_the_upgrade_field_in_any_case() {
        assert!(parse("GET / HTTP/1.1\r\nupgrade: WebSocket\r\n\r\n").websocket);
        assert!(!parse("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n").websocket);
    }

    #[test]
    fn the_uri_takes_its_authority_from_the_target_then_the_host_then_localhost() {
        assert_eq!(uri("GET /a?b HTTP/1.1\r\nHost: h:8080\r\n\r\n"), "http://h:8080/a?b");
        assert_eq!(uri("GET /a HTTP/1.1\r\n\r\n"), "http://localhost/a");
        assert_eq!(uri("GET /a HTTP/1.1\r\nHost:\r\n\r\n"), "http://localhost/a");
        assert_eq!(uri("GET HTTP://other:1/a HTTP/1.1\r\nHost: h\r\n\r\n"), "http://other:1/a");
        assert_eq!(uri("GET http://other HTTP/1.1\r\nHost: h\r\n\r\n"), "http://other/");
        assert_eq!(uri("GET http://other?q=/ HTTP/1.1\r\nHost: h\r\n\r\n"), "http://other/?q=/");
        assert_eq!(uri("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), "http://h/");
        assert_eq!(uri("GET //a/../b HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), "http://[::1]:80//a/../b");
    }

    #[test]
    fn the_same_host_twice_is_one_host() {
        assert_eq!(uri("GET / HTTP/1.1\r\nHost: h\r\nHost: H\r\n\r\n"), "http://H/");
    }

    #[test]
    fn a_head_over_its_limit_is_refused_whether_complete_or_not() {
        let limits = Limits { head_bytes: 32, headers: 64 };
        let text = b"GET / HTTP/1.1\r\nHost: hhhhhhhhhhhhhh\r\n\r\n";
        assert_eq!(parse_request(&text[..31], &limits), Ok(None));
        let error = HeadError::TooLarge { limit: 32 };
        assert_eq!(parse_request(&text[..32], &limits), Err(error));
        assert_eq!(parse_request(text, &limits), Err(error));
        assert_eq!(error.page_text(), "Request header size exceeded limit of 32 bytes.\n");
    }

    #[test]
    fn a_head_with_as_many_fields_as_the_limit_says_passes_and_one_more_does_not() {
        let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(fields));
        assert_eq!(parse(&head(64)).headers.len(), 64);
        assert_eq!(parse_request(head(65).as_bytes(), &Limits::default()), Err(HeadError::TooManyHeaders));
    }
}
