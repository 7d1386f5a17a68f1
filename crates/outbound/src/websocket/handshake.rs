// SPDX-License-Identifier: AGPL-3.0-or-later
//! The request that asks a backend for a WebSocket, and its answer.

use wire::http1::{BodyFraming, EncodeError, ResponseHead, list_contains, write_request_head};
use wire::websocket::accept_value;
use zhttp::Packet;

/// Headers of the requester's handshake that are between us and the backend.
const OURS: [&[u8]; 3] = [b"Upgrade", b"Sec-WebSocket-Version", b"Sec-WebSocket-Key"];

/// Why an answer with status 101 grants no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It changes to another protocol.
    #[error("the backend changed the protocol to another one than websocket")]
    Protocol,
    /// It has not read our key.
    #[error("the backend's Sec-WebSocket-Accept is not the one for our key")]
    Accept,
}

/// Writes the head of the request.
///
/// # Errors
/// A part of it can not be sent.
pub fn write(packet: &Packet<'_>, path: &[u8], host: &[u8], key: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let theirs = packet.headers.iter().filter(|(name, _)| !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)));
    write_request_head(out, b"GET", path, host, theirs, BodyFraming::None)?;
    // Ours come last, before the empty line.
    out.truncate(out.len() - b"\r\n".len());
    out.extend_from_slice(
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
    );
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    Ok(())
}

/// Whether an answer with status 101 grants what was asked for with this key.
///
/// # Errors
/// It does not.
pub fn check(head: &ResponseHead<'_>, key: &str) -> Result<(), HandshakeError> {
    let has = |name: &str, value: &str| {
        head.headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case(name) && list_contains(field.value, value.as_bytes()))
    };
    if !has("Upgrade", "websocket") || !has("Connection", "Upgrade") {
        return Err(HandshakeError::Protocol);
    }
    let accept = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("Sec-WebSocket-Accept"));
    match accept {
        Some(field) if field.value.trim_ascii() == accept_value(key.as_bytes()).as_bytes() => Ok(()),
        _ => Err(HandshakeError::Accept),
    }
}

#[cfg(test)]
mod tests {
    use wire::http1::{Limits, parse_response};
    use zhttp::Headers;

    use super::*;

    #[test]
    fn the_key_is_ours_and_the_rest_is_the_requesters() {
        let headers: &[(&[u8], &[u8])] = &[
            (b"Host", b"x"),
            (b"upgrade", b"websocket"),
            (b"Sec-WebSocket-Key", b"theirs"),
            (b"Sec-WebSocket-Protocol", b"v1"),
        ];
        let packet = Packet { headers: Headers::Pairs(headers), ..Packet::default() };
        let mut out = Vec::new();
        write(&packet, b"/ws", b"h:81", "KEY", &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /ws HTTP/1.1\r\nHost: h:81\r\nSec-WebSocket-Protocol: v1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: KEY\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_must_be_to_our_key_and_for_websocket() {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let check = |headers: &str| {
            let text = format!("HTTP/1.1 101 X\r\n{headers}\r\n");
            let (head, _) = parse_response(text.as_bytes(), &Limits::default(), "GET").unwrap().unwrap();
            super::check(&head, key)
        };
        let upgrade = "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n";
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        assert_eq!(check(&format!("{upgrade}{accept}")), Ok(()));
        assert_eq!(check(upgrade), Err(HandshakeError::Accept));
        assert_eq!(check(&format!("{upgrade}Sec-WebSocket-Accept: x\r\n")), Err(HandshakeError::Accept));
        assert_eq!(check(accept), Err(HandshakeError::Protocol));
        assert_eq!(check(&format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}")), Err(HandshakeError::Protocol));
    }
}
