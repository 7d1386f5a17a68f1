//! Which requests are the same.
//!
//! Requests are the same if the same would be sent to the same backends. If the handler wants clients to share (`share_all`),
//! headers that tell who asks and not what for do not count. Cookies and credentials always do: the response is
//! that of the first who asks.

use routes::{Route, Target};

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
        let (routes, _) = routes::Table::parse(b"*,id=r h:1,h:2", "routes", &|_| Ok(None));
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
    fn parts_can_not_run_into_each_other() {
        assert_ne!(
            text(&[("A", "bC"), ("", "d")], Exactness::All, |_| {}),
            text(&[("A", "b"), ("C", "d")], Exactness::All, |_| {})
        );
    }
}
