// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a backend gets to see of a request: its URI and its headers (proxy, request toward the origin).

use routes::{Route, Target, TargetKind};
use rpc::inspect::Inspected;
use settings::model::{ForwardedFor, ForwardedProtocol};
use zhttp::Headers;

use crate::handler::inspect::grip_last;
use crate::request::forwarded;
use crate::request::uri::{Scheme, Uri};
use crate::response::backend::is_grip;

/// What the suite can do, as far as backends need to know: word for word what 2.0 says. `session` has no effect without a state
/// service (`state_spec`), there as here.
pub const FEATURES: &str = "status, session, link:next, link:gone, filter:skip-self, filter:skip-users, filter:require-sub, filter:build-id, filter:var-subst, filter:http-check, filter:http-modify";

/// Begins the names of headers that tell what a client really sent.
pub const MARK: &[u8] = b"eb9bf0f5-";

/// The settings that concern headers.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether X-Forwarded-Proto of a client is believed.
    pub accept_protocol: bool,
    /// Which of the protocol headers backends get.
    pub set_protocol: ForwardedProtocol,
    /// What happens to X-Forwarded-For.
    pub forwarded_for: ForwardedFor,
    /// The same for trusted clients.
    pub forwarded_for_trusted: ForwardedFor,
    /// Whether a client may choose its route by a header, which backends then don't get.
    pub accept_route: bool,
    /// Added to CDN-Loop unless it is empty.
    pub cdn_loop: String,
    /// Headers that routes with `orig_headers` show only if they come marked, from a proxy in front of us.
    pub need_mark: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            accept_protocol: false,
            set_protocol: ForwardedProtocol::None,
            forwarded_for: ForwardedFor::default(),
            forwarded_for_trusted: ForwardedFor::default(),
            accept_route: false,
            cdn_loop: String::new(),
            need_mark: Vec::new(),
        }
    }
}

impl Rules {
    /// The rule for X-Forwarded-For.
    pub fn forwarded_for(&self, trusted: bool) -> &ForwardedFor {
        if trusted { &self.forwarded_for_trusted } else { &self.forwarded_for }
    }

    /// Whether a header is copied under a marked name, where headers are: it has no mark yet, and needs none.
    fn is_copied(&self, name: &[u8]) -> bool {
        !is_marked(name) && !self.need_mark.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    }
}

/// Everything besides its own headers that decides what a request looks like to the backend.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// The settings.
    pub rules: &'a Rules,
    /// The request's route.
    pub route: &'a Route,
    /// A proxy in front of us whose GRIP headers count.
    pub trusted: bool,
    /// The handler's own request, whose `Grip-Last` says what it has.
    pub internal: bool,
    /// How the client came.
    pub scheme: Scheme,
    /// The client's address.
    pub peer: Option<&'a [u8]>,
    /// The Grip-Sig token.
    pub token: Option<&'a str>,
    /// What the handler knows of the client.
    pub inspected: Option<&'a Inspected<'static>>,
    /// The authority of the URI that the backend gets.
    pub authority: &'a [u8],
}

/// What the headers are known to have after one look at them; most requests have none of it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    forwarded_for: bool,
    marks: bool,
    twins: bool,
    host_differs: bool,
    host: bool,
}

/// Header values made for one request. Kept apart from the list that borrows from it.
pub struct Additions {
    seen: Seen,
    marked: Vec<Vec<u8>>,
    cdn_loop: Option<Vec<u8>>,
    grip_last: Vec<Vec<u8>>,
    forwarded_for: Option<Vec<u8>>,
}

impl Additions {
    /// Makes what `headers` need.
    pub fn new(headers: Headers<'_>, what: &Circumstances<'_>) -> Self {
        let mut seen = Seen::default();
        for (name, value) in headers.iter() {
            match name.len() {
                4 if is_host(name) => {
                    seen.host = true;
                    seen.host_differs |= !value.eq_ignore_ascii_case(what.authority);
                }
                15 if name.eq_ignore_ascii_case(b"X-Forwarded-For") => seen.forwarded_for = true,
                _ => {
                    seen.marks |= is_marked(name);
                    seen.twins |= is_twin(name);
                }
            }
        }
        let rule = what.rules.forwarded_for(what.trusted);
        let set = what.route.headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("X-Forwarded-For"));
        let set = set.map(|(_, value)| &**value);
        let marked = if !what.trusted && what.route.orig_headers {
            let copied = headers.iter().filter(|(name, _)| what.rules.is_copied(name));
            copied.map(|(name, _)| [MARK, name].concat()).collect()
        } else {
            Vec::new()
        };
        Additions {
            seen,
            marked,
            cdn_loop: (!what.rules.cdn_loop.is_empty()).then(|| forwarded::cdn_loop(headers, &what.rules.cdn_loop)),
            grip_last: what.inspected.map(grip_last).unwrap_or_default(),
            forwarded_for: (seen.forwarded_for || set.is_some() || rule.append)
                .then(|| forwarded::forwarded_for(headers, set, rule, what.peer))
                .flatten(),
        }
    }

    /// The headers for the backend, in the order that backends know.
    pub fn headers<'a>(&'a self, headers: Headers<'a>, what: &Circumstances<'a>) -> Vec<(&'a [u8], &'a [u8])> {
        let route = what.route;
        let mut list: Vec<(&[u8], &[u8])> = Vec::with_capacity(24);
        // The route's own headers replace the client's of the same name, and a later one replaces an earlier. Host is not
        // theirs to set.
        let is_set = |name: &[u8], from: usize| {
            let mut later = route.headers.get(from..).unwrap_or_default().iter();
            !is_host(name) && later.any(|(other, _)| name.eq_ignore_ascii_case(other.as_bytes()))
        };
        let own = route.headers.iter().enumerate();
        let own = own.filter(|(at, (name, value))| {
            !value.is_empty() && !is_host(name.as_bytes()) && !is_set(name.as_bytes(), at + 1)
        });
        let own = own.map(|(_, (name, value))| (name.as_bytes(), value.as_bytes()));
        let clients = headers.iter().filter(|(name, _)| route.headers.is_empty() || !is_set(name, 0));
        list.extend(clients.chain(own).filter(|(name, _)| self.stays(name, what)));

        if route.orig_headers && !what.trusted {
            let mut marked = self.marked.iter();
            for (name, value) in headers.iter() {
                let shown = match is_marked(name) {
                    true => Some(name),
                    false if what.rules.is_copied(name) => marked.next().map(Vec::as_slice),
                    false => None,
                };
                list.extend(shown.map(|name| (name, value)));
            }
        }
        list.extend(self.cdn_loop.as_deref().map(|value| (&b"CDN-Loop"[..], value)));
        if !what.trusted && route.grip {
            list.extend(what.token.map(|token| (&b"Grip-Sig"[..], token.as_bytes())));
            list.push((b"Grip-Feature", FEATURES.as_bytes()));
            let session = what.inspected.and_then(|inspected| inspected.sid.as_deref());
            list.extend(session.map(|id| (&b"Grip-Session-Id"[..], id)));
            list.extend(self.grip_last.iter().map(|value| (&b"Grip-Last"[..], value.as_slice())));
        }
        if what.scheme.is_secure() && what.rules.set_protocol != ForwardedProtocol::None {
            let scheme = what.scheme.as_str().as_bytes();
            list.push((b"X-Forwarded-Proto", scheme));
            if what.rules.set_protocol == ForwardedProtocol::Both {
                list.push((b"X-Forwarded-Protocol", scheme));
            }
        }
        list.extend(self.forwarded_for.as_deref().map(|value| (&b"X-Forwarded-For"[..], value)));
        if self.seen.host_differs || !self.seen.host {
            list.push((b"Host", what.authority));
        }
        list
    }

    fn stays(&self, name: &[u8], what: &Circumstances<'_>) -> bool {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        // By length first: it tells nearly all names apart at the cost of one comparison.
        let removed = match name.len() {
            4 => is_host(name) && self.seen.host_differs,
            6 => is(b"Expect"),
            8 => is(b"CDN-Loop") && self.cdn_loop.is_some(),
            10 => is(b"Connection") || is(b"Keep-Alive"),
            13 => is(b"Pushpin-Route") && what.rules.accept_route,
            15 => is(b"Accept-Encoding") || is(b"X-Forwarded-For"),
            17 => is(b"Transfer-Encoding") || (is(b"X-Forwarded-Proto") && self.replaces_protocol(what)),
            20 => is(b"X-Forwarded-Protocol") && self.replaces_protocol(what),
            _ => false,
        };
        let marked = self.seen.marks && is_marked(name) && !(what.trusted && what.route.orig_headers);
        let twin = self.seen.twins && is_twin(name);
        let foreign = !what.trusted && is_grip(name) && !(what.internal && is(b"Grip-Last"));
        !(removed || marked || twin || foreign)
    }

    fn replaces_protocol(&self, what: &Circumstances<'_>) -> bool {
        what.rules.accept_protocol || what.rules.set_protocol != ForwardedProtocol::None
    }
}

fn is_host(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Host")
}

fn is_marked(name: &[u8]) -> bool {
    name.get(..MARK.len()).is_some_and(|start| start.eq_ignore_ascii_case(MARK))
}

/// Whether a name becomes one that backends trust, or that says where a body ends, once all that is no letter or digit is
/// the same: to CGI and WSGI programs both `Grip-Sig` and `Grip_Sig` are `HTTP_GRIP_SIG`, and to some `Grip.Sig` is as
/// well. We set or remove the first, so the others can only come from a client that hopes to be taken for us.
fn is_twin(name: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 3] = [b"Grip-", b"X-Forwarded-", MARK];
    const NAMES: [&[u8]; 5] = [b"CDN-Loop", b"Content-Length", b"Content-Type", b"Pushpin-Route", b"Transfer-Encoding"];
    let same = |other: &[u8], name: &[u8]| {
        let alike = |(o, n): (&u8, &u8)| o.eq_ignore_ascii_case(n) || (*o == b'-' && !n.is_ascii_alphanumeric());
        other.len() == name.len() && other.iter().zip(name).all(alike)
    };
    name.iter().any(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
        && (BEGINNINGS.iter().any(|start| name.get(..start.len()).is_some_and(|name| same(start, name)))
            || NAMES.iter().any(|other| same(other, name)))
}

/// Whether a request claims to carry WebSocket events, which only a GRIP proxy may send to a backend. Wherever in whichever
/// Content-Type it says so: backends differ in which of several they read and in how exactly.
pub fn claims_websocket_events(headers: Headers<'_>) -> bool {
    const EVENTS: &[u8] = b"application/websocket-events";
    headers.iter().any(|(name, value)| {
        name.len() == 12
            && (name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"Content_Type"))
            && value.windows(EVENTS.len()).any(|part| part.eq_ignore_ascii_case(EVENTS))
    })
}

/// The URI for a target: the client's with the route's and the target's changes.
pub fn origin_uri(uri: &Uri<'_>, route: &Route, target: &Target) -> Vec<u8> {
    let mut path = uri.path.get(route.path_remove..).unwrap_or_default();
    let joined;
    if !route.path_prepend.is_empty() {
        joined = [route.path_prepend.as_bytes(), path].concat();
        path = &joined;
    }
    let authority = authority(uri, route, target);
    let mut whole = Vec::with_capacity(authority.len() + path.len() + uri.query.len() + 16);
    Uri { scheme: uri.scheme.with_tls(target.tls), authority, path, query: uri.query }.write(&mut whole);
    whole
}

/// The host and port that the backend is told.
pub fn authority<'a>(uri: &Uri<'a>, route: &'a Route, target: &'a Target) -> &'a [u8] {
    let set = target.host.as_ref().or(route.as_host.as_ref());
    set.map_or(uri.authority, |host| host.as_bytes())
}

/// How a target is called in the log and in error texts.
pub fn target_name(target: &Target) -> String {
    match &target.kind {
        TargetKind::Test => "test".to_string(),
        TargetKind::Host { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        TargetKind::Host { host, port } => format!("{host}:{port}"),
        TargetKind::Zhttp { spec } => format!("zhttp/{spec}"),
        TargetKind::ZhttpRequest { spec } => format!("zhttpreq/{spec}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use routes::Table;

    use super::*;

    fn route(line: &str) -> Arc<Route> {
        let (routes, warnings) = Table::parse(line.as_bytes(), "routes", &());
        assert!(warnings.is_empty(), "{warnings:?}");
        routes.iter().next().unwrap().clone()
    }

    /// The headers that a backend of the route gets, as `Name: value` lines.
    fn sent(line: &str, rules: &Rules, scheme: Scheme, pairs: &[(&str, &str)]) -> Vec<String> {
        let route = route(line);
        let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let headers = Headers::Pairs(&pairs);
        let uri = Uri { scheme, authority: b"h:81", path: b"/", query: b"" };
        let what = Circumstances {
            rules,
            route: &route,
            trusted: false,
            internal: false,
            scheme,
            peer: Some(b"127.0.0.1"),
            token: Some("TOKEN"),
            inspected: None,
            authority: authority(&uri, &route, &route.targets[0]),
        };
        let additions = Additions::new(headers, &what);
        let list = additions.headers(headers, &what);
        list.iter().map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii())).collect()
    }

    fn plain(line: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        sent(line, &Rules::default(), Scheme::Http, pairs)
    }

    #[test]
    fn ordinary_headers_keep_order_case_and_duplicates() {
        let got = plain("*,no_grip h:1", &[("Host", "h:81"), ("x-LOWER", "1"), ("X-B", "b"), ("X-lower", "2")]);
        assert_eq!(got, ["Host: h:81", "x-LOWER: 1", "X-B: b", "X-lower: 2"]);
    }

    #[test]
    fn headers_of_the_connection_and_grip_headers_of_clients_are_removed() {
        let got = plain(
            "* h:1",
            &[
                ("Host", "h:81"),
                ("connection", "x"),
                ("Keep-Alive", "1"),
                ("Accept-Encoding", "gzip"),
                ("Expect", "100-continue"),
                ("TE", "trailers"),
                ("grip-sig", "forged"),
                ("Grip-Foo", "x"),
                ("eb9bf0f5-X", "1"),
            ],
        );
        assert_eq!(got, ["Host: h:81", "TE: trailers", "Grip-Sig: TOKEN", &format!("Grip-Feature: {FEATURES}")]);
    }

    #[test]
    fn additions_stand_behind_the_clients_headers_in_the_known_order() {
        let rules = Rules {
            accept_protocol: true,
            set_protocol: ForwardedProtocol::Both,
            forwarded_for: ForwardedFor { truncate: None, append: true },
            cdn_loop: "mycdn".into(),
            ..Rules::default()
        };
        let got = sent(
            "*,as_host=other h:1",
            &rules,
            Scheme::Https,
            &[
                ("Host", "h:81"),
                ("X-Forwarded-For", "1.1.1.1"),
                ("X-Forwarded-Proto", "https"),
                ("CDN-Loop", "a"),
                ("Accept", "*/*"),
            ],
        );
        let feature = format!("Grip-Feature: {FEATURES}");
        assert_eq!(
            got,
            [
                "Accept: */*",
                "CDN-Loop: a, mycdn",
                "Grip-Sig: TOKEN",
                &feature,
                "X-Forwarded-Proto: https",
                "X-Forwarded-Protocol: https",
                "X-Forwarded-For: 1.1.1.1, 127.0.0.1",
                "Host: other",
            ]
        );
    }

    #[test]
    fn a_route_sets_and_removes_headers_and_the_last_rule_for_a_name_counts() {
        let got = plain(
            "*,no_grip,header=X-A:,header=\"X-B: two\" h:1",
            &[("Host", "h:81"), ("x-a", "1"), ("x-b", "1"), ("X-C", "c")],
        );
        assert_eq!(got, ["Host: h:81", "X-C: c", "X-B: two"]);
    }

    #[test]
    fn original_headers_are_shown_under_marked_names() {
        let got = plain("*,no_grip,orig_headers h:1", &[("Host", "h:81"), ("eb9bf0f5-Zed", "1"), ("X-Hello", "w")]);
        assert_eq!(got, ["Host: h:81", "X-Hello: w", "eb9bf0f5-Host: h:81", "eb9bf0f5-Zed: 1", "eb9bf0f5-X-Hello: w"]);
    }

    #[test]
    fn a_header_that_needs_a_mark_is_shown_only_if_it_has_one() {
        let rules = Rules { need_mark: vec!["X-User".into()], ..Rules::default() };
        let headers = [("Host", "h:81"), ("x-user", "forged"), ("X-Hello", "w"), ("EB9BF0F5-X-User", "me")];
        let got = sent("*,no_grip,orig_headers h:1", &rules, Scheme::Http, &headers);
        let expected = [
            "Host: h:81",
            "x-user: forged",
            "X-Hello: w",
            "eb9bf0f5-Host: h:81",
            "eb9bf0f5-X-Hello: w",
            "EB9BF0F5-X-User: me",
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn names_that_a_backend_may_take_for_trusted_ones_are_removed() {
        let forged = [
            "Grip_Sig",
            "Grip.Sig",
            "X~Forwarded+For",
            "grip_sig",
            "Grip-Session_Id",
            "GRIP_LAST",
            "X_Forwarded_For",
            "X_Forwarded-Host",
            "X-Forwarded_Proto",
            "eb9bf0f5_Zed",
            "Content_Length",
            "Transfer_Encoding",
            "content_type",
        ];
        let headers: Vec<_> =
            forged.iter().map(|name| (*name, "forged")).chain([("Host", "h:81"), ("X_Grip", "1")]).collect();
        assert_eq!(plain("*,no_grip h:1", &headers), ["Host: h:81", "X_Grip: 1"]);
    }

    #[test]
    fn websocket_events_are_known_however_a_client_writes_them() {
        let claims = |pairs: &[(&[u8], &[u8])]| claims_websocket_events(Headers::Pairs(pairs));
        for value in [
            "application/websocket-events",
            "Application/WebSocket-Events ;a=b",
            "text/plain, application/websocket-events",
        ] {
            assert!(claims(&[(b"content-TYPE", value.as_bytes())]), "{value}");
        }
        assert!(claims(&[(b"Content-Type", b"text/plain"), (b"Content_Type", b"\tapplication/websocket-events")]));
        assert!(!claims(&[(b"Content-Type", b"application/json"), (b"X-Type", b"application/websocket-events")]));
    }

    #[test]
    fn a_request_without_host_gets_one() {
        assert_eq!(plain("*,no_grip h:1", &[]), ["Host: h:81"]);
    }

    #[test]
    fn the_path_is_rewritten_and_keeps_its_slash() {
        let uri = Uri::parse(b"http://h/pfx/abc?q=1").unwrap();
        let rewritten = |line: &str| {
            let route = route(line);
            String::from_utf8(origin_uri(&uri, &route, &route.targets[0])).unwrap()
        };
        assert_eq!(rewritten("*,path_beg=/pfx/,replace_beg=/new/ h:1"), "http://h/new/abc?q=1");
        assert_eq!(rewritten("*,path_rem=5 h:1"), "http://h/abc?q=1");
        assert_eq!(rewritten("*,path_rem=500 h:1"), "http://h/?q=1");
        assert_eq!(rewritten("* h:1,ssl,host=t:5"), "https://t:5/pfx/abc?q=1");
    }
}
