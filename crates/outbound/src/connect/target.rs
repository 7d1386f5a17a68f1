// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where a request goes: its URI taken apart, and the host and port that are connected to.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::fmt;

use super::tls::Identity;

/// A host and a port: what connections are made to, and what they are kept by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address without brackets, as it was asked for.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// With TLS, and to whom.
    pub tls: Option<Identity>,
}

impl fmt::Display for Endpoint {
    /// As in a URI, for the log: an IPv6 address stands in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why a URI can not be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not an absolute URI with a host.
    #[error("the uri is not scheme://host[:port]/path")]
    Malformed,
    /// A scheme other than the four of the web.
    #[error("the scheme is none of http, https, ws, wss")]
    Scheme,
}

/// The parts of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Name or address, without brackets.
    pub host: &'a str,
    /// Port; 80, or 443 with TLS, if the URI has none.
    pub port: u16,
    /// It is reached with TLS.
    pub tls: bool,
    /// What belongs in the `Host` header: the host as written, and the port if it is not the usual one.
    pub authority: &'a str,
    /// It is for a WebSocket.
    pub websocket: bool,
    /// Path and query as written, without fragment; possibly empty or beginning with `?`.
    pub path: &'a str,
}

impl<'a> Target<'a> {
    /// Takes a URI apart. Nothing is decoded or normalised.
    pub fn parse(uri: &'a [u8]) -> Result<Self, TargetError> {
        let uri = str::from_utf8(uri).map_err(|_| TargetError::Malformed)?;
        let (scheme, rest) = uri.split_once("://").ok_or(TargetError::Malformed)?;
        let (websocket, tls) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, false),
            "https" => (false, true),
            "ws" => (true, false),
            "wss" => (true, true),
            _ => return Err(TargetError::Scheme),
        };
        let usual = if tls { 443 } else { 80 };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = split_port(authority)?;
        let authority = match port {
            None => without_port(authority),
            Some(port) if port == usual => without_port(authority),
            Some(_) => authority,
        };
        Ok(Target { host, port: port.unwrap_or(usual), tls, authority, websocket, path })
    }
}

fn without_port(authority: &str) -> &str {
    let cut = |(host, digits): (&'_ str, &str)| if digits.ends_with(']') { authority.len() } else { host.len() };
    &authority[..authority.rsplit_once(':').map_or(authority.len(), cut)]
}

/// Host without brackets, and port.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), TargetError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(TargetError::Malformed)?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':').ok_or(TargetError::Malformed)? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let bytes_of_hosts = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:%".contains(&byte) || byte >= 0x80;
    if host.is_empty() || host.len() > 255 || !host.bytes().all(bytes_of_hosts) {
        return Err(TargetError::Malformed);
    }
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| TargetError::Malformed)?)
        }
        _ => return Err(TargetError::Malformed),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> (&str, u16, &str, &str) {
        let target = Target::parse(uri.as_bytes()).unwrap();
        (target.host, target.port, target.authority, target.path)
    }

    #[test]
    fn a_uri_is_taken_apart_as_written() {
        assert_eq!(parse("http://h:81/a/../b?x=%2e"), ("h", 81, "h:81", "/a/../b?x=%2e"));
        assert_eq!(parse("HTTP://h"), ("h", 80, "h", ""));
        assert_eq!(parse("http://h?q=/"), ("h", 80, "h", "?q=/"));
    }

    #[test]
    fn the_fragment_stays_here() {
        assert_eq!(parse("http://h/a#b?c"), ("h", 80, "h", "/a"));
        assert_eq!(parse("http://h#b"), ("h", 80, "h", ""));
    }

    #[test]
    fn the_default_port_is_not_part_of_the_authority() {
        assert_eq!(parse("http://h:80/").2, "h");
        assert_eq!(parse("http://h:/").2, "h");
        assert_eq!(parse("http://[::1]:80/").2, "[::1]");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets() {
        assert_eq!(parse("http://[::1]:8080/x"), ("::1", 8080, "[::1]:8080", "/x"));
        assert_eq!(parse("http://[fe80::1]/x"), ("fe80::1", 80, "[fe80::1]", "/x"));
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for uri in [
            "",
            "not a uri",
            "/a",
            "http:/a",
            "http://",
            "http:///a",
            "http://:80/",
            "http://h:99999/",
            "http://h:1a/",
            "http://h:+1/",
            "http://[::1",
            "http://[::1]x/",
            "http://u@h/",
            "http://h h/",
            "http://h\r\n/",
        ] {
            assert_eq!(Target::parse(uri.as_bytes()), Err(TargetError::Malformed), "{uri}");
        }
        assert_eq!(Target::parse(b"ftp://h/"), Err(TargetError::Scheme));
        let secure = Target::parse(b"wss://h/").unwrap();
        assert_eq!((secure.tls, secure.websocket, secure.port), (true, true, 443));
        assert_eq!(Target::parse(b"https://h:443/").unwrap().authority, "h");
        assert_eq!(Target::parse(b"https://h:80/").unwrap().authority, "h:80");
    }
}
