// SPDX-License-Identifier: AGPL-3.0-or-later
//! The headers with which scripts of other sites may use a response (auto cross-origin).

use std::borrow::Cow;

use crate::header::elements;

/// The value of a header.
type Value<'a> = Cow<'a, [u8]>;

/// What is allowed when the request does not say what it wants.
const METHODS: &[u8] = b"OPTIONS, HEAD, GET, POST, PUT, DELETE";

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origin: Option<Box<[u8]>>,
    method: Option<Box<[u8]>>,
    headers: Option<Box<[u8]>>,
}

impl Cors {
    /// Reads the headers of a request. One without a value asks for nothing.
    pub fn of<'a>(request: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut cors = Cors::default();
        let mut headers: Vec<&[u8]> = Vec::new();
        for (name, value) in request.filter(|(_, value)| !value.trim_ascii().is_empty()) {
            if name.eq_ignore_ascii_case(b"Origin") {
                cors.origin.get_or_insert_with(|| value.into());
            } else if name.eq_ignore_ascii_case(b"Access-Control-Request-Method") {
                cors.method.get_or_insert_with(|| value.into());
            } else if name.eq_ignore_ascii_case(b"Access-Control-Request-Headers") {
                headers.extend(elements(value).filter(|element| !element.is_empty()));
            }
        }
        cors.headers = (!headers.is_empty()).then(|| headers.join(&b", "[..]).into());
        cors
    }

    /// The headers that a response with `headers` is to have as well. What the backend has set stays.
    pub fn missing<'a>(
        &'a self,
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Vec<(&'static [u8], Value<'a>)> {
        let mut names: Vec<&[u8]> = Vec::new();
        for (name, _) in headers {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name);
            }
        }
        let exposed: Vec<&[u8]> = names.iter().copied().filter(|name| is_to_be_exposed(name)).collect();
        let wanted: [(&'static [u8], Option<Value<'a>>); 6] = [
            (b"Access-Control-Allow-Methods", Some(self.method.as_deref().unwrap_or(METHODS).into())),
            (b"Access-Control-Allow-Headers", self.headers.as_deref().map(Into::into)),
            (b"Access-Control-Expose-Headers", (!exposed.is_empty()).then(|| exposed.join(&b", "[..]).into())),
            (b"Access-Control-Allow-Credentials", Some(b"true"[..].into())),
            (b"Access-Control-Allow-Origin", Some(self.origin.as_deref().unwrap_or(b"*").into())),
            (b"Access-Control-Max-Age", Some(b"3600"[..].into())),
        ];
        let is_there = |name: &[u8]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let missing = wanted.into_iter().filter(|(name, _)| !is_there(name));
        missing.filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Headers that browsers show to scripts anyway, and those that are not for them, are not listed.
fn is_to_be_exposed(name: &[u8]) -> bool {
    const SIMPLE: [&[u8]; 7] = [
        b"Cache-Control",
        b"Content-Language",
        b"Content-Length",
        b"Content-Type",
        b"Expires",
        b"Last-Modified",
        b"Pragma",
    ];
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    !begins(b"Access-Control-") && !begins(b"Grip-") && !SIMPLE.iter().any(|simple| simple.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(request: &[(&str, &str)], response: &[(&str, &str)]) -> Vec<String> {
        let bytes = |pairs: &[(&'static str, &'static str)]| -> Vec<(&'static [u8], &'static [u8])> {
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
        };
        let leak = |text: &str| -> &'static str { text.to_string().leak() };
        let own = |pairs: &[(&str, &str)]| -> Vec<(&'static str, &'static str)> {
            pairs.iter().map(|(name, value)| (leak(name), leak(value))).collect()
        };
        let cors = Cors::of(bytes(&own(request)).into_iter());
        let all = cors.missing(bytes(&own(response)).into_iter()).into_iter();
        let line = |(name, value): (&[u8], Cow<'_, [u8]>)| {
            let name = name.strip_prefix(b"Access-Control-").unwrap();
            format!("{}: {}", name.escape_ascii(), value.escape_ascii())
        };
        all.map(line).collect()
    }

    #[test]
    fn everything_is_allowed_to_everybody_if_the_request_asks_for_nothing() {
        let wanted = [
            "Allow-Methods: OPTIONS, HEAD, GET, POST, PUT, DELETE",
            "Allow-Credentials: true",
            "Allow-Origin: *",
            "Max-Age: 3600",
        ];
        assert_eq!(missing(&[], &[("Content-Type", "text/plain")]), wanted);
    }

    #[test]
    fn what_the_request_asks_for_is_allowed() {
        let request = [
            ("origin", "http://a.com"),
            ("Access-Control-Request-Method", "PATCH"),
            ("Access-Control-Request-Headers", "X-A,X-B"),
            ("access-control-request-headers", "X-C"),
        ];
        let got = missing(&request, &[]);
        let wanted = [
            "Allow-Methods: PATCH",
            "Allow-Headers: X-A, X-B, X-C",
            "Allow-Credentials: true",
            "Allow-Origin: http://a.com",
            "Max-Age: 3600",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn what_has_no_value_asks_for_nothing() {
        let request = [
            ("Origin", ""),
            ("Access-Control-Request-Method", " "),
            ("Access-Control-Request-Headers", " , "),
            ("Access-Control-Request-Headers", "X-A,, X-B"),
        ];
        let got = missing(&request, &[]);
        assert_eq!(got[0], "Allow-Methods: OPTIONS, HEAD, GET, POST, PUT, DELETE");
        assert_eq!((&*got[1], &*got[3]), ("Allow-Headers: X-A, X-B", "Allow-Origin: *"));
    }

    #[test]
    fn headers_that_scripts_would_not_see_are_exposed_once() {
        let response = [("X-A", "1"), ("pragma", "x"), ("x-a", "2"), ("Grip-Hold", "stream"), ("ETag", "3")];
        assert_eq!(missing(&[], &response)[1], "Expose-Headers: X-A, ETag");
    }

    #[test]
    fn what_the_backend_has_set_stays() {
        let response = [("access-control-allow-origin", "http://own"), ("Access-Control-Max-Age", "5")];
        let got = missing(&[("Origin", "http://a.com")], &response);
        assert_eq!(got, ["Allow-Methods: OPTIONS, HEAD, GET, POST, PUT, DELETE", "Allow-Credentials: true"]);
    }
}
