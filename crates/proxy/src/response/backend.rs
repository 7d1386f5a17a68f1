// SPDX-License-Identifier: AGPL-3.0-or-later
//! Responses of backends: which of them are instructions for a hold, and what a client gets to see (proxy, response
//! handling and GRIP).

use grip::header::{elements, parameters};
use zhttp::Headers;

/// Bytes of a response that may be collected for the handler.
pub const INSTRUCT_LIMIT: usize = 100_000;

fn starts_with_ignore_case(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Whether it is a header of the GRIP protocol.
pub fn is_grip(name: &[u8]) -> bool {
    starts_with_ignore_case(name, b"Grip-")
}

/// Whether a header of a response belongs to the connection to the backend, and not to the response.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    // The length tells most names apart without looking at them.
    match name.len() {
        10 => name.eq_ignore_ascii_case(b"Connection") || name.eq_ignore_ascii_case(b"Keep-Alive"),
        17 => name.eq_ignore_ascii_case(b"Transfer-Encoding"),
        _ => false,
    }
}

/// What the headers of a response say, found in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// It has instructions for the handler.
    pub instruct: bool,
    /// It has headers that do not concern the client.
    pub hop_by_hop: bool,
}

impl Traits {
    /// Looks at the headers.
    pub fn of(headers: Headers<'_>) -> Self {
        let mut traits = Traits { instruct: false, hop_by_hop: false };
        for (name, value) in headers.iter() {
            traits.hop_by_hop |= is_hop_by_hop(name);
            traits.instruct |= is_grip(name)
                || (name.eq_ignore_ascii_case(b"Content-Type")
                    && value.split(|&b| b == b';').next() == Some(b"application/grip-instruct"));
        }
        traits
    }
}

/// The headers that go on to the client, without those of the connection.
pub fn passed_on<'a>(headers: Headers<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    headers.iter().filter(|(name, _)| !is_hop_by_hop(name)).collect()
}

/// The headers of a body whose coding Zurl has taken off: it asks every backend for one, and leaves its name in the head.
pub fn without_coding<'a>(headers: Headers<'a>) -> Vec<(&'a [u8], &'a [u8])> {
    headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(b"Content-Encoding")).collect()
}

/// Whether a response that is too large to be collected may go to the client at once and be held afterwards: a stream by
/// headers, without a filter that must see all of it.
pub fn may_be_sent_before_hold(headers: Headers<'_>) -> bool {
    let builds_id = headers.values("Grip-Channel").flat_map(elements).any(|channel| {
        let parameters = parameters(channel).unwrap_or_default();
        parameters.iter().any(|p| p.is("filter") && p.value.as_deref() == Some(b"build-id"))
    });
    let stream = match headers.get("Grip-Hold") {
        Some(mode) => mode == b"stream",
        None => headers.values("Grip-Link").flat_map(elements).any(|link| {
            let parameters = parameters(link).unwrap_or_default();
            parameters.iter().any(|p| p.is("rel") && p.value.as_deref() == Some(b"next"))
        }),
    };
    stream && !builds_id
}

/// Status and headers of a response that is sent before its hold: `Grip-Status` applied, no `Grip-*`, no length. `None`
/// if `Grip-Status` can't be understood.
#[allow(clippy::type_complexity)]
pub fn before_hold<'a>(
    code: u16,
    reason: &'a [u8],
    headers: Headers<'a>,
) -> Option<(u16, &'a [u8], Vec<(&'a [u8], &'a [u8])>)> {
    let (code, reason) = match headers.get("Grip-Status") {
        None => (code, reason),
        Some(status) => {
            let text = std::str::from_utf8(status).ok()?.trim();
            let (number, reason) = text.split_once(' ').unwrap_or((text, ""));
            let code: u16 = number.parse().ok().filter(|code| (200..1000).contains(code))?;
            let reason = if reason.trim().is_empty() { grip::default_reason(code) } else { reason.trim() };
            (code, reason.as_bytes())
        }
    };
    let mut headers = passed_on(headers);
    headers.retain(|(name, _)| !is_grip(name) && !name.eq_ignore_ascii_case(b"Content-Length"));
    Some((code, reason, headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

    fn traits(pairs: Pairs<'_>) -> (bool, bool) {
        let traits = Traits::of(Headers::Pairs(pairs));
        (traits.instruct, traits.hop_by_hop)
    }

    #[test]
    fn instructions_are_known_by_a_header_or_by_the_content_type() {
        assert_eq!(traits(&[(b"grip-hold", b"stream")]), (true, false));
        assert_eq!(traits(&[(b"content-type", b"application/grip-instruct")]), (true, false));
        assert_eq!(traits(&[(b"Content-Type", b"application/grip-instruct;x=y")]), (true, false));
        assert_eq!(traits(&[(b"Content-Type", b"Application/grip-instruct")]), (false, false));
        assert_eq!(traits(&[(b"Content-Type", b"text/plain"), (b"keep-alive", b"5")]), (false, true));
    }

    #[test]
    fn headers_of_the_connection_are_not_passed_on() {
        let pairs: Pairs = &[(b"Connection", b"x"), (b"X-A", b"1"), (b"transfer-ENCODING", b"chunked"), (b"Via", b"v")];
        assert_eq!(passed_on(Headers::Pairs(pairs)), [(&b"X-A"[..], &b"1"[..]), (b"Via", b"v")]);
    }

    #[test]
    fn the_coding_of_the_body_stays_because_the_body_is_passed_as_it_is() {
        let pairs: Pairs = &[(b"Content-Encoding", b"gzip"), (b"Connection", b"close")];
        assert_eq!(passed_on(Headers::Pairs(pairs)), [(&b"Content-Encoding"[..], &b"gzip"[..])]);
        assert_eq!(traits(&pairs[..1]), (false, false));
    }

    #[test]
    fn only_a_stream_by_headers_may_be_sent_before_it_is_held() {
        let may = |pairs: Pairs| may_be_sent_before_hold(Headers::Pairs(pairs));
        assert!(may(&[(b"Grip-Hold", b"stream"), (b"Grip-Channel", b"a, b; filter=skip-self")]));
        assert!(!may(&[(b"Grip-Hold", b"stream"), (b"Grip-Channel", b"a, b; filter=build-id")]));
        assert!(!may(&[(b"Grip-Hold", b"response")]));
        assert!(may(&[(b"Grip-Link", b"</next>; rel=next")]));
        assert!(!may(&[(b"Grip-Link", b"</gone>; rel=gone")]));
        assert!(!may(&[(b"Content-Type", b"application/grip-instruct")]));
    }

    #[test]
    fn a_response_before_its_hold_has_its_final_status_and_no_length() {
        let pairs: Pairs =
            &[(b"Content-Length", b"5"), (b"Grip-Status", b"202"), (b"Grip-Hold", b"stream"), (b"A", b"b")];
        let (code, reason, headers) = before_hold(200, b"OK", Headers::Pairs(pairs)).unwrap();
        assert_eq!((code, reason), (202, &b"Accepted"[..]));
        assert_eq!(headers, [(&b"A"[..], &b"b"[..])]);
        for bad in [&b"abc"[..], b"101 Switching", b"199", b"1000"] {
            assert_eq!(before_hold(200, b"OK", Headers::Pairs(&[(b"Grip-Status", bad)])), None);
        }
    }
}
