// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where clients connect, as `http_port`, `https_ports` and `local_ports` write it.
//!
//! Options stand behind a question mark, as in Pushpin: `/run/site.sock?mode=660&group=www`, `8080?proxy_protocol=true`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// A TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Where to listen.
    pub address: SocketAddr,
    /// Each connection begins with a header of the PROXY protocol, which says whose it is.
    pub proxied: bool,
}

/// A Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPort {
    /// Its file. Relative to the current directory.
    pub path: PathBuf,
    /// Permissions of the file; none: what the umask leaves.
    pub mode: Option<u32>,
    /// Owner of the file, by name or number; none: the user of the suite.
    pub user: Option<String>,
    /// Group of the file, by name or number; none: the group of the suite.
    pub group: Option<String>,
    /// Each connection begins with a header of the PROXY protocol.
    pub proxied: bool,
}

/// Where the runner answers those who watch over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Local(LocalPort),
}

/// What a system takes as the path of a socket, less the zero at its end.
const LONGEST_PATH: usize = 107;

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

impl Endpoint {
    /// Reads `[addr:]port` or `ipc://path`. What it answers is for operators, so a port alone is for this machine only.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("ipc://") {
            Some(path) => LocalPort::parse(path).map(Self::Local),
            None if text.contains(':') => parse(text).map(Self::Tcp),
            None => parse(&format!("localhost:{text}")).map(Self::Tcp).map_err(|_| {
                format!("`{text}` is not a port; write a port such as 9100, or *:9100, or ipc:///run/metrics")
            }),
        }
    }
}

impl Port {
    /// Reads `[addr:]port[?proxy_protocol=true]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, options) = split(text);
        let mut port = Port { address: parse(address)?, proxied: false };
        for (key, value) in options {
            match key {
                "proxy_protocol" => port.proxied = truth(value, text)?,
                _ => return Err(format!("`{text}`: unknown option `{key}`; a port has proxy_protocol=true")),
            }
        }
        Ok(port)
    }
}

impl LocalPort {
    /// Reads `path[?mode=660&user=name&group=name&proxy_protocol=true]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, options) = split(text);
        if path.is_empty() || path.len() > LONGEST_PATH || path.contains([',', '\0']) {
            return Err(format!(
                "`{text}` is not the path of a socket, which has up to {LONGEST_PATH} bytes and no comma"
            ));
        }
        let mut port = LocalPort { path: path.into(), mode: None, user: None, group: None, proxied: false };
        for (key, value) in options {
            match key {
                "mode" => match u32::from_str_radix(value, 8) {
                    Ok(mode) if mode <= 0o777 => port.mode = Some(mode),
                    _ => return Err(format!("`{text}`: `{value}` is not a file mode; write octal digits such as 660")),
                },
                "user" if !value.is_empty() => port.user = Some(value.into()),
                "group" if !value.is_empty() => port.group = Some(value.into()),
                "proxy_protocol" => port.proxied = truth(value, text)?,
                _ => {
                    return Err(format!(
                        "`{text}`: unknown option `{key}`; a Unix socket has mode=660, user=NAME, group=NAME, proxy_protocol=true"
                    ));
                }
            }
        }
        Ok(port)
    }

    /// Whether others than the user of the suite may be meant to connect.
    pub fn is_shared(&self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o077 != 0) || self.user.is_some() || self.group.is_some()
    }
}

fn split(text: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let options = options.split('&').filter(|option| !option.is_empty());
    (place, options.map(|option| option.split_once('=').unwrap_or((option, ""))))
}

fn truth(value: &str, text: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}`: proxy_protocol is true or false")),
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

    #[test]
    fn an_endpoint_without_an_address_is_for_this_machine() {
        let tcp = |text: &str| Ok(Endpoint::Tcp(text.parse().unwrap()));
        assert_eq!(Endpoint::parse("9100"), tcp("127.0.0.1:9100"));
        assert_eq!(Endpoint::parse("*:9100"), tcp("0.0.0.0:9100"));
        assert_eq!(Endpoint::parse("ipc:///run/m"), Ok(Endpoint::Local(LocalPort::parse("/run/m").unwrap())));
        for text in ["", "x", "0", "70000", "ipc://"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_may_be_behind_a_proxy() {
        let port = Port::parse("[::1]:80?proxy_protocol=true").unwrap();
        assert_eq!(port, Port { address: "[::1]:80".parse().unwrap(), proxied: true });
        assert!(!Port::parse("80").unwrap().proxied && !Port::parse("80?proxy_protocol=false").unwrap().proxied);
        for text in ["80?proxy_protocol", "80?proxy_protocol=v1", "80?mode=600", "?proxy_protocol=true"] {
            assert!(Port::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unix_socket_has_mode_user_and_group() {
        let port = LocalPort::parse("/run/a:b?mode=660&user=u&group=g&proxy_protocol=true").unwrap();
        let (user, group) = (Some("u".to_owned()), Some("g".to_owned()));
        assert_eq!(port, LocalPort { path: "/run/a:b".into(), mode: Some(0o660), user, group, proxied: true });
        assert!(port.is_shared());
        let plain = LocalPort::parse("s").unwrap();
        assert_eq!((plain.mode, plain.user.clone(), plain.group.clone(), plain.proxied), (None, None, None, false));
        assert!(!plain.is_shared() && !LocalPort::parse("s?mode=600").unwrap().is_shared());
        let long = "x".repeat(108);
        for text in ["", "?mode=600", "s?mode=9", "s?mode=7777", "s?user=", "s?owner=x", "a,b", &long] {
            assert!(LocalPort::parse(text).is_err(), "{text}");
        }
    }
}
