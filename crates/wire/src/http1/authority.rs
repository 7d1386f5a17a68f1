// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where a request wants to go: `host[:port]` of the `Host` field or of an absolute target (RFC 3986, section 3.2).

use std::net::Ipv6Addr;

use super::HeadError;

/// Bytes of a name in DNS.
const MAX_NAME: usize = 255;

/// Checks an authority, and gives it without an empty port. An empty one says nothing and is fine.
///
/// User information is refused: `http://trusted@other/` is made to deceive. So is everything that would end or split the
/// authority for another reader, such as a comma.
pub(super) fn parse_authority(value: &[u8]) -> Result<&str, HeadError> {
    let text = str::from_utf8(value).map_err(|_| HeadError::Host)?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(HeadError::Host)?;
            address.parse::<Ipv6Addr>().map_err(|_| HeadError::Host)?;
            (&text[..address.len() + 2], port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if name.len() > MAX_NAME || !is_name(name.as_bytes()) || name.is_empty() && !port.is_empty() {
                return Err(HeadError::Host);
            }
            (name, port)
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(host),
        Some("") => Ok(host),
        // Leading zeros are allowed, but not without end.
        Some(digits)
            if digits.len() <= 8
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok() =>
        {
            Ok(text)
        }
        _ => Err(HeadError::Host),
    }
}

/// A registered name or an IPv4 address: unreserved bytes, sub-delimiters but for the comma, and bytes in percent coding.
fn is_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_port() {
        let long = "a".repeat(255);
        for good in [
            "a",
            "a.b-c_d~e",
            "a:80",
            "a:0",
            "a:65535",
            "a:00080",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:80",
            "[2001:db8::ffff:1.2.3.4]:1",
            "%41b",
            "x!$&'()*+;=",
            "",
            &long,
        ] {
            assert_eq!(parse_authority(good.as_bytes()), Ok(good));
        }
        assert_eq!(parse_authority(b"a:"), Ok("a"));
        assert_eq!(parse_authority(b"[::1]:"), Ok("[::1]"));
    }

    #[test]
    fn everything_else_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "a:65536",
            "a:99999",
            "a:abc",
            "a:+80",
            "a:-1",
            "a: 80",
            "a:1:2",
            ":80",
            ":",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]80",
            "[::1]:x",
            "[]",
            "[a]",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "[v1.a]",
            "[[::1]]",
            "a b",
            "a/b",
            "a@b",
            "@a",
            "a?b",
            "a#b",
            "a,b",
            "a\\b",
            "a\"b",
            "<a>",
            "{a}",
            "a|b",
            "a^b",
            "a`b",
            "%",
            "%4",
            "%zz",
            "\u{e4}",
            "a\u{7f}",
            "a:000000080",
            "a:8\u{660}",
            &long,
        ] {
            assert_eq!(parse_authority(bad.as_bytes()), Err(HeadError::Host), "{bad:?}");
        }
        assert_eq!(parse_authority(b"\xff"), Err(HeadError::Host));
    }
}
