// SPDX-License-Identifier: AGPL-3.0-or-later
//! Just enough HTTP/1.1 for a load generator: message heads and chunked bodies.

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub body: Body,
    /// Bytes taken by the head, blank line included.
    pub size: usize,
}

pub struct RequestHead<'a> {
    pub target: &'a str,
    pub body: Body,
    pub close: bool,
    /// Of one who wants to speak WebSocket.
    pub key: Option<&'a [u8]>,
    pub size: usize,
}

#[derive(Debug)]
pub struct Malformed;

/// `Ok(None)`: more bytes are needed.
pub fn response_head(bytes: &[u8]) -> Result<Option<ResponseHead>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(size) = response.parse(bytes).map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let status = response.code.ok_or(Malformed)?;
    let unframed = if matches!(status, 101 | 204 | 304) { Body::Length(0) } else { Body::UntilClose };
    let body = body(response.headers)?.unwrap_or(unframed);
    Ok(Some(ResponseHead { status, body, size }))
}

pub fn request_head(bytes: &[u8]) -> Result<Option<RequestHead<'_>>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(size) = request.parse(bytes).map_err(|_| Malformed)? else {
        return Ok(None);
    };
    let body = body(request.headers)?.unwrap_or(Body::Length(0));
    let close = match header(request.headers, "connection") {
        Some(value) => value.eq_ignore_ascii_case(b"close"),
        None => request.version == Some(0),
    };
    let target = request.path.ok_or(Malformed)?;
    let key = header(request.headers, "sec-websocket-key");
    Ok(Some(RequestHead { target, body, close, key, size }))
}

fn body(headers: &[httparse::Header]) -> Result<Option<Body>, Malformed> {
    if let Some(encoding) = header(headers, "transfer-encoding") {
        return if encoding.eq_ignore_ascii_case(b"chunked") { Ok(Some(Body::Chunked)) } else { Err(Malformed) };
    }
    let Some(length) = header(headers, "content-length") else { return Ok(None) };
    let length = std::str::from_utf8(length).ok().and_then(|l| l.trim().parse().ok());
    Ok(Some(Body::Length(length.ok_or(Malformed)?)))
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
}

/// The value of one query parameter (no percent-decoding: benchmark names need none).
pub fn query<'a>(target: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Incremental decoder of the chunked transfer coding.
#[derive(Default)]
pub struct Chunked {
    state: ChunkState,
}

#[derive(Default, Clone, Copy)]
enum ChunkState {
    #[default]
    Start,
    Size(usize),
    Extension(usize),
    Data(usize),
    DataEnd,
    /// Trailer section; the value is the number of bytes on the current line.
    Trailer(usize),
    Done,
}

pub enum Piece<'a> {
    Data(&'a [u8]),
    NeedMore,
    End,
}

impl Chunked {
    /// Takes the next piece of body from the front of `input`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, Malformed> {
        while let [byte, rest @ ..] = *input {
            self.state = match self.state {
                ChunkState::Data(left) => {
                    let (data, rest) = input.split_at(left.min(input.len()));
                    *input = rest;
                    self.state = match left - data.len() {
                        0 => ChunkState::DataEnd,
                        left => ChunkState::Data(left),
                    };
                    return Ok(Piece::Data(data));
                }
                ChunkState::Done => return Ok(Piece::End),
                ChunkState::Start | ChunkState::Size(_) if byte.is_ascii_hexdigit() => {
                    let digit = (*byte as char).to_digit(16).unwrap_or(0) as usize;
                    let so_far = if let ChunkState::Size(n) = self.state { n } else { 0 };
                    ChunkState::Size(so_far.checked_mul(16).ok_or(Malformed)? + digit)
                }
                ChunkState::Size(n) | ChunkState::Extension(n) => match byte {
                    b'\n' if n == 0 => ChunkState::Trailer(0),
                    b'\n' => ChunkState::Data(n),
                    _ => ChunkState::Extension(n),
                },
                ChunkState::DataEnd if *byte == b'\r' => ChunkState::DataEnd,
                ChunkState::DataEnd if *byte == b'\n' => ChunkState::Start,
                ChunkState::Trailer(n) => match byte {
                    b'\r' => ChunkState::Trailer(n),
                    b'\n' if n == 0 => ChunkState::Done,
                    b'\n' => ChunkState::Trailer(0),
                    _ => ChunkState::Trailer(n + 1),
                },
                _ => return Err(Malformed),
            };
            *input = rest;
        }
        Ok(if matches!(self.state, ChunkState::Done) { Piece::End } else { Piece::NeedMore })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunked: &mut Chunked, mut input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        loop {
            match chunked.next(&mut input).unwrap() {
                Piece::Data(d) => out.extend_from_slice(d),
                Piece::NeedMore => return (out, false),
                Piece::End => return (out, true),
            }
        }
    }

    #[test]
    fn chunked_body_survives_any_split() {
        let body = b"5\r\nhello\r\na;x=y\r\n, chunked!\r\n0\r\nT: v\r\n\r\n";
        for cut in 0..body.len() {
            let mut chunked = Chunked::default();
            let (mut text, _) = decode(&mut chunked, &body[..cut]);
            let (rest, done) = decode(&mut chunked, &body[cut..]);
            text.extend(rest);
            assert!(done);
            assert_eq!(text, b"hello, chunked!");
        }
    }

    #[test]
    fn response_head_gives_framing() {
        let head = response_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrest").unwrap().unwrap();
        assert_eq!((head.status, head.body, head.size), (200, Body::Chunked, 47));
        assert!(response_head(b"HTTP/1.1 200 OK\r\nContent-").unwrap().is_none());
    }

    #[test]
    fn query_parameter() {
        assert_eq!(query("/a?x=1&channel=c7", "channel"), Some("c7"));
        assert_eq!(query("/a", "channel"), None);
    }
}
