// SPDX-License-Identifier: AGPL-3.0-or-later
//! What backends are told of the way a request came: X-Forwarded-For, X-Forwarded-Proto, CDN-Loop.

use grip::header::{elements, first};
use settings::model::ForwardedFor;
use zhttp::Headers;

/// The new value of X-Forwarded-For, or `None` for none: the client's values by `rule`, or what the route has `set` in their
/// place, then the peer's address if the rule appends it.
pub fn forwarded_for(
    headers: Headers<'_>,
    set: Option<&str>,
    rule: &ForwardedFor,
    peer: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let mut values: Vec<&[u8]> = match set {
        Some("") => Vec::new(),
        Some(value) => elements(value.as_bytes()).collect(),
        None => headers.values("X-Forwarded-For").flat_map(elements).collect(),
    };
    if let Some(keep) = rule.truncate {
        values.drain(..values.len().saturating_sub(keep));
    }
    if rule.append {
        values.extend(peer);
    }
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// The address that a client says it has, if the rule lets it: the first of X-Forwarded-For. Otherwise the peer's.
pub fn logical_address<'a>(headers: Headers<'a>, rule: &ForwardedFor, peer: Option<&'a [u8]>) -> Option<&'a [u8]> {
    let claimed = headers
        .get("X-Forwarded-For")
        .filter(|_| rule.truncate != Some(0))
        .and_then(|value| elements(value).next())
        .filter(|value| std::str::from_utf8(value).is_ok_and(|text| text.parse::<std::net::IpAddr>().is_ok()));
    claimed.or(peer)
}

/// The value of CDN-Loop with our own token at its end.
pub fn cdn_loop(headers: Headers<'_>, token: &str) -> Vec<u8> {
    let mut values: Vec<&[u8]> = headers.values("CDN-Loop").flat_map(elements).collect();
    values.push(token.as_bytes());
    values.join(&b", "[..])
}

/// Whether a request has been here before: our token is among those of CDN-Loop (RFC 8586), with or without parameters.
pub fn has_looped(headers: Headers<'_>, token: &str) -> bool {
    let own = |value: &[u8]| first(value).trim_ascii().eq_ignore_ascii_case(token.as_bytes());
    !token.is_empty() && headers.values("CDN-Loop").flat_map(elements).any(own)
}

/// Whether a client in front of which TLS was ended says so.
pub fn says_secure(headers: Headers<'_>) -> bool {
    let value = headers.get("X-Forwarded-Proto").or_else(|| headers.get("X-Forwarded-Protocol"));
    matches!(value, Some(b"https" | b"wss"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Option<&[u8]> = Some(b"127.0.0.1");

    fn xff(sent: &[&[u8]], truncate: Option<usize>, append: bool) -> Option<String> {
        let pairs: Vec<(&[u8], &[u8])> = sent.iter().map(|value| (&b"x-forwarded-for"[..], *value)).collect();
        forwarded_for(Headers::Pairs(&pairs), None, &ForwardedFor { truncate, append }, PEER)
            .map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn values_are_joined_into_one_line() {
        assert_eq!(xff(&[b"1.1.1.1,2.2.2.2", b"3.3.3.3"], None, false).unwrap(), "1.1.1.1, 2.2.2.2, 3.3.3.3");
        assert_eq!(xff(&[], None, false), None);
    }

    #[test]
    fn the_rule_keeps_the_last_values_and_appends_the_peer() {
        assert_eq!(xff(&[b"1.1.1.1, 2.2.2.2, 3.3.3.3"], Some(2), true).unwrap(), "2.2.2.2, 3.3.3.3, 127.0.0.1");
        assert_eq!(xff(&[b"1.1.1.1"], Some(0), false), None);
        assert_eq!(xff(&[b"1.1.1.1"], Some(0), true).unwrap(), "127.0.0.1");
    }

    #[test]
    fn what_the_route_sets_stands_in_the_place_of_the_client_s() {
        let pairs = [(&b"X-Forwarded-For"[..], &b"1.1.1.1"[..])];
        let rule = ForwardedFor { truncate: Some(1), append: true };
        let with = |set| forwarded_for(Headers::Pairs(&pairs), Some(set), &rule, PEER).unwrap();
        assert_eq!(with("2.2.2.2, 3.3.3.3"), b"3.3.3.3, 127.0.0.1");
        assert_eq!(with(""), b"127.0.0.1");
    }

    #[test]
    fn a_claimed_address_counts_only_when_it_is_one_and_is_not_cut_off() {
        let pairs = [(&b"X-Forwarded-For"[..], &b"9.9.9.9, 8.8.8.8"[..])];
        let headers = Headers::Pairs(&pairs);
        let rule = |truncate| ForwardedFor { truncate, append: false };
        assert_eq!(logical_address(headers, &rule(None), PEER), Some(&b"9.9.9.9"[..]));
        assert_eq!(logical_address(headers, &rule(Some(0)), PEER), PEER);
        let pairs = [(&b"X-Forwarded-For"[..], &b"unknown"[..])];
        assert_eq!(logical_address(Headers::Pairs(&pairs), &rule(None), PEER), PEER);
    }

    #[test]
    fn a_request_that_comes_round_again_is_known_by_our_token() {
        let looped = |value: &[u8]| has_looped(Headers::Pairs(&[(b"cdn-loop", value)]), "mycdn");
        assert!(looped(b"mycdn") && looped(b"a, MyCDN, b") && looped(b"mycdn; version=1") && looped(b"a,mycdn ;x"));
        assert!(!looped(b"mycdn2") && !looped(b"a, b; mycdn") && !looped(b""));
        assert!(!has_looped(Headers::Pairs(&[(b"CDN-Loop", b"")]), ""));
    }

    #[test]
    fn cdn_loop_gets_our_token_at_its_end() {
        let pairs = [(&b"CDN-Loop"[..], &b"a, b; v=\"1,2\""[..]), (b"cdn-loop", b"c")];
        assert_eq!(cdn_loop(Headers::Pairs(&pairs), "mycdn"), b"a, b; v=\"1,2\", c, mycdn");
    }
}
