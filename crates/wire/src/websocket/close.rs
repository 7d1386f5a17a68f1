// SPDX-License-Identifier: AGPL-3.0-or-later
//! The payload of close frames (RFC 6455, sections 5.5.1 and 7.4).

use super::header::{Header, Opcode, mask};
use super::{MAX_CONTROL, Violation};

/// Whether a status may stand in a close frame: those that are registered and not for local use, and those that
/// applications may choose.
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads the payload of a close frame.
pub(super) fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_sendable(code) {
                return Err(Violation::Close);
            }
            Ok(Some((code, std::str::from_utf8(reason).map_err(|_| Violation::Utf8)?)))
        }
    }
}

/// Writes a close frame, with a mask if we are the client. Without a status it is empty. A reason that is too long for a
/// control frame is cut off at a character.
pub fn write_close(status: Option<(u16, &str)>, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(MAX_CONTROL);
    if let Some((code, reason)) = status {
        payload.extend_from_slice(&code.to_be_bytes());
        let fits = |end: &usize| reason.is_char_boundary(*end);
        let end = (0..=reason.len().min(MAX_CONTROL - 2)).rev().find(fits).unwrap_or(0);
        payload.extend_from_slice(&reason.as_bytes()[..end]);
    }
    out.extend_from_slice(&Header { opcode: Opcode::Close, fin: true, compressed: false, key }.encode(payload.len()));
    if let Some(key) = key {
        mask(&mut payload, key, 0);
    }
    out.extend_from_slice(&payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_for_local_use_and_those_without_owner_are_not_sent() {
        for code in [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
            assert!(is_sendable(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_sendable(code), "{code}");
        }
    }

    #[test]
    fn a_long_reason_ends_at_a_character() {
        let mut out = Vec::new();
        write_close(Some((1000, &"é".repeat(100))), None, &mut out);
        assert_eq!(&out[..4], [0x88, 124, 0x03, 0xe8]);
        assert_eq!(parse(&out[2..]), Ok(Some((1000, "é".repeat(61).as_str()))));
    }

    #[test]
    fn a_close_without_status_is_empty() {
        let mut out = Vec::new();
        write_close(None, Some([1, 2, 3, 4]), &mut out);
        assert_eq!(out, [0x88, 0x80, 1, 2, 3, 4]);
    }
}
