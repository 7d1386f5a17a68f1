// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writing heads.
//!
//! Header fields come from packets, that is, from other programs; whatever could end a line early is refused, so that
//! nobody can write a second message into ours.

use super::{BodyFraming, Version};

/// Why a head could not be written. Nothing has been appended then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The method is empty or not a token.
    #[error("the method is not a token")]
    Method,
    /// The target is empty, or has a space, a control byte, or a byte beyond ASCII.
    #[error("the request target has a space, a control byte or a byte beyond ASCII")]
    Target,
    /// The host is empty, or has a space, a control byte, or a byte beyond ASCII.
    #[error("the host has a space, a control byte or a byte beyond ASCII")]
    Host,
    /// A line end or NUL in the reason phrase.
    #[error("the reason phrase has a line end or NUL")]
    Reason,
    /// The name of a header field is not a token.
    #[error("header name {0:?} is not a token")]
    HeaderName(String),
    /// A line end or NUL in the value of this header field.
    #[error("the value of header {0:?} has a line end or NUL")]
    HeaderValue(String),
}

/// The first line of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusLine<'a> {
    /// The version of the request that is answered.
    pub version: Version,
    /// The status code; not checked.
    pub code: u16,
    /// The reason phrase, possibly empty.
    pub reason: &'a [u8],
}

/// Appends the head of a response.
///
/// The given fields are written in their order, without `Content-Length`, `Transfer-Encoding` and (unless the code is 101)
/// `Connection`; these are then added as `framing` and `persistent` ask for. [`BodyFraming::UntilClose`] makes sense with
/// `persistent == false` only.
pub fn write_response_head<'a>(
    out: &mut Vec<u8>,
    status: StatusLine<'_>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    framing: BodyFraming,
    persistent: bool,
) -> Result<(), EncodeError> {
    if ends_line(status.reason) {
        return Err(EncodeError::Reason);
    }
    let start = out.len();
    out.extend_from_slice(match status.version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    write_number(out, u64::from(status.code));
    out.push(b' ');
    out.extend_from_slice(status.reason);
    out.extend_from_slice(b"\r\n");
    let written = write_fields(out, headers, |name| {
        is_framing(name) || (status.code != 101 && name.eq_ignore_ascii_case(b"Connection"))
    });
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    match status.version {
        Version::Http10 if persistent => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Version::Http11 if !persistent => out.extend_from_slice(b"Connection: close\r\n"),
        _ => {}
    }
    write_framing(out, framing);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends an interim response (1xx), which is a head only.
///
/// The given fields are written in their order, without those of the connection and of a body.
pub fn write_interim_response<'a>(
    out: &mut Vec<u8>,
    code: u16,
    reason: &[u8],
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), EncodeError> {
    let status = StatusLine { version: Version::Http11, code, reason };
    write_response_head(out, status, headers, BodyFraming::None, true)
}

/// Appends the head of a request, in HTTP/1.1, for a connection that is meant to persist.
///
/// `host` is `name[:port]` and becomes the first field. The given fields follow in their order, without `Host`,
/// `Connection`, `Content-Length` and `Transfer-Encoding`; then comes what `framing` asks for.
pub fn write_request_head<'a>(
    out: &mut Vec<u8>,
    method: &[u8],
    target: &[u8],
    host: &[u8],
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    framing: BodyFraming,
) -> Result<(), EncodeError> {
    if !is_token(method) {
        return Err(EncodeError::Method);
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(EncodeError::Target);
    }
    if host.is_empty() || !host.iter().all(u8::is_ascii_graphic) {
        return Err(EncodeError::Host);
    }
    let start = out.len();
    for part in [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let written = write_fields(out, headers, |name| {
        is_framing(name) || name.eq_ignore_ascii_case(b"Connection") || name.eq_ignore_ascii_case(b"Host")
    });
    if let Err(error) = written {
        out.truncate(start);
        return Err(error);
    }
    write_framing(out, framing);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn write_fields<'a>(
    out: &mut Vec<u8>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    drop: impl Fn(&[u8]) -> bool,
) -> Result<(), EncodeError> {
    for (name, value) in headers {
        if !is_token(name) {
            return Err(EncodeError::HeaderName(String::from_utf8_lossy(name).into_owned()));
        }
        if drop(name) {
            continue;
        }
        if ends_line(value) {
            return Err(EncodeError::HeaderValue(String::from_utf8_lossy(name).into_owned()));
        }
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn write_framing(out: &mut Vec<u8>, framing: BodyFraming) {
    match framing {
        BodyFraming::None | BodyFraming::UntilClose => {}
        BodyFraming::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        BodyFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"Transfer-Encoding")
}

fn ends_line(text: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, text).is_some()
}

/// Whether this is a token (RFC 9110, section 5.6.2), as names of headers and methods are.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// The bytes of a token (RFC 9110, section 5.6.2).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let punctuation = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < punctuation.len() {
        table[punctuation[index] as usize] = true;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn pairs<'a>(headers: Pairs<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn response(version: Version, code: u16, headers: Pairs<'_>, framing: BodyFraming, persistent: bool) -> String {
        let mut out = Vec::new();
        let status = StatusLine { version, code, reason: b"Reason" };
        write_response_head(&mut out, status, pairs(headers), framing, persistent).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_response_keeps_its_fields_but_those_about_the_connection() {
        let headers: Pairs<'_> = &[
            ("x-b", "1"),
            ("connection", "Upgrade"),
            ("Content-length", "99"),
            ("X-B", "2"),
            ("Transfer-Encoding", "gzip"),
        ];
        assert_eq!(
            response(Version::Http11, 200, headers, BodyFraming::Length(5), true),
            "HTTP/1.1 200 Reason\r\nx-b: 1\r\nX-B: 2\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(
            response(Version::Http11, 101, headers, BodyFraming::None, true),
            "HTTP/1.1 101 Reason\r\nx-b: 1\r\nconnection: Upgrade\r\nX-B: 2\r\n\r\n"
        );
    }

    #[test]
    fn persistence_is_said_only_where_it_is_not_the_default() {
        let none = BodyFraming::None;
        assert_eq!(response(Version::Http11, 204, &[], none, true), "HTTP/1.1 204 Reason\r\n\r\n");
        assert_eq!(
            response(Version::Http11, 200, &[], BodyFraming::Chunked, false),
            "HTTP/1.1 200 Reason\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            response(Version::Http10, 200, &[], BodyFraming::Length(0), true),
            "HTTP/1.0 200 Reason\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(response(Version::Http10, 200, &[], BodyFraming::UntilClose, false), "HTTP/1.0 200 Reason\r\n\r\n");
    }

    #[test]
    fn a_request_begins_with_the_host_it_goes_to() {
        let mut out = Vec::new();
        let headers = pairs(&[("Host", "other"), ("X-A", "1"), ("Connection", "close"), ("Content-Length", "3")]);
        write_request_head(&mut out, b"POST", b"/a?b", b"h:81", headers, BodyFraming::Length(7)).unwrap();
        let expected = b"POST /a?b HTTP/1.1\r\nHost: h:81\r\nX-A: 1\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn nothing_can_end_a_line_early_and_nothing_is_left_of_the_attempt() {
        let mut out = b"before".to_vec();
        let status = |reason| StatusLine { version: Version::Http11, code: 200, reason };
        for (name, value) in [("A", "b\r\nX: y"), ("A", "b\nc"), ("A", "b\rc"), ("A", "b\0c")] {
            let headers = [("Ok", "1"), (name, value)];
            let error = write_response_head(&mut out, status(b"OK"), pairs(&headers), BodyFraming::None, true);
            assert_eq!(error, Err(EncodeError::HeaderValue("A".into())));
        }
        for name in ["", "A b", "A:", "A\r\nB", "A\0", "Ä"] {
            let error = write_request_head(&mut out, b"GET", b"/", b"h", pairs(&[(name, "v")]), BodyFraming::None);
            assert_eq!(error, Err(EncodeError::HeaderName(name.into())));
        }
        let error = write_response_head(&mut out, status(b"OK\r\n"), pairs(&[]), BodyFraming::None, true);
        assert_eq!(error, Err(EncodeError::Reason));
        let mut request =
            |method, target, host| write_request_head(&mut out, method, target, host, pairs(&[]), BodyFraming::None);
        assert_eq!(request(b"GE T", b"/", b"h"), Err(EncodeError::Method));
        assert_eq!(request(b"", b"/", b"h"), Err(EncodeError::Method));
        assert_eq!(request(b"GET", b"/ HTTP/1.1\r\nX: y", b"h"), Err(EncodeError::Target));
        assert_eq!(request(b"GET", b"/\xc3\xa4", b"h"), Err(EncodeError::Target));
        assert_eq!(request(b"GET", b"/", b"h\r\nX: y"), Err(EncodeError::Host));
        assert_eq!(out, b"before");
    }
}
