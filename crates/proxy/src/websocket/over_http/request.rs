// SPDX-License-Identifier: AGPL-3.0-or-later
//! The headers of a request with WebSocket events.

/// Whether a header of the client's handshake goes with each request: names with which we tell the backend something are
/// ours alone, also as CGI and WSGI programs read them (`Meta_User` is `HTTP_META_USER` to them, like `Meta-User`).
pub fn stays(name: &[u8]) -> bool {
    const OURS: [&[u8]; 9] = [
        b"Upgrade",
        b"Accept",
        b"Connection-Id",
        b"Content-Length",
        b"Content-Type",
        b"Content-Bytes-Replayed",
        b"Content-Bytes-Uncertain",
        b"Grip-Sig",
        b"Sec-WebSocket-Extensions",
    ];
    let meta = name.split_at_checked(5).is_some_and(|(start, _)| alike(b"Meta-", start));
    !meta && !OURS.iter().any(|ours| alike(ours, name))
}

fn alike(ours: &[u8], name: &[u8]) -> bool {
    let same =
        |(ours, byte): (&u8, &u8)| ours.eq_ignore_ascii_case(byte) || (*ours == b'-' && !byte.is_ascii_alphanumeric());
    ours.len() == name.len() && ours.iter().zip(name).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_not_speak_for_the_proxy() {
        for name in ["meta-user", "Meta_User", "META-X", "connection-id", "Connection_Id", "ACCEPT", "Content_Type"] {
            assert!(!stays(name.as_bytes()), "{name}");
        }
        for name in ["Metadata", "Accept-Language", "Cookie", "Sec-WebSocket-Key", "X-Meta-User"] {
            assert!(stays(name.as_bytes()), "{name}");
        }
    }
}
