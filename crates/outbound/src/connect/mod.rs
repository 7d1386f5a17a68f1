// SPDX-License-Identifier: AGPL-3.0-or-later
//! From a request's URI to a connection: where it leads ([`target`]), which addresses that is ([`resolve`]) and whether they
//! may be reached ([`policy`]), a connection that waits there already ([`pool`]) or a new one ([`attempts`]).

pub mod attempts;
pub mod lookups;
pub mod policy;
pub mod pool;
pub mod resolve;
pub(crate) mod sockets;
pub mod target;
pub mod tls;
