// SPDX-License-Identifier: AGPL-3.0-or-later
//! Client role: the head of a response.

use std::mem::MaybeUninit;

use super::fields::Summary;
use super::limits::MAX_HEADERS;
use super::{BodyFraming, Field, HeadError, Limits, Version};

/// A response head, borrowed from the buffer it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// The version of the response.
    pub version: Version,
    /// The status code, 100 to 999.
    pub code: u16,
    /// The reason phrase as sent, possibly empty, not necessarily UTF-8.
    pub reason: &'a [u8],
    /// All header fields, in order and unchanged.
    pub headers: Vec<Field<'a>>,
    /// How the body that follows is framed.
    pub framing: BodyFraming,
    /// Whether the connection can be used for another request after the body.
    pub persistent: bool,
    /// A 1xx other than 101: the response proper follows, read on after this head.
    pub interim: bool,
}

impl<'a> ResponseHead<'a> {
    /// The value of the first header field of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }
}

/// Reads a response head from the start of `buf`.
///
/// `request_method` is the method of the request that it answers: a response to `HEAD` has no body. Gives the head and the
/// number of bytes it took; `None` if the head is not complete yet.
pub fn parse_response<'a>(
    buf: &'a [u8],
    limits: &Limits,
    request_method: &str,
) -> Result<Option<(ResponseHead<'a>, usize)>, HeadError> {
    let too_large = HeadError::TooLarge { limit: limits.head_bytes };
    let mut storage = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let storage = &mut storage[..limits.headers.min(MAX_HEADERS)];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, buf, storage)?;
    let consumed = match status {
        httparse::Status::Complete(consumed) if consumed > limits.head_bytes => return Err(too_large),
        httparse::Status::Complete(consumed) => consumed,
        httparse::Status::Partial if buf.len() >= limits.head_bytes => return Err(too_large),
        httparse::Status::Partial => return Ok(None),
    };
    let (Some(version), Some(code @ 100..)) = (parsed.version, parsed.code) else {
        return Err(HeadError::Status);
    };
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };

    let mut headers = Vec::with_capacity(parsed.headers.len());
    let mut summary = Summary::default();
    for header in &*parsed.headers {
        let field = Field { name: header.name, value: header.value };
        if !says_nothing(field) {
            summary.add(field)?;
        }
        headers.push(field);
    }
    // Contradicting fields are an error even where the body is known to be absent: they are passed on to others.
    let declared = summary.framing(version)?;
    let framing = if request_method == "HEAD" || matches!(code, 100..=199 | 204 | 304) {
        BodyFraming::None
    } else {
        declared.unwrap_or(BodyFraming::UntilClose)
    };
    let head = ResponseHead {
        version,
        code,
        reason: reason(buf),
        headers,
        framing,
        persistent: summary.persistent(version) && framing != BodyFraming::UntilClose && code != 101,
        interim: matches!(code, 100 | 102..=199),
    };
    Ok(Some((head, consumed)))
}

/// Whether a field has no part in what a response is, though it has one in a request. `identity` was once the name of no coding
/// at all (RFC 2616, section 3.6), and some still say so.
fn says_nothing(field: Field<'_>) -> bool {
    let is_no_coding = || {
        field.name.eq_ignore_ascii_case("Transfer-Encoding")
            && field.value.trim_ascii().eq_ignore_ascii_case(b"identity")
    };
    field.name.eq_ignore_ascii_case("Host") || is_no_coding()
}

/// Whether an empty line begins in `bytes`. Before there is one, a head is not complete and need not be parsed again.
pub fn has_blank_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// The reason phrase of a status line that has been found to be one. (httparse gives up on those beyond ASCII.)
fn reason(buf: &[u8]) -> &[u8] {
    let start = buf.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(buf.len());
    let line = &buf[start..];
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<'a>(text: &'a str, method: &str) -> ResponseHead<'a> {
        let (head, consumed) = parse_response(text.as_bytes(), &Limits::default(), method).unwrap().unwrap();
        assert_eq!(consumed, text.len());
        head
    }

    fn error(text: &[u8]) -> HeadError {
        parse_response(text, &Limits::default(), "GET").unwrap_err()
    }

    #[test]
    fn the_reason_is_kept_as_sent_or_empty() {
        assert_eq!(parse("HTTP/1.1 200 Fine  by me\r\n\r\n", "GET").reason, b"Fine  by me");
        assert_eq!(parse("HTTP/1.1 200 \r\n\r\n", "GET").reason, b"");
        assert_eq!(parse("HTTP/1.1 200\r\n\r\n", "GET").reason, b"");
        assert_eq!(parse("HTTP/1.1 200\n\n", "GET").reason, b"");
        assert_eq!(
            parse("\r\nHTTP/1.0 404 Nicht gefunden – schade\n\n", "GET").reason,
            "Nicht gefunden – schade".as_bytes()
        );
    }

    #[test]
    fn the_body_is_framed_by_chunks_length_or_the_end_of_the_connection() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET").framing, BodyFraming::Chunked);
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "GET").framing, BodyFraming::Length(7));
        let head = parse("HTTP/1.1 200 OK\r\n\r\n", "GET");
        assert_eq!((head.framing, head.persistent), (BodyFraming::UntilClose, false));
    }

    #[test]
    fn responses_to_head_and_204_and_304_have_no_body_and_leave_the_connection_usable() {
        for (text, method) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "HEAD"),
            ("HTTP/1.1 200 OK\r\n\r\n", "HEAD"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "GET"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "GET"),
        ] {
            let head = parse(text, method);
            assert_eq!((head.framing, head.persistent), (BodyFraming::None, true), "{text}");
        }
    }

    #[test]
    fn interim_responses_are_marked_but_101_is_final() {
        assert!(parse("HTTP/1.1 100 Continue\r\n\r\n", "GET").interim);
        assert!(parse("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "GET").interim);
        let switched = parse("HTTP/1.1 101 Switching Protocols\r\n\r\n", "GET");
        assert_eq!((switched.interim, switched.persistent), (false, false));
    }

    #[test]
    fn a_host_field_means_nothing_in_a_response() {
        assert_eq!(parse("HTTP/1.1 204 No\r\nHost: a\r\nHost: b/\r\n\r\n", "GET").headers.len(), 2);
    }

    #[test]
    fn identity_is_no_coding_in_a_response() {
        let framing = |fields: &str| parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), "GET").framing;
        assert_eq!(framing("Transfer-Encoding: identity\r\n"), BodyFraming::UntilClose);
        assert_eq!(framing("Transfer-Encoding: Identity\r\nContent-Length: 2\r\n"), BodyFraming::Length(2));
        let both = "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(framing(both), BodyFraming::Chunked);
    }

    #[test]
    fn contradictions_about_the_length_are_refused() {
        assert_eq!(
            error(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            HeadError::ContentLength
        );
        let beyond = b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n";
        assert_eq!(error(beyond), HeadError::ContentLength);
        let both = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(error(both), HeadError::AmbiguousLength);
        let coding = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
        assert_eq!(error(coding), HeadError::TransferEncoding);
    }

    #[test]
    fn a_blank_line_ends_a_head_with_or_without_carriage_returns() {
        for complete in ["A: b\r\n\r\n", "A: b\n\n", "A: b\n\r\nbody"] {
            assert!(has_blank_line(complete.as_bytes()), "{complete:?}");
        }
        for incomplete in ["", "\n", "A: b\r\n", "A: b\r\n\r", "A: b\nB: c\n"] {
            assert!(!has_blank_line(incomplete.as_bytes()), "{incomplete:?}");
        }
    }

    #[test]
    fn a_head_may_have_as_many_fields_as_the_limits_say() {
        let limits = Limits { head_bytes: 1 << 18, headers: 1000 };
        let text = |fields: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "Grip-Channel: c\r\n".repeat(fields));
        let most = text(1000);
        let (head, _) = parse_response(most.as_bytes(), &limits, "GET").unwrap().unwrap();
        assert_eq!(head.headers.len(), 1000);
        assert_eq!(parse_response(text(1001).as_bytes(), &limits, "GET"), Err(HeadError::TooManyHeaders));
    }

    #[test]
    fn what_is_not_a_response_is_refused() {
        assert_eq!(error(b"NOT HTTP AT ALL\r\n\r\n"), HeadError::Version);
        assert_eq!(error(b"HTTP/2.0 200 OK\r\n\r\n"), HeadError::Version);
        assert_eq!(error(b"HTTP/1.1 abc OK\r\n\r\n"), HeadError::Status);
        assert_eq!(error(b"HTTP/1.1 099 OK\r\n\r\n"), HeadError::Status);
        assert_eq!(error(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), HeadError::HeaderName);
    }
}
