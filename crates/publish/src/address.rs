// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where a publish port is: an address of HTTP.

use std::net::IpAddr;

use crate::Error;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// With TLS.
    pub tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What comes before `/publish/`, without a slash at its end.
    pub path: String,
}

impl Address {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Argument(format!("`{spec}` is not an address: {what}"));
        let (tls, rest) = match (spec.strip_prefix("http://"), spec.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("it must begin with http:// or https://")),
        };
        // What is behind `?` is for `credentials`.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(wrong("give name and password with --user"));
        }
        let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => {
                (host, Some(rest.strip_prefix(':').ok_or_else(|| wrong("after ] comes :port"))?))
            }
            Some(None) => return Err(wrong("] is missing")),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        if spec.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("it has spaces or control characters"));
        }
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or_else(|| wrong("the port is no number from 1 to 65535"))?,
        };
        Ok(Address { tls, host: host.into(), port, path: path.trim_end_matches('/').into() })
    }

    /// Whether nobody else can read what is sent there: by TLS, or because it stays on this machine.
    pub fn is_private(&self) -> bool {
        self.tls || self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Host and port as in the header `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_parts() {
        for (spec, tls, host, port, path, authority) in [
            ("http://localhost:5561", false, "localhost", 5561, "", "localhost:5561"),
            ("http://localhost/", false, "localhost", 80, "", "localhost"),
            (
                "https://api.example.com/realm/x/?iss=x&key=y",
                true,
                "api.example.com",
                443,
                "/realm/x",
                "api.example.com",
            ),
            ("https://h:80", true, "h", 80, "", "h:80"),
            ("http://[::1]:5561/a", false, "::1", 5561, "/a", "[::1]:5561"),
            ("http://[::1]", false, "::1", 80, "", "[::1]"),
        ] {
            let expected = Address { tls, host: host.into(), port, path: path.into() };
            let address = Address::parse(spec).unwrap();
            assert_eq!((&address, address.authority().as_str()), (&expected, authority), "{spec}");
        }
    }

    #[test]
    fn what_is_wrong_with_others_is_told() {
        for (spec, what) in [
            ("http:h", "it must begin with http:// or https://"),
            ("http://", "it names no host"),
            ("http://:80", "it names no host"),
            ("http://h:x", "the port is no number from 1 to 65535"),
            ("http://h:0", "the port is no number from 1 to 65535"),
            ("http://h:65536", "the port is no number from 1 to 65535"),
            ("http://[::1", "] is missing"),
            ("http://[::1]x", "after ] comes :port"),
            ("http://u:p@h", "give name and password with --user"),
            ("http://h/a b", "it has spaces or control characters"),
            ("http://h/\r\nX: y", "it has spaces or control characters"),
        ] {
            let error = Address::parse(spec).unwrap_err().to_string();
            assert_eq!(error, format!("`{spec}` is not an address: {what}"));
        }
    }
}
