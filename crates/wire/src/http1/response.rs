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
        if !field.name.eq_ignore_ascii_case("Host") {
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

/// The reason phrase of a status line that has been found to be one. (httparse gives up on those beyond ASCII.)
fn reason(buf: &[u8]) -> &[u8] {
    let start = buf.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(buf.len());
    let line = &buf[start..];
    let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}
