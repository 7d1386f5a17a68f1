// SPDX-License-Identifier: AGPL-3.0-or-later
//! The HTTP request and response around a WebSocket's beginning.

use wire::http1::{BodyFraming, EncodeError, RequestHead, StatusLine, Version, write_response_head};
use wire::websocket::accept_value;
use zhttp::{Headers, Packet};

use super::extension::{self, Malformed};

/// The longest key that is answered, in bytes. A proper one has 24.
const MAX_KEY: usize = 220;

/// Headers of the handshake that are between the client and us.
const OURS: [&[u8]; 4] = [b"Upgrade", b"Connection", b"Sec-WebSocket-Accept", b"Sec-WebSocket-Extensions"];

/// What the client is told when its handshake is none.
pub const INVALID: &str =
    "Request contained an Upgrade header with value \"websocket\" but the request was not a valid WebSocket request.\n";

/// The key of a request that asks for a WebSocket; `None` if it is not as it must be.
pub fn key<'a>(head: &RequestHead<'a>) -> Option<&'a [u8]> {
    let proper = head.method == "GET"
        && head.version == Version::Http11
        && matches!(head.framing, BodyFraming::None | BodyFraming::Length(0))
        && head.header("Sec-WebSocket-Version").is_some_and(|version| version.trim_ascii() == b"13");
    let key = head.header("Sec-WebSocket-Key").map(<[u8]>::trim_ascii).filter(|_| proper)?;
    (!key.is_empty() && key.len() <= MAX_KEY).then_some(key)
}

/// Whether the client offers to compress messages.
///
/// # Errors
/// What it offers can not be read.
pub fn offers_deflate(head: &RequestHead<'_>) -> Result<bool, Malformed> {
    let values = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("Sec-WebSocket-Extensions"));
    extension::offers_deflate(values.map(|field| field.value))
}

/// The head that accepts the WebSocket with this key.
///
/// # Errors
/// A header of the packet would not be one.
pub fn accepting(packet: &Packet<'_>, key: &[u8], extension: Option<&str>) -> Result<Vec<u8>, EncodeError> {
    let accept = accept_value(key);
    let mut ours: Vec<(&[u8], &[u8])> =
        vec![(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", accept.as_bytes())];
    ours.extend(extension.map(|value| (&b"Sec-WebSocket-Extensions"[..], value.as_bytes())));
    let status = StatusLine { version: Version::Http11, code: 101, reason: packet.reason.unwrap_or_default() };
    let mut head = Vec::with_capacity(256);
    write_response_head(&mut head, status, theirs(packet.headers).chain(ours), BodyFraming::None, true)?;
    Ok(head)
}

/// The headers of a server's answer that are for the client.
pub fn theirs<'a>(headers: Headers<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    headers.iter().filter(|(name, _)| !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)))
}

#[cfg(test)]
mod tests {
    use wire::http1::{Limits, parse_request};

    use super::*;

    fn key_of(line: &str, headers: &[&str]) -> Option<Vec<u8>> {
        let request = format!("{line}\r\nHost: h\r\nUpgrade: websocket\r\n{}\r\n", headers.concat());
        let (head, _) = parse_request(request.as_bytes(), &Limits::default()).unwrap().unwrap();
        assert!(head.websocket);
        key(&head).map(<[u8]>::to_vec)
    }

    #[test]
    fn a_handshake_has_a_method_a_version_and_a_key() {
        let (version, key) = ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Key: abc\r\n");
        assert_eq!(key_of("GET / HTTP/1.1", &[version, key]), Some(b"abc".to_vec()));
        assert_eq!(key_of("GET / HTTP/1.1", &[version, key, "Content-Length: 0\r\n"]), Some(b"abc".to_vec()));
        assert_eq!(key_of("POST / HTTP/1.1", &[version, key]), None);
        assert_eq!(key_of("GET / HTTP/1.0", &[version, key]), None);
        assert_eq!(key_of("GET / HTTP/1.1", &[version]), None);
        assert_eq!(key_of("GET / HTTP/1.1", &[key]), None);
        assert_eq!(key_of("GET / HTTP/1.1", &["Sec-WebSocket-Version: 8\r\n", key]), None);
        assert_eq!(key_of("GET / HTTP/1.1", &[version, key, "Content-Length: 3\r\n"]), None);
        assert_eq!(key_of("GET / HTTP/1.1", &[version, "Sec-WebSocket-Key: \r\n"]), None);
        let long = format!("Sec-WebSocket-Key: {}\r\n", "x".repeat(MAX_KEY + 1));
        assert_eq!(key_of("GET / HTTP/1.1", &[version, &long]), None);
    }

    #[test]
    fn headers_of_the_connection_are_ours_to_set() {
        let headers: &[(&[u8], &[u8])] = &[
            (b"X-A", b"1"),
            (b"connection", b"x"),
            (b"Sec-WebSocket-Accept", b"forged"),
            (b"Sec-WebSocket-Protocol", b"v2"),
        ];
        let packet = Packet { headers: Headers::Pairs(headers), reason: Some(b"Switching"), ..Packet::default() };
        let head = accepting(&packet, b"dGhlIHNhbXBsZSBub25jZQ==", None).unwrap();
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "HTTP/1.1 101 Switching\r\nX-A: 1\r\nSec-WebSocket-Protocol: v2\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }
}
