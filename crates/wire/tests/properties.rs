// SPDX-License-Identifier: AGPL-3.0-or-later
//! What holds for any input: nothing panics, the network's splitting changes nothing, what is written is read back.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use wire::http1::*;

/// Decodes `input`, read in pieces of the given sizes (the last one repeats), taking at most `max` at a time.
fn decode(
    framing: BodyFraming,
    input: &[u8],
    sizes: &[usize],
    max: usize,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut decoder = BodyDecoder::new(framing);
    let (mut payload, mut consumed, mut end) = (Vec::new(), 0, 0);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(1));
    while end < input.len() && !decoder.is_done() {
        end = (end + sizes.next().unwrap_or(1).max(1)).min(input.len());
        loop {
            let decoded = decoder.decode(&input[consumed..end], max)?;
            assert!(decoded.payload.len() <= max && decoded.payload.len() <= decoded.consumed);
            payload.extend_from_slice(decoded.payload);
            consumed += decoded.consumed;
            if decoded.consumed == 0 {
                break;
            }
        }
    }
    Ok((payload, consumed, decoder.is_done()))
}

fn framings() -> impl Strategy<Value = BodyFraming> {
    prop_oneof![Just(BodyFraming::Chunked), Just(BodyFraming::UntilClose), (0u64..200).prop_map(BodyFraming::Length)]
}

/// Bytes in which the syntax of chunks is not rare.
fn chunky() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"3\r\nabc\r\n".to_vec()),
        Just(b"a;x=y\r\n0123456789\r\n".to_vec()),
        Just(b"0\r\nTrailer: x\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let value = proptest::collection::vec(prop_oneof![b'!'..=b'~', 0x80..=0xffu8], 0..12);
    proptest::collection::vec(("[A-Za-z0-9!#$%&'*+.^_`|~-]{1,3}", value), 0..20)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes, &Limits::default());
        let _ = parse_response(&bytes, &Limits::default(), "GET");
    }

    #[test]
    fn a_damaged_head_never_panics_a_parser(at in 0usize..80, byte in any::<u8>()) {
        let mut request = b"POST http://a/b?c HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nConnection: close\r\n\r\n".to_vec();
        let last = request.len() - 1;
        request[at.min(last)] = byte;
        let _ = parse_request(&request, &Limits::default());
        let mut response = b"HTTP/1.1 200 Some reason\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nAbc: d\r\n\r\n".to_vec();
        let last = response.len() - 1;
        response[at.min(last)] = byte;
        let _ = parse_response(&response, &Limits::default(), "GET");
    }

    #[test]
    fn the_splitting_of_reads_changes_nothing(
        framing in framings(), input in chunky(), sizes in proptest::collection::vec(1usize..20, 0..10), max in 1usize..50
    ) {
        let whole = decode(framing, &input, &[input.len()], usize::MAX);
        prop_assert_eq!(decode(framing, &input, &sizes, max), whole.clone());
        prop_assert_eq!(decode(framing, &input, &[], usize::MAX), whole);
    }

    #[test]
    fn chunks_that_were_written_are_read_back(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
        sizes in proptest::collection::vec(1usize..100, 0..20)
    ) {
        let mut encoded = Vec::new();
        for chunk in &chunks {
            encoded.extend_from_slice(chunk_prefix(NonZeroUsize::new(chunk.len()).unwrap()).as_slice());
            encoded.extend_from_slice(chunk);
            encoded.extend_from_slice(CHUNK_SUFFIX);
        }
        encoded.extend_from_slice(LAST_CHUNK);
        let length = encoded.len();
        encoded.extend_from_slice(b"GET / HTTP/1.1\r\n");
        prop_assert_eq!(decode(BodyFraming::Chunked, &encoded, &sizes, usize::MAX), Ok((chunks.concat(), length, true)));
    }

    #[test]
    fn a_request_that_was_written_is_read_back(fields in fields(), length in 0..=i64::MAX as u64) {
        let mut out = Vec::new();
        let pairs = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        write_request_head(&mut out, b"PUT", b"/a?b", b"h:1", pairs, BodyFraming::Length(length)).unwrap();
        let (head, consumed) = parse_request(&out, &Limits::default()).unwrap().unwrap();
        prop_assert_eq!(consumed, out.len());
        prop_assert_eq!((head.method, head.target, head.authority), ("PUT", "/a?b", Some("h:1")));
        prop_assert_eq!((head.framing, head.persistent), (BodyFraming::Length(length), true));
        let read: Vec<_> = head.headers[1..head.headers.len() - 1].iter()
            .map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
        prop_assert_eq!(read, fields);
    }

    #[test]
    fn a_response_that_was_written_is_read_back(fields in fields(), code in 200u16..999, persistent in any::<bool>()) {
        let mut out = Vec::new();
        let pairs = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        let status = StatusLine { version: Version::Http11, code, reason: b"Some reason" };
        write_response_head(&mut out, status, pairs, BodyFraming::Chunked, persistent).unwrap();
        let (head, consumed) = parse_response(&out, &Limits::default(), "GET").unwrap().unwrap();
        prop_assert_eq!(consumed, out.len());
        prop_assert_eq!((head.code, head.reason, head.persistent), (code, &b"Some reason"[..], persistent));
        for (read, (name, value)) in head.headers.iter().zip(&fields) {
            prop_assert_eq!((read.name, read.value), (name.as_str(), &value[..]));
        }
    }
}
