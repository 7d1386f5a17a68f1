// SPDX-License-Identifier: AGPL-3.0-or-later
//! The built-in test backend, so that a new user can hold a connection without writing one (proxy, test target).

/// A response of the test backend.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub code: u16,
    /// Status text.
    pub reason: &'static str,
    /// Headers.
    pub headers: Vec<(&'static [u8], Vec<u8>)>,
    /// Content.
    pub body: &'static [u8],
}

/// Answers a request. `path` is what follows the route's `path_beg`; `query` begins with the question mark or is empty.
/// `too_large`: the request's body is larger than may be kept.
pub fn answer(path: &[u8], query: &[u8], too_large: bool) -> Answer {
    if too_large {
        return plain(400, "Bad Request", b"request too large\n");
    }
    match path.strip_suffix(b"/").unwrap_or(path) {
        b"" => plain(200, "OK", b"Hello from the Pushpin test handler!\n"),
        b"/response" => hold("response", query, b"nothing for now\n"),
        b"/stream" => hold("stream", query, b"[stream opened]\n"),
        _ => plain(404, "Not Found", b"no such test resource\n"),
    }
}

fn plain(code: u16, reason: &'static str, body: &'static [u8]) -> Answer {
    Answer { code, reason, headers: vec![(b"Content-Type", b"text/plain".to_vec())], body }
}

fn hold(mode: &str, query: &[u8], body: &'static [u8]) -> Answer {
    let mut answer = plain(200, "OK", body);
    answer.headers.push((b"Grip-Hold", mode.as_bytes().to_vec()));
    answer.headers.push((b"Grip-Channel", channels(query).join(&b", "[..])));
    answer
}

/// The channels that a query asks for, or `test`.
pub fn channels(query: &[u8]) -> Vec<Vec<u8>> {
    let mut channels: Vec<Vec<u8>> = query
        .strip_prefix(b"?")
        .unwrap_or_default()
        .split(|&b| b == b'&')
        .filter_map(|item| item.strip_prefix(b"channel="))
        .map(percent_decoded)
        .collect();
    if channels.is_empty() {
        channels.push(b"test".to_vec());
    }
    channels
}

/// Decodes `%xx` and `+`; what is no escape stays.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| (*b as char).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(query: &[u8]) -> Vec<u8> {
        answer(b"/stream", query, false).headers.into_iter().find(|(name, _)| *name == b"Grip-Channel").unwrap().1
    }

    #[test]
    fn the_root_says_hello_with_and_without_slash() {
        assert_eq!(answer(b"/", b"", false).body, b"Hello from the Pushpin test handler!\n");
        assert_eq!(answer(b"", b"", false).code, 200);
    }

    #[test]
    fn holds_are_on_channel_test_unless_the_query_names_others() {
        assert_eq!(channels(b""), b"test");
        assert_eq!(channels(b"?a=b&channel=x%20y&channel=z"), b"x y, z");
        assert_eq!(channels(b"?channel=%zz"), b"%zz");
    }

    #[test]
    fn other_paths_do_not_exist() {
        assert_eq!(answer(b"/other", b"", false).code, 404);
        assert_eq!(answer(b"/", b"", true).code, 400);
    }
}
