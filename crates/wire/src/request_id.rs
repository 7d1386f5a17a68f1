// SPDX-License-Identifier: AGPL-3.0-or-later
//! What one request is called in the logs of all that it goes through.
//!
//! A client's own name is taken: the trace id of its `traceparent` (W3C Trace Context, section 3.2), or else its `X-Request-Id`. A
//! frontend can give names to requests that come without.

/// The header of a trace.
const TRACEPARENT: &str = "traceparent";
/// The header of a request that belongs to none.
pub const REQUEST_ID: &str = "X-Request-Id";
/// A longer name is none: it would fill logs.
const MAX: usize = 128;
/// Bytes of a URI in a line of the log.
const LOGGED_URI: usize = 200;

/// A request's name among its headers.
pub fn of<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<&'a str> {
    let mut own = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case(TRACEPARENT.as_bytes()) {
            if let Some(trace) = trace_id(value) {
                return Some(trace);
            }
        } else if name.eq_ignore_ascii_case(REQUEST_ID.as_bytes()) {
            own = own.or_else(|| plain(value));
        }
    }
    own
}

/// The trace id of a `traceparent`. Versions to come may have more behind what this one has.
fn trace_id(value: &[u8]) -> Option<&str> {
    let text = str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && is_set(trace)
        && is_hex(parent, 16)
        && is_set(parent)
        && is_hex(flags, 2);
    is_valid.then_some(trace)
}

/// A value that can stand in a log without hiding anything.
fn plain(value: &[u8]) -> Option<&str> {
    let is_plain = !value.is_empty() && value.len() <= MAX && value.iter().all(u8::is_ascii_graphic);
    str::from_utf8(value).ok().filter(|_| is_plain)
}

/// A URI in a line of the log, as much of it as anybody reads.
pub fn shown(uri: &[u8]) -> std::slice::EscapeAscii<'_> {
    uri[..uri.len().min(LOGGED_URI)].escape_ascii()
}

/// Names for requests that come without.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds {
    seed: u64,
}

impl RequestIds {
    /// With a number that no other process has.
    pub fn new(seed: u64) -> Self {
        RequestIds { seed }
    }

    /// The name of the request with this number: 32 hexadecimal digits.
    pub fn name(self, number: u64) -> String {
        format!("{:016x}{number:016x}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(headers: &[(&str, &str)]) -> Option<String> {
        super::of(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))).map(str::to_owned)
    }

    #[test]
    fn a_trace_comes_before_a_name_of_its_own() {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(of(&[("x-request-id", "a1"), ("Traceparent", &parent)]).as_deref(), Some(TRACE));
        assert_eq!(of(&[("Host", "h"), ("X-Request-ID", "a1"), ("X-Request-Id", "a2")]).as_deref(), Some("a1"));
        assert_eq!(of(&[("Host", "h")]), None);
    }

    #[test]
    fn a_trace_that_is_not_valid_is_none() {
        let span = "00f067aa0ba902b7";
        for valid in [format!("00-{TRACE}-{span}-00"), format!("cc-{TRACE}-{span}-01-what-comes")] {
            assert_eq!(trace_id(valid.as_bytes()), Some(TRACE), "{valid}");
        }
        for invalid in [
            format!("ff-{TRACE}-{span}-01"),
            format!("00-{TRACE}-{span}-01-more"),
            format!("00-{}-{span}-01", TRACE.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{span}"),
            format!("0-{TRACE}-{span}-01"),
            format!("00-{TRACE}1-{span}-01"),
            String::new(),
            "---".to_owned(),
        ] {
            assert_eq!(trace_id(invalid.as_bytes()), None, "{invalid}");
        }
        assert_eq!(trace_id(b"00-\xff"), None);
    }

    #[test]
    fn a_name_that_could_mislead_a_reader_of_the_log_is_none() {
        for (value, expected) in [("", None), ("a b", None), ("a\tb", None), ("é", None), ("{a}", Some("{a}"))] {
            assert_eq!(plain(value.as_bytes()), expected);
        }
        assert_eq!(plain(&[b'a'; MAX + 1]), None);
        assert!(plain(&[b'a'; MAX]).is_some());
    }

    #[test]
    fn names_differ_by_process_and_number() {
        let name = RequestIds::new(0xab).name(0x12);
        assert_eq!(name, "00000000000000ab0000000000000012");
        assert_ne!(RequestIds::new(0xac).name(0x12), name);
    }
}
