// SPDX-License-Identifier: AGPL-3.0-or-later
//! The URI of a request, taken apart. Bytes pass as the client sent them; nothing is decoded or normalised.

/// The parts of an absolute URI that routing and rewriting need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// Lower-case scheme.
    pub scheme: Scheme,
    /// `host[:port]`.
    pub authority: &'a [u8],
    /// Begins with a slash unless it is empty.
    pub path: &'a [u8],
    /// Begins with the question mark, or is empty.
    pub query: &'a [u8],
}

/// What a URI begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Scheme {
    fn parse(text: &[u8]) -> Option<Self> {
        [Scheme::Http, Scheme::Https, Scheme::Ws, Scheme::Wss]
            .into_iter()
            .find(|scheme| text.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
    }

    /// As it stands in a URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Whether it means TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Wss)
    }

    /// Whether it means WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }

    /// The same with or without TLS.
    pub fn with_tls(self, tls: bool) -> Self {
        match (self.is_websocket(), tls) {
            (false, false) => Scheme::Http,
            (false, true) => Scheme::Https,
            (true, false) => Scheme::Ws,
            (true, true) => Scheme::Wss,
        }
    }
}

impl<'a> Uri<'a> {
    /// Takes an absolute URI apart; `None` if it is none, or of an unknown scheme.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let colon = text.iter().take(6).position(|&b| b == b':')?;
        let scheme = Scheme::parse(&text[..colon])?;
        let rest = text[colon..].strip_prefix(b"://")?;
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let question = rest.iter().position(|&b| b == b'?').unwrap_or(rest.len());
        let (path, query) = rest.split_at(question);
        Some(Uri { scheme, authority, path, query })
    }

    /// The host without port, without the brackets of an IPv6 address.
    pub fn host(&self) -> &'a [u8] {
        if let Some(rest) = self.authority.strip_prefix(b"[")
            && let Some(end) = rest.iter().position(|&b| b == b']')
        {
            return &rest[..end];
        }
        let end = self.authority.iter().position(|&b| b == b':').unwrap_or(self.authority.len());
        &self.authority[..end]
    }

    /// The port, which is that of the scheme if none is written; `None` if what is written is none.
    pub fn port(&self) -> Option<u16> {
        let after_host = self.authority.rsplit(|&b| b == b']').next().unwrap_or_default();
        match after_host.iter().position(|&b| b == b':') {
            Some(colon) if colon + 1 < after_host.len() => {
                std::str::from_utf8(&after_host[colon + 1..]).ok()?.parse().ok()
            }
            _ => Some(if self.scheme.is_secure() { 443 } else { 80 }),
        }
    }

    /// Puts a URI together from scheme, authority, path and query.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.scheme.as_str().as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(self.authority);
        if !self.path.starts_with(b"/") {
            out.push(b'/');
        }
        out.extend_from_slice(self.path);
        out.extend_from_slice(self.query);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart_without_change() {
        let uri = Uri::parse(b"http://Example.com:81/a/../b%7e?x=/?y").unwrap();
        assert_eq!(uri.scheme, Scheme::Http);
        assert_eq!(uri.authority, b"Example.com:81");
        assert_eq!(uri.host(), b"Example.com");
        assert_eq!(uri.path, b"/a/../b%7e");
        assert_eq!(uri.query, b"?x=/?y");
    }

    #[test]
    fn path_and_query_may_be_missing() {
        let uri = Uri::parse(b"wss://h?q").unwrap();
        assert_eq!((uri.scheme, uri.path, uri.query), (Scheme::Wss, &b""[..], &b"?q"[..]));
        let mut whole = Vec::new();
        uri.write(&mut whole);
        assert_eq!(whole, b"wss://h/?q");
    }

    #[test]
    fn the_brackets_of_an_ipv6_address_are_not_part_of_the_host() {
        assert_eq!(Uri::parse(b"https://[::1]:8443/").unwrap().host(), b"::1");
    }

    #[test]
    fn what_is_no_absolute_uri_of_a_known_scheme_is_refused() {
        for bad in [&b"/path"[..], b"ftp://h/", b"http:/h", b"", b"http"] {
            assert_eq!(Uri::parse(bad), None);
        }
    }
}
