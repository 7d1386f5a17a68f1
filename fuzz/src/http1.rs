// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes from clients and backends.

use outbound::http1::download::Download;
use wire::http1::{
    BodyDecoder, BodyFraming, Field, Limits, MAX_HEADERS, StatusLine, parse_request, parse_response,
    write_request_head, write_response_head,
};

/// As much as a message may have anywhere.
const LIMITS: Limits = Limits { head_bytes: 1 << 18, headers: MAX_HEADERS };

fn pairs<'a>(fields: &'a [Field<'a>]) -> Vec<(&'a [u8], &'a [u8])> {
    fields.iter().map(|field| (field.name.as_bytes(), field.value)).collect()
}

/// No field can end its line, so that it can not become two for the next reader.
fn assert_one_line_each(fields: &[Field<'_>]) {
    for field in fields {
        assert!(!field.value.iter().any(|&byte| matches!(byte, b'\r' | b'\n' | 0)), "{field:?}");
        assert!(!field.name.is_empty() && field.name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
    }
}

/// The head of a request: it ends at the same byte whatever follows, and is framed the same after it was passed on.
pub fn request(data: &[u8]) {
    let Ok(Some((head, length))) = parse_request(data, &LIMITS) else { return };
    assert_one_line_each(&head.headers);
    let (alone, same) = parse_request(&data[..length], &LIMITS).expect("still a head").expect("still complete");
    assert_eq!((alone.framing, same), (head.framing, length));
    for cut in [length - 1, length / 2] {
        assert!(!matches!(parse_request(&data[..cut], &LIMITS), Ok(Some(_))), "{cut} of {length} bytes are a head");
    }
    assert!(head.framing != BodyFraming::UntilClose);

    let (mut out, mut uri) = (Vec::new(), Vec::new());
    head.write_uri("http", &mut uri);
    let path = if head.path.starts_with('/') { head.path } else { "/" };
    let host = head.authority.filter(|host| !host.is_empty()).unwrap_or("h");
    let written = write_request_head(
        &mut out,
        head.method.as_bytes(),
        path.as_bytes(),
        host.as_bytes(),
        pairs(&head.headers),
        head.framing,
    );
    if written.is_err() || head.headers.len() + 3 > MAX_HEADERS {
        return;
    }
    let (again, length) = parse_request(&out, &LIMITS).expect("what we write is a head").expect("a complete one");
    assert_eq!((again.framing, again.path, length), (head.framing, path, out.len()));
}

/// What a [`Download`] finds in a response that comes in pieces of `piece` bytes, with credits for `credits` bytes of
/// payload each; `None` if it is broken or not complete.
fn download(data: &[u8], piece: usize, credits: usize) -> Option<(u16, Vec<u8>)> {
    let (mut download, mut joined) = (Download::new(false, LIMITS), Vec::new());
    let (mut kept, mut code, mut payload) = (Vec::new(), 0, Vec::new());
    let mut pieces = data.chunks(piece.max(1));
    loop {
        let news = pieces.next();
        kept.extend_from_slice(news.unwrap_or_default());
        let found = download.read(&kept, credits, &mut joined).ok()?;
        assert!(found.payload.len() <= credits);
        code = found.head.map_or(code, |head| head.code);
        payload.extend_from_slice(found.payload);
        let consumed = found.consumed;
        kept.drain(..consumed);
        if download.is_done() {
            return Some((code, payload));
        }
        if news.is_none() && consumed == 0 {
            download.end_of_input().ok()?;
            return Some((code, payload));
        }
    }
}

/// The response of a backend: it means the same however it comes, and is framed the same after it was passed on. The first
/// byte is the size of the pieces.
pub fn response(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else { return };
    if let Some(whole) = download(data, usize::MAX, usize::MAX) {
        assert_eq!(download(data, usize::from(piece), usize::MAX).as_ref(), Some(&whole));
        assert_eq!(download(data, usize::MAX, usize::from(piece).max(1)), Some(whole));
    }
    let Ok(Some((head, length))) = parse_response(data, &LIMITS, "GET") else { return };
    assert_one_line_each(&head.headers);
    assert!((100..1000).contains(&head.code) && length <= data.len());
    let status = StatusLine { version: head.version, code: head.code, reason: head.reason };
    let mut out = Vec::new();
    if head.interim
        || head.framing == BodyFraming::UntilClose
        || head.headers.len() + 2 > MAX_HEADERS
        || write_response_head(&mut out, status, pairs(&head.headers), head.framing, head.persistent).is_err()
    {
        return;
    }
    let (again, length) = parse_response(&out, &LIMITS, "GET").expect("what we write is a head").expect("complete");
    assert_eq!((again.code, length), (head.code, out.len()));
}

/// Reads a body to its end, or to the end of the input: payload, and whether it is complete.
fn body(data: &[u8], piece: usize, most: usize) -> Option<(Vec<u8>, bool)> {
    let (mut decoder, mut payload, mut kept) = (BodyDecoder::new(BodyFraming::Chunked), Vec::new(), Vec::new());
    for piece in data.chunks(piece.max(1)) {
        kept.extend_from_slice(piece);
        loop {
            let decoded = decoder.decode(&kept, most).ok()?;
            assert!(decoded.payload.len() <= most && decoded.payload.len() <= decoded.consumed);
            payload.extend_from_slice(decoded.payload);
            let consumed = decoded.consumed;
            kept.drain(..consumed);
            if consumed == 0 || decoder.is_done() {
                break;
            }
        }
        if decoder.is_done() {
            break;
        }
    }
    Some((payload, decoder.is_done()))
}

/// A chunked body: its payload is the same however it comes. The first two bytes are the size of the pieces, and how much
/// payload is taken at once.
pub fn chunks(data: &[u8]) {
    let [piece, most, data @ ..] = data else { return };
    let whole = body(data, usize::MAX, usize::MAX);
    assert_eq!(body(data, usize::from(*piece), usize::from(*most).max(1)), whole);
}

/// What a proxy in front says: more bytes never change what has been read, and fewer only make it wait.
pub fn proxied(data: &[u8]) {
    use wire::proxied::{MAX_BINARY, read};
    match read(data) {
        Ok(Some((length, client))) => {
            assert!(length <= data.len() && length <= MAX_BINARY);
            assert_eq!(read(&data[..length]), Ok(Some((length, client))));
            assert_eq!(read(&data[..length - 1]), Ok(None));
        }
        Ok(None) => assert!(data.len() < MAX_BINARY),
        Err(_) => assert!(read(&[data, b"\r\n"].concat()).is_err()),
    }
}
