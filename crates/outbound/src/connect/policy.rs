// SPDX-License-Identifier: AGPL-3.0-or-later
//! Addresses that a request may reach only if its sender vouches for it (`ignore-policies`).
//!
//! Targets of the routes file are vouched for. Others come from backends and clients (next links, untrusted routes), and
//! must not be a way into the network that we stand in.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the address belongs to this machine or a private network.
pub fn is_internal(address: IpAddr) -> bool {
    // `::ffff:127.0.0.1` connects to 127.0.0.1.
    match address.to_canonical() {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => is_internal_v6(address),
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    let this_network = address.octets()[0] == 0;
    this_network || address.is_loopback() || address.is_private() || address.is_link_local() || address.is_broadcast()
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_unique_local() || address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_private_networks_are_internal_in_every_notation() {
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "::1",
            "::",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_internal(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_rest_of_the_world_is_not() {
        for address in ["8.8.8.8", "172.15.0.1", "172.32.0.1", "192.169.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!is_internal(address.parse().unwrap()), "{address}");
        }
    }
}
