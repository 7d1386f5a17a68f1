// SPDX-License-Identifier: AGPL-3.0-or-later
//! What comes from the backend: interim responses, the head of its response, and the payload of the body.

use super::coding::CodingError;
use wire::http1::{
    BodyDecoder, BodyError, BodyFraming, HeadError, Limits, ResponseHead, has_blank_line, parse_response,
};

/// The backend does not speak HTTP/1.1, or stops in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The head.
    #[error("the response is not valid: {0}")]
    Head(#[from] HeadError),
    /// The body.
    #[error("the body of the response is not valid: {0}")]
    Body(#[from] BodyError),
    /// The coding of the body.
    #[error("the body of the response can not be unpacked: {0}")]
    Coding(#[from] CodingError),
    /// A change of protocol that nobody asked for.
    #[error("the backend changed the protocol without being asked")]
    Switched,
    /// Nothing, or half a head, and then the end of the connection.
    #[error("the backend closed the connection before its response")]
    NoResponse,
    /// Interim responses without end.
    #[error("the backend sends interim responses without end")]
    Interim,
}

/// Interim responses before the real one.
const MAX_INTERIM: u8 = 32;

/// What a call found in the bytes it was given.
#[derive(Debug)]
pub struct Found<'a> {
    /// How many bytes are dealt with; the others must be given again, followed by what comes next.
    pub consumed: usize,
    /// Interim responses.
    pub interim: Vec<ResponseHead<'a>>,
    /// The head, once.
    pub head: Option<ResponseHead<'a>>,
    /// Payload.
    pub payload: &'a [u8],
}

/// One response being read.
#[derive(Debug)]
pub struct Download {
    request_is_head: bool,
    limits: Limits,
    state: State,
    /// Bytes of the head that have been looked through for its end.
    searched: usize,
    interim: u8,
    persistent: bool,
    /// A change to WebSocket was asked for.
    may_switch: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Body(BodyDecoder),
}

impl Download {
    /// The response to a request. `request_is_head`: it is to `HEAD`.
    pub fn new(request_is_head: bool, limits: Limits) -> Self {
        Download {
            request_is_head,
            limits,
            state: State::Head,
            searched: 0,
            interim: 0,
            persistent: false,
            may_switch: false,
        }
    }

    /// The answer to a request for a WebSocket, which may change the protocol.
    pub fn of_handshake(limits: Limits) -> Self {
        Download { may_switch: true, ..Download::new(false, limits) }
    }

    /// Looks through what was read: gives the head when it is complete, and at most `max` bytes of payload.
    ///
    /// Payload that lies in several chunks is joined in `joined`. What is not consumed is the beginning of something, or
    /// payload beyond `max`.
    pub fn read<'a>(
        &mut self,
        input: &'a [u8],
        max: usize,
        joined: &'a mut Vec<u8>,
    ) -> Result<Found<'a>, DownloadError> {
        let mut consumed = 0;
        let mut interim = Vec::new();
        let mut found = None;
        let decoder = loop {
            match &mut self.state {
                State::Body(decoder) => break decoder,
                State::Head => {
                    let unread = &input[consumed..];
                    // The first bytes tell nonsense; after that, a head is parsed once more when its end is there, so that
                    // one that comes byte by byte costs no more than another.
                    let searched = std::mem::replace(&mut self.searched, unread.len());
                    let is_news =
                        searched == 0 || has_blank_line(&unread[searched.saturating_sub(2).min(unread.len())..]);
                    if !is_news && unread.len() < self.limits.head_bytes {
                        return Ok(Found { consumed, interim, head: None, payload: &[] });
                    }
                    let method = if self.request_is_head { "HEAD" } else { "" };
                    let Some((head, length)) = parse_response(unread, &self.limits, method)? else {
                        return Ok(Found { consumed, interim, head: None, payload: &[] });
                    };
                    self.searched = 0;
                    consumed += length;
                    if head.interim {
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Err(DownloadError::Interim);
                        }
                        interim.push(head);
                        continue;
                    }
                    if head.code == 101 {
                        if !self.may_switch {
                            return Err(DownloadError::Switched);
                        }
                        // What follows is not HTTP.
                        self.state = State::Body(BodyDecoder::new(BodyFraming::UntilClose));
                        return Ok(Found { consumed, interim, head: Some(head), payload: &[] });
                    }
                    self.persistent = head.persistent;
                    self.state = State::Body(BodyDecoder::new(head.framing));
                    found = Some(head);
                }
            }
        };
        let payload = decode(decoder, input, &mut consumed, max, joined)?;
        Ok(Found { consumed, interim, head: found, payload })
    }

    /// The backend has closed, and all it sent has been read.
    pub fn end_of_input(&mut self) -> Result<(), DownloadError> {
        match &mut self.state {
            State::Head => Err(DownloadError::NoResponse),
            State::Body(decoder) => Ok(decoder.end_of_input()?),
        }
    }

    /// Interim responses that have come.
    pub fn interim(&self) -> u8 {
        self.interim
    }

    /// Whether the head has come.
    pub fn has_head(&self) -> bool {
        matches!(self.state, State::Body(_))
    }

    /// Whether all of the response has come.
    pub fn is_done(&self) -> bool {
        matches!(&self.state, State::Body(decoder) if decoder.is_done())
    }

    /// Whether the backend allows another request on the connection.
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }
}

/// Decodes as much as is allowed. One piece, the usual case, is not copied.
fn decode<'a>(
    decoder: &mut BodyDecoder,
    input: &'a [u8],
    consumed: &mut usize,
    max: usize,
    joined: &'a mut Vec<u8>,
) -> Result<&'a [u8], BodyError> {
    joined.clear();
    let mut first: &[u8] = &[];
    let mut length = 0;
    while !decoder.is_done() {
        let piece = decoder.decode(&input[*consumed..], max - length)?;
        *consumed += piece.consumed;
        length += piece.payload.len();
        if piece.consumed == 0 {
            break;
        }
        if first.is_empty() {
            first = piece.payload;
        } else if !piece.payload.is_empty() {
            if joined.is_empty() {
                joined.extend_from_slice(first);
            }
            joined.extend_from_slice(piece.payload);
        }
    }
    Ok(if joined.is_empty() { first } else { joined })
}

/// The length of the body if the head tells it.
pub fn announced_length(head: &ResponseHead<'_>) -> Option<u64> {
    match head.framing {
        BodyFraming::None => Some(0),
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked | BodyFraming::UntilClose => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download() -> Download {
        Download::new(false, Limits::default())
    }

    #[test]
    fn a_small_response_is_one_find() {
        for input in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        ] {
            let (mut download, mut joined) = (download(), Vec::new());
            let found = download.read(input, 100, &mut joined).unwrap();
            assert_eq!((found.consumed, found.payload), (input.len(), &b"hello"[..]));
            assert_eq!(found.head.unwrap().code, 200);
            assert!(download.is_done() && download.is_persistent());
        }
    }

    #[test]
    fn without_credits_the_head_comes_alone() {
        let (mut download, mut joined) = (download(), Vec::new());
        let found = download.read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, &mut joined).unwrap();
        assert!(found.head.is_some() && found.payload.is_empty());
        let found = download.read(b"hello", 3, &mut joined).unwrap();
        assert_eq!((found.consumed, found.payload), (3, &b"hel"[..]));
        assert!(!download.is_done());
    }

    #[test]
    fn interim_responses_come_before_the_head_but_not_without_end() {
        let (mut download, mut joined) = (download(), Vec::new());
        let input = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let found = download.read(input, 0, &mut joined).unwrap();
        let codes: Vec<u16> = found.interim.iter().map(|head| head.code).collect();
        assert_eq!((codes, found.head.unwrap().code, found.consumed), (vec![100, 103], 204, input.len()));
        assert!(download.is_done());

        let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        let error = Download::new(false, Limits::default()).read(&endless, 0, &mut joined).unwrap_err();
        assert_eq!(error, DownloadError::Interim);
    }

    #[test]
    fn the_answer_to_head_ends_with_its_head() {
        let (mut download, mut joined) = (Download::new(true, Limits::default()), Vec::new());
        download.read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 100, &mut joined).unwrap();
        assert!(download.is_done() && download.is_persistent());
    }

    #[test]
    fn the_end_of_the_connection_completes_only_what_has_no_length() {
        let mut joined = Vec::new();
        assert_eq!(download().end_of_input(), Err(DownloadError::NoResponse));
        let mut cut = download();
        cut.read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", 100, &mut joined).unwrap();
        assert_eq!(cut.end_of_input(), Err(DownloadError::Body(BodyError::Truncated)));
        let mut open = download();
        open.read(b"HTTP/1.1 200 OK\r\n\r\nhe", 100, &mut joined).unwrap();
        assert!(!open.is_done());
        assert_eq!(open.end_of_input(), Ok(()));
        assert!(open.is_done() && !open.is_persistent());
    }

    #[test]
    fn an_unasked_change_of_protocol_is_an_error() {
        let error = download().read(b"HTTP/1.1 101 Sure\r\n\r\n", 0, &mut Vec::new()).unwrap_err();
        assert_eq!(error, DownloadError::Switched);
    }

    /// Reads `input` in pieces, with `max` bytes of credits for each; gives code, payload and whether it is done.
    fn read_in_pieces(
        input: &[u8],
        pieces: &[usize],
        max: usize,
    ) -> Result<(Option<u16>, Vec<u8>, bool), DownloadError> {
        let (mut download, mut joined) = (download(), Vec::new());
        let (mut kept, mut rest) = (Vec::new(), input);
        let (mut code, mut payload) = (None, Vec::new());
        let mut pieces = pieces.iter().copied();
        while !rest.is_empty() || !kept.is_empty() {
            let before = rest.len();
            let (piece, after) = rest.split_at(pieces.next().unwrap_or(usize::MAX).min(rest.len()));
            rest = after;
            kept.extend_from_slice(piece);
            let found = download.read(&kept, max, &mut joined)?;
            code = code.or(found.head.map(|head| head.code));
            payload.extend_from_slice(found.payload);
            let consumed = found.consumed;
            kept.drain(..consumed);
            if download.is_done() || (consumed == 0 && before == 0) {
                break;
            }
        }
        Ok((code, payload, download.is_done()))
    }

    proptest::proptest! {
        #[test]
        fn pieces_and_credits_change_nothing_in_what_is_found(
            pieces in proptest::collection::vec(1usize..40, 0..40), max in 1usize..30, cut in 0usize..120, which in 0usize..3,
        ) {
            let input: &[u8] = [
                &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nA: b\r\n\r\n"[..],
                b"HTTP/1.1 404 No\r\nContent-Length: 11\r\n\r\nhello worldHTTP/1.1 200 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\nhello world, and more until the end",
            ][which];
            let input = &input[..cut.min(input.len())];
            let whole = read_in_pieces(input, &[], usize::MAX);
            proptest::prop_assert_eq!(read_in_pieces(input, &pieces, max), whole);
        }
    }
}
