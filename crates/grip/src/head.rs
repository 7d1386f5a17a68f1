// SPDX-License-Identifier: AGPL-3.0-or-later
//! The head of a response that a publisher or a backend has written, as far as it can be sent.
//!
//! A line end in a header would let its author write a second response into the client's connection, and a code below 200
//! announces that the response is still to come. Such heads are refused where they come in, by all ways alike: what is
//! here can only be made of values that HTTP/1.1 can carry, so that nothing is left to be refused when clients already
//! wait for it (RFC 9110, sections 5.1, 5.5 and 15).

use std::borrow::Cow;
use std::collections::HashSet;

use wire::http1::is_token;

use crate::reason::default_reason;

/// Why a head can not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The code does not end a request.
    #[error("status code {0} is not between 200 and 999")]
    Code(i64),
    /// The text of the status would end its line.
    #[error("the reason has a control character")]
    Reason,
    /// The name of a header is empty, or has a space, a colon or anything else that names do not have.
    #[error("'{0}' is no name of a header")]
    HeaderName(String),
    /// The value of the named header would end its line, or steer a terminal.
    #[error("the value of header '{0}' has a control character")]
    HeaderValue(String),
}

/// The status of a final response, 200 to 999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode(u16);

impl StatusCode {
    /// Success.
    pub const OK: StatusCode = StatusCode(200);
    /// What the backend or publisher has said can not be made into a response.
    pub const BAD_GATEWAY: StatusCode = StatusCode(502);

    /// Takes a number for a status.
    ///
    /// # Errors
    /// The number is below 200 or above 999.
    pub fn new(code: i64) -> Result<Self, Unsendable> {
        match u16::try_from(code) {
            Ok(code @ 200..=999) => Ok(StatusCode(code)),
            _ => Err(Unsendable::Code(code)),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// The text of a status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason<'a>(Cow<'a, [u8]>);

impl<'a> Reason<'a> {
    /// The standard text.
    pub fn of(code: StatusCode) -> Self {
        Reason(Cow::Borrowed(default_reason(code.get()).as_bytes()))
    }

    /// Takes a text, or the standard one of `code` if it is empty.
    ///
    /// # Errors
    /// The text has control characters.
    pub fn new(text: impl Into<Cow<'a, [u8]>>, code: StatusCode) -> Result<Self, Unsendable> {
        match text.into() {
            text if text.is_empty() => Ok(Reason::of(code)),
            text if is_field_text(&text) => Ok(Reason(text)),
            _ => Err(Unsendable::Reason),
        }
    }

    /// The text; never empty.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text with everything in it owned.
    pub fn into_owned(self) -> Reason<'static> {
        Reason(Cow::Owned(self.0.into_owned()))
    }
}

/// Headers in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headers<'a>(Vec<Pair<'a>>);

/// Name and value of a header, as they were written.
pub type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Headers<'a> {
    /// Takes pairs of names and values.
    ///
    /// # Errors
    /// A name is no token, or a value has control characters other than tabs.
    pub fn new(pairs: Vec<Pair<'a>>) -> Result<Self, Unsendable> {
        for (name, value) in &pairs {
            if !is_token(name) {
                return Err(Unsendable::HeaderName(excerpt(name)));
            }
            if !is_field_text(value) {
                return Err(Unsendable::HeaderValue(excerpt(name)));
            }
        }
        Ok(Headers(pairs))
    }

    /// Names and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The headers with everything in them owned.
    pub fn into_owned(self) -> Headers<'static> {
        let owned = |text: Cow<'a, [u8]>| Cow::Owned(text.into_owned());
        Headers(self.0.into_iter().map(|(name, value)| (owned(name), owned(value))).collect())
    }

    /// The headers of a published response to a client that a backend has given headers of its own for: published ones
    /// replace their namesakes. The coding of the backend's body does not count for the published one.
    pub fn over<'s>(&'s self, own: impl IntoIterator<Item = (&'s [u8], &'s [u8])>) -> Vec<(&'s [u8], &'s [u8])> {
        let published = Names::new(self.iter().map(|(name, _)| name));
        let own = own
            .into_iter()
            .filter(|(name, _)| !published.contains(name) && !name.eq_ignore_ascii_case(b"Content-Encoding"));
        own.chain(self.iter()).collect()
    }
}

/// Names of headers, found in any case.
pub(crate) enum Names<I> {
    /// So few that comparing costs less than hashing.
    Few(I),
    /// In lower case.
    Many(HashSet<Vec<u8>>),
}

impl<'a, I: ExactSizeIterator<Item = &'a [u8]> + Clone> Names<I> {
    const FEW: usize = 8;

    pub(crate) fn new(names: I) -> Self {
        match names.len() <= Self::FEW {
            true => Names::Few(names),
            false => Names::Many(names.map(<[u8]>::to_ascii_lowercase).collect()),
        }
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        match self {
            Names::Few(names) => names.clone().any(|known| known.eq_ignore_ascii_case(name)),
            Names::Many(names) => names.contains(&name.to_ascii_lowercase()),
        }
    }
}

/// Whether a header is about the connection or for the proxy, so that whoever writes to the client makes it anew or leaves
/// it out. The coding is not among them: the body is sent as it came.
pub(crate) fn is_for_the_hop(name: &[u8]) -> bool {
    const HOP: [&str; 4] = ["Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length"];
    starts_with_grip(name) || HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}

/// Whether a header is for the proxy.
pub fn starts_with_grip(name: &[u8]) -> bool {
    name.len() >= 5 && name[..5].eq_ignore_ascii_case(b"grip-")
}

/// The beginning of foreign text for a message to people, without what steers a terminal.
pub(crate) fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * LONGEST)]);
    let mut excerpt: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        excerpt.push('…');
    }
    excerpt
}

fn is_field_text(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pairs<'a> = Vec<(&'a str, &'a str)>;

    fn cows<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<Pair<'a>> {
        pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect()
    }

    fn headers<'a>(pairs: &[(&'a str, &'a str)]) -> Headers<'a> {
        Headers::new(cows(pairs)).unwrap()
    }

    fn text<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Pairs<'a> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        pairs.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn only_codes_that_end_a_request_are_codes() {
        for code in [i64::MIN, -1, 0, 5, 99, 100, 101, 199, 1000, 65_736, i64::MAX] {
            assert_eq!(StatusCode::new(code), Err(Unsendable::Code(code)));
        }
        assert_eq!((StatusCode::new(200).unwrap().get(), StatusCode::new(999).unwrap().get()), (200, 999));
    }

    #[test]
    fn a_reason_stays_on_its_line_and_is_never_empty() {
        assert_eq!(Reason::new(&b""[..], StatusCode::OK).unwrap().as_bytes(), b"OK");
        assert_eq!(Reason::new("Schön\t!".as_bytes(), StatusCode::OK).unwrap().as_bytes(), "Schön\t!".as_bytes());
        for bad in ["a\r\nX: y", "a\rb", "\0", "\x7f", "\x1b[31m"] {
            assert_eq!(Reason::new(bad.as_bytes(), StatusCode::OK), Err(Unsendable::Reason), "{bad:?}");
        }
    }

    #[test]
    fn a_header_has_a_name_and_stays_on_its_line() {
        let check =
            |name: &str, value: &str| Headers::new(cows(&[("A", "b"), (name, value)])).map(|headers| headers.len());
        for name in ["", "X Y", "X:", "X: a\r\nSet-Cookie", "Ä", "X\0", "(x)"] {
            assert!(matches!(check(name, "v"), Err(Unsendable::HeaderName(_))), "{name:?}");
        }
        for value in ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "\x01", "\x1b[31m", "\x7f"] {
            assert_eq!(check("X", value), Err(Unsendable::HeaderValue("X".into())), "{value:?}");
        }
        assert_eq!(check("X-1_!", ""), Ok(2));
        assert_eq!(check("X", " ä\t"), Ok(2));
    }

    #[test]
    fn published_headers_replace_their_namesakes() {
        let own = headers(&[("A", "1"), ("b", "2"), ("B", "3"), ("Content-Encoding", "gzip"), ("C", "4")]);
        let published = headers(&[("B", "5"), ("D", "6"), ("B", "7")]);
        assert_eq!(text(published.over(own.iter())), [("A", "1"), ("C", "4"), ("B", "5"), ("D", "6"), ("B", "7")]);
        assert_eq!(text(Headers::default().over(own.iter())), [("A", "1"), ("b", "2"), ("B", "3"), ("C", "4")]);
        let coded = headers(&[("content-encoding", "br")]);
        assert_eq!(text(coded.over(own.iter().take(1))), [("A", "1"), ("content-encoding", "br")]);
    }

    #[test]
    fn an_excerpt_is_short_and_plain() {
        assert_eq!(excerpt(b"X\r\n\x1b"), "X\\r\\n\\u{1b}");
        assert!(excerpt("ä\u{202e}".repeat(100_000).as_bytes()).len() < 600);
    }

    proptest! {
        #[test]
        fn many_names_are_found_as_few_are(
            names in prop::collection::vec("[a-cA-C]{1,2}", 0..20),
            name in "[a-cA-C]{1,2}",
        ) {
            let known = Names::new(names.iter().map(String::as_bytes));
            let expected = names.iter().any(|known| known.eq_ignore_ascii_case(&name));
            prop_assert_eq!(known.contains(name.as_bytes()), expected);
        }

        #[test]
        fn no_head_has_more_lines_than_headers(
            pairs in prop::collection::vec(("[a-z: \r\n\u{0}]{0,3}", "[a-z \r\n\u{0}]{0,3}"), 0..3),
            reason in ".{0,6}",
            code in any::<i64>(),
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let headers = Headers::new(cows(&pairs)).unwrap_or_default();
            let mut head = Vec::new();
            for (name, value) in headers.iter() {
                head.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
                prop_assert!(!name.is_empty() && !name.contains(&b':'));
            }
            prop_assert_eq!(head.iter().filter(|b| matches!(b, b'\r' | b'\n' | 0)).count(), 2 * headers.len());
            if let Ok(code) = StatusCode::new(code) {
                prop_assert!((200..1000).contains(&code.get()));
                let line = Reason::new(reason.as_bytes(), code).map(|r| r.as_bytes().to_vec()).unwrap_or_default();
                prop_assert!(!line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
        }
    }
}
