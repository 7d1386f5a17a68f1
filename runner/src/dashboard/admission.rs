// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who may see the dashboard: whoever may do everything on the control port.
//!
//! Without key and token that is everybody on this machine, and a browser there also shows pages of others. So nothing is told
//! then to a page that is not ours: neither to one of another origin, nor to one whose name was made to lead here.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::net::IpAddr;

use handler::publish::http::authorization::{Gate, Refusal};
use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};

/// By which browsers tell whose page asks.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why nothing is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// There is no token, or it is not good.
    #[error("{0}")]
    Unauthorized(String),
    /// Whoever asks may not.
    #[error("{0}")]
    Forbidden(String),
}

/// Decides about a request. `now` is in seconds since 1970.
///
/// # Errors
/// Nothing is to be told.
pub fn admit(gate: &Gate, method: &Method, headers: &HeaderMap, now: u64) -> Result<(), Denial> {
    let forbidden = |text: &str| Err(Denial::Forbidden(text.into()));
    if headers.get(FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none") {
        return forbidden("Pages of others are told nothing.");
    }
    // No page of others can send this without asking us first, which we do not answer.
    if method == Method::POST && headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return forbidden("A body has the type application/json.");
    }
    if !gate.is_closed() {
        return match names_this_machine(headers) {
            true => Ok(()),
            false => forbidden(
                "Without control_token or control_key only localhost and addresses are answered, and no other names.",
            ),
        };
    }
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let only = values.next().filter(|_| values.next().is_none());
    let grant = gate.admit(only.map(HeaderValue::as_bytes), now).and_then(|grant| grant.check_all());
    grant.map_err(|refusal| match refusal {
        Refusal::Forbidden(_) => Denial::Forbidden(refusal.to_string()),
        Refusal::Missing | Refusal::Invalid(_) => Denial::Unauthorized(refusal.to_string()),
    })
}

/// Whether we are called by a name that nobody else can have lead here.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use settings::keys::Key;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        lines.collect()
    }

    fn with_token() -> Gate {
        Gate::new(None, None, Some(&Key::Secret(b"secret".to_vec()))).unwrap()
    }

    #[test]
    fn without_token_only_our_own_page_is_told_something() {
        let open = Gate::default();
        for host in ["localhost:7998", "LOCALHOST", "127.0.0.1:7998", "[::1]:7998", "::1", "192.168.0.1"] {
            let host = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            // One that is not an address by itself is not taken for one.
            assert_eq!(admit(&open, &Method::GET, &host, 0).is_ok(), host[HOST] != "::1", "{host:?}");
        }
        for lines in [
            &[][..],
            &[("host", "evil.example:7998")],
            &[("host", "localhost.evil.example")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "")],
            &[("host", "[::1"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost"), ("sec-fetch-site", "same-site")],
        ] {
            let denial = admit(&open, &Method::GET, &headers(lines), 0);
            assert!(matches!(denial, Err(Denial::Forbidden(_))), "{lines:?}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json;x=text/plain"] {
            let lines = HeaderMap::from_iter([
                (HOST, HeaderValue::from_static("localhost")),
                (CONTENT_TYPE, HeaderValue::from_static(kind)),
            ]);
            assert!(admit(&open, &Method::POST, &lines, 0).is_err(), "{kind}");
        }
        let own =
            headers(&[("host", "localhost"), ("sec-fetch-site", "same-origin"), ("content-type", "application/json")]);
        assert_eq!(admit(&open, &Method::POST, &own, 0), Ok(()));
    }

    #[test]
    fn a_token_is_wanted_where_one_is_set() {
        let gate = with_token();
        for lines in [
            &[("host", "localhost")][..],
            &[("authorization", "Bearer wrong")],
            &[("authorization", "Bearer secret"), ("authorization", "Bearer secret")],
            &[("authorization", "Basic secret")],
        ] {
            let mut found = HeaderMap::new();
            for (name, value) in lines {
                found.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let denial = admit(&gate, &Method::GET, &found, 0);
            assert!(matches!(denial, Err(Denial::Unauthorized(_))), "{lines:?}");
        }
        let good = headers(&[("host", "suite.example"), ("authorization", "Bearer secret")]);
        assert_eq!(admit(&gate, &Method::GET, &good, 0), Ok(()));
        let cross = headers(&[("sec-fetch-site", "cross-site"), ("authorization", "Bearer secret")]);
        assert!(matches!(admit(&gate, &Method::GET, &cross, 0), Err(Denial::Forbidden(_))));
    }
}
