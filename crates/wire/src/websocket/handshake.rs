// SPDX-License-Identifier: AGPL-3.0-or-later
//! The two header values that prove that both sides speak WebSocket (RFC 6455, section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Whether a value of `Sec-WebSocket-Key` is what it must be: 16 bytes in base64.
pub fn is_key(value: &[u8]) -> bool {
    STANDARD.decode(value).is_ok_and(|bytes| bytes.len() == 16)
}

/// The `Sec-WebSocket-Accept` that answers a key.
pub fn accept_value(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert!(is_key(key));
        assert_eq!(accept_value(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_16_bytes() {
        for value in [&b""[..], b"x", b"dGhlIHNhbXBsZSBub25jZQ", b"AAAA", b"dGhlIHNhbXBsZSBub25jZSEh"] {
            assert!(!is_key(value), "{}", value.escape_ascii());
        }
    }
}
