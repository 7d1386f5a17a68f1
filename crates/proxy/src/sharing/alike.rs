// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which requests are the same.
//!
//! Requests are the same if the same would be sent to the same backends. If the handler wants clients to share (`share_all`),
//! headers that tell who asks and not what for do not count. Cookies and credentials always do: the response is
//! that of the first who asks. A response that turns out to be for that one alone is not shared.

use routes::{Route, Target};
use zhttp::Headers;

use crate::request::headers::{MARK, target_name};

/// How exactly requests must be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Headers that tell who asks may differ.
    What,
    /// All headers are the same.
    All,
}

/// What is compared of a request.
pub struct Asked<'a> {
    /// The handler's key; requests with another one are never the same.
    pub key: &'a [u8],
    /// What the handler knows of the client, encoded: it tells when it was asked for.
    pub known: &'a [u8],
    /// Method.
    pub method: &'a [u8],
    /// The URI that the backend gets.
    pub uri: &'a [u8],
    /// The headers that the backend gets.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// Where it goes.
    pub route: &'a Route,
    /// Clients get headers for scripts of other sites from us, so it does not matter what their site is.
    pub cross_origin: bool,
    /// See there.
    pub exactness: Exactness,
}

impl Asked<'_> {
    /// The text that is equal for requests that are the same.
    pub fn text(&self) -> Box<[u8]> {
        let mut text = Vec::with_capacity(512);
        // With lengths, so that no part can stand for two.
        let mut add = |part: &[u8]| {
            text.extend_from_slice(part.len().to_string().as_bytes());
            text.push(b':');
            text.extend_from_slice(part);
        };
        [self.key, self.known, self.method, self.uri, self.route.id.as_bytes()].into_iter().for_each(&mut add);
        for target in &self.route.targets {
            add(target_name(target).as_bytes());
            add(&flags(target));
            add(target.client.as_ref().map_or(b"", |client| client.chain.as_bytes()));
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| !self.is_skipped(name)) {
            add(name);
            add(value);
        }
        text.into_boxed_slice()
    }

    fn is_skipped(&self, name: &[u8]) -> bool {
        let name = match name.get(..MARK.len()) {
            Some(start) if start.eq_ignore_ascii_case(MARK) => &name[MARK.len()..],
            _ => name,
        };
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        // A signature is another one each time that it is made.
        is(&"Grip-Sig")
            || (self.exactness == Exactness::What && (WHO.iter().any(is) || (self.cross_origin && SITE.iter().any(is))))
    }
}

/// Whether a response is for nobody but the one who has asked: it sets a cookie, says that it is private, or depends on headers
/// that were not compared.
pub fn is_personal(headers: Headers<'_>, exactness: Exactness) -> bool {
    headers.iter().any(|(name, value)| {
        let mut words = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"Vary") => words.any(|word| {
                let is = |other: &&str| word.eq_ignore_ascii_case(other.as_bytes());
                word == b"*" || (exactness == Exactness::What && WHO.iter().chain(&SITE).any(is))
            }),
            10 => name.eq_ignore_ascii_case(b"Set-Cookie"),
            13 if name.eq_ignore_ascii_case(b"Cache-Control") => words.any(|word| {
                let word = word.split(|&byte| byte == b'=').next().unwrap_or_default();
                word.eq_ignore_ascii_case(b"private")
            }),
            _ => false,
        }
    })
}

/// Headers that tell who asks, by which way, and under which number, but not what for.
const WHO: [&str; 14] = [
    "User-Agent",
    "Referer",
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Real-IP",
    "X-Request-ID",
    "X-Correlation-ID",
    "Traceparent",
    "Tracestate",
    "Priority",
    "DNT",
    "Sec-CH-UA",
    "Sec-CH-UA-Platform",
];

/// Headers of scripts of other sites.
const SITE: [&str; 3] = ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"];

fn flags(target: &Target) -> [u8; 4] {
    [target.tls, target.trusted, target.insecure, target.trust_connect_host].map(u8::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &[(&str, &str)], exactness: Exactness, change: impl FnOnce(&mut Asked<'_>)) -> Box<[u8]> {
        let (routes, _) = routes::Table::parse(b"*,id=r h:1,h:2", "routes", &());
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let mut asked = Asked {
            key: b"k",
            known: b"",
            method: b"GET",
            uri: b"http://h/",
            headers: &headers,
            route: routes.iter().next().unwrap(),
            cross_origin: false,
            exactness,
        };
        change(&mut asked);
        asked.text()
    }

    #[test]
    fn what_is_asked_for_must_be_the_same() {
        let base = text(&[("A", "b")], Exactness::What, |_| {});
        assert_eq!(base, text(&[("A", "b")], Exactness::What, |_| {}));
        assert_ne!(base, text(&[("A", "c")], Exactness::What, |_| {}));
        assert_ne!(base, text(&[], Exactness::What, |_| {}));
        assert_ne!(base, text(&[("A", "b")], Exactness::What, |asked| asked.method = b"HEAD"));
        assert_ne!(base, text(&[("A", "b")], Exactness::What, |asked| asked.uri = b"http://h/?x"));
        assert_ne!(base, text(&[("A", "b")], Exactness::What, |asked| asked.key = b"l"));
        assert_ne!(base, text(&[("A", "b")], Exactness::What, |asked| asked.known = b"1"));
    }

    #[test]
    fn who_asks_counts_only_if_all_headers_do() {
        let agent = |agent: &str, exactness| text(&[("user-agent", agent), ("eb9bf0f5-Via", agent)], exactness, |_| {});
        assert_eq!(agent("a", Exactness::What), agent("b", Exactness::What));
        assert_ne!(agent("a", Exactness::All), agent("b", Exactness::All));
        let signed = |token: &str| text(&[("Grip-Sig", token)], Exactness::All, |_| {});
        assert_eq!(signed("a"), signed("b"));
    }

    #[test]
    fn cookies_and_credentials_always_count() {
        for name in ["Cookie", "Authorization", "X-User", "Grip-Last", "If-None-Match", "Range", "Accept"] {
            let with = |value: &str| text(&[(name, value)], Exactness::What, |_| {});
            assert_ne!(with("a"), with("b"), "{name}");
        }
    }

    #[test]
    fn the_site_of_a_script_counts_unless_the_headers_for_it_are_ours() {
        let of = |site: &str, ours| text(&[("Origin", site)], Exactness::What, |asked| asked.cross_origin = ours);
        assert_ne!(of("a", false), of("b", false));
        assert_eq!(of("a", true), of("b", true));
    }

    #[test]
    fn a_response_that_is_for_one_client_is_known_by_its_headers() {
        let personal = |name: &str, value: &str, exactness| {
            is_personal(Headers::Pairs(&[(b"A", b"b"), (name.as_bytes(), value.as_bytes())]), exactness)
        };
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("Cache-Control", "max-age=5, Private"),
            ("cache-control", "private=\"x\""),
            ("Vary", "*"),
        ] {
            assert!(personal(name, value, Exactness::All), "{name}: {value}");
        }
        for (name, value) in [("Cache-Control", "no-store"), ("Vary", "Cookie, Accept"), ("X-Private", "private")] {
            assert!(!personal(name, value, Exactness::What), "{name}: {value}");
        }
        assert!(personal("Vary", "Accept, user-agent", Exactness::What));
        assert!(personal("Vary", "Origin", Exactness::What) && !personal("Vary", "Origin", Exactness::All));
    }

    #[test]
    fn parts_can_not_run_into_each_other() {
        assert_ne!(
            text(&[("A", "bC"), ("", "d")], Exactness::All, |_| {}),
            text(&[("A", "b"), ("C", "d")], Exactness::All, |_| {})
        );
    }
}
