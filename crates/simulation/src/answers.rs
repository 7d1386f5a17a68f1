// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the backend answers, by path:
//!
//! - `/plain/N`: N bytes. `/upload/N`: the length of the body, which should be N. `/both/N`: N bytes at once, while a
//!   body of N bytes comes.
//! - `/stream/a,b`: held as a stream on the channels a and b. `/poll/a`: held for one message.
//! - `/reliable/N`: the items of the channel r after N, from the backend's own store; held if there are none.
//! - `/socket/ID/a,b`: events of a WebSocket ([`conversations`](crate::conversations)).

use crate::conversations::{Asked, Conversations};

/// Headers, and a body.
pub struct Answer {
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

/// The body of a plain response.
pub fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|i| b'a' + (i % 26) as u8).collect()
}

/// The answer to a request.
/// - `last`: what the proxy says the client has of the channel r.
/// - `asked`: what it says of a WebSocket.
/// - `stored`: items of the channel r.
pub fn answer(
    path: &str,
    last: Option<u64>,
    asked: &Asked,
    body: &[u8],
    stored: u64,
    conversations: &mut Conversations,
) -> Answer {
    let (kind, rest) = path.split_once('/').unwrap_or((path, ""));
    let header = |name: &str, value: &str| (name.to_string(), value.to_string());
    let (headers, body) = match kind {
        "plain" | "both" => (Vec::new(), plain(rest.parse().expect("a path has a length"))),
        "upload" => (Vec::new(), body.len().to_string().into_bytes()),
        "socket" => conversations.answer(rest.split_once('/').map_or("", |(_, channels)| channels), asked, body),
        "stream" => {
            let channels = rest.split(',').map(|channel| header("Grip-Channel", channel));
            let mut headers = vec![header("Grip-Hold", "stream"), header("Grip-Keep-Alive", "~;timeout=20")];
            headers.extend(channels);
            (headers, b"hello;".to_vec())
        }
        "poll" => {
            let headers =
                vec![header("Grip-Hold", "response"), header("Grip-Channel", rest), header("Grip-Timeout", "30")];
            (headers, b"timeout;".to_vec())
        }
        "reliable" => {
            let last = last.unwrap_or_else(|| rest.parse().expect("a path has a number"));
            let channel = format!("r; prev-id={last}");
            let headers =
                vec![header("Grip-Hold", "response"), header("Grip-Channel", &channel), header("Grip-Timeout", "30")];
            match last < stored {
                true => (Vec::new(), format!("{},{stored};", last + 1).into_bytes()),
                false => (headers, b"timeout;".to_vec()),
            }
        }
        _ => panic!("nobody asks for {path}"),
    };
    Answer { headers, body }
}
