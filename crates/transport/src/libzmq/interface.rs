// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names of network interfaces in addresses to bind to, such as `tcp://eth0:5560`.
//!
//! ZeroMQ allows them, but libzmq as it is built for us can not look them up.

use std::borrow::Cow;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The address with the interface's IP address in the place of its name; unchanged if there is no such interface.
pub(super) fn resolve(spec: &str) -> Cow<'_, str> {
    let addresses = |name: &str| {
        let all = getifaddrs().into_iter().flatten().filter(|interface| interface.interface_name == name);
        all.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .collect()
    };
    resolve_with(spec, addresses)
}

fn resolve_with(spec: &str, addresses: impl Fn(&str) -> Vec<IpAddr>) -> Cow<'_, str> {
    let Some((name, port)) = spec.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
        return spec.into();
    };
    if name.starts_with('[') || name.parse::<IpAddr>().is_ok() {
        return spec.into();
    }
    let addresses = addresses(name);
    match addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()) {
        Some(IpAddr::V4(address)) => format!("tcp://{address}:{port}").into(),
        Some(IpAddr::V6(address)) => format!("tcp://[{address}]:{port}").into(),
        None => spec.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_bound_to_by_its_first_ipv4_address_or_else_by_its_first() {
        let interfaces = |name: &str| match name {
            "both" => vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            "six" => vec!["fd00::5".parse().unwrap()],
            _ => vec![],
        };
        let resolved = |spec| resolve_with(spec, interfaces).into_owned();
        assert_eq!(resolved("tcp://both:5560"), "tcp://127.0.0.1:5560");
        assert_eq!(resolved("tcp://six:5560"), "tcp://[fd00::5]:5560");
        for same in
            ["tcp://none:1", "tcp://*:5560", "tcp://127.0.0.1:1", "tcp://[::1]:1", "inproc://both:1", "tcp://both"]
        {
            assert_eq!(resolved(same), same);
        }
    }

    #[test]
    fn the_loopback_interface_has_an_address() {
        assert_eq!(resolve("tcp://lo:5560"), "tcp://127.0.0.1:5560");
    }
}
