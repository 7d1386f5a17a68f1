//! Server role: the head of a request.

use std::mem::MaybeUninit;

use super::fields::{Summary, parse_host};
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
        authority: authority.or(summary.host).filter(|host| !host.is_empty()),
        path,
    };
    Ok(Some((head, consumed)))
}

/// The authority of an absolute target, and path and query of any.
///
/// `CONNECT` and everything else that is neither a path, nor absolute, nor `OPTIONS *` has no meaning for a reverse proxy.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), HeadError> {
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
    Ok((Some(parse_host(authority.as_bytes())?), path))
}
