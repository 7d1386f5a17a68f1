// SPDX-License-Identifier: AGPL-3.0-or-later
//! Frames of WebSockets, each a whole message of less than 64 KB.

use wire::websocket::{Header, Opcode, mask};

/// First bytes of the frames that come.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;

/// Takes a frame, if all of it is there: its first byte and its content.
pub fn take(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*input.first()?, *input.get(1)?);
    let (start, length) = match second & 0x7f {
        127 => return Some((first, Vec::new())),
        126 => (4, usize::from(*input.get(2)?) << 8 | usize::from(*input.get(3)?)),
        length => (2, usize::from(length)),
    };
    let start = if second & 0x80 == 0 { start } else { start + 4 };
    let mut content = input.get(start..start + length)?.to_vec();
    if second & 0x80 != 0 {
        mask(&mut content, input[start - 4..start].try_into().ok()?, 0);
    }
    input.drain(..start + length);
    Some((first, content))
}

/// Writes a message of a backend.
pub fn text(content: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&Header::whole(Opcode::Text).encode(content.len()));
    out.extend(content.bytes());
}

/// Writes a message of a client.
pub fn masked(content: &str, out: &mut Vec<u8>) {
    let key = [1, 2, 3, 4];
    out.extend_from_slice(&Header { key: Some(key), ..Header::whole(Opcode::Text) }.encode(content.len()));
    let start = out.len();
    out.extend(content.bytes());
    mask(&mut out[start..], key, 0);
}
