//! Addresses to listen on, as `http_port` and the like write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads `[addr:]port`; an IPv6 address stands in brackets. Without an address it is all of IPv4.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let problem = || format!("`{text}` is not a port; write a port such as 7999, or 127.0.0.1:7999, or [::1]:7999");
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) => (address, port),
        None => ("0.0.0.0", text),
    };
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let ip = match address {
        "*" | "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other.parse().map_err(|_| problem())?,
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(problem()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_listens_everywhere() {
        assert_eq!(parse("7999"), Ok("0.0.0.0:7999".parse().unwrap()));
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        assert_eq!(parse("127.0.0.1:80"), Ok("127.0.0.1:80".parse().unwrap()));
        assert_eq!(parse("[::]:80"), Ok("[::]:80".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "x", "0", "70000", "1.2.3:80", "80/tcp"] {
            assert!(parse(text).unwrap_err().contains("127.0.0.1:7999"), "{text}");
        }
    }
}
