//! From a request's URI to a connection: where it leads ([`target`]), which addresses that is ([`resolve`]) and whether they
//! may be reached ([`policy`]), a connection that waits there already ([`pool`]) or a new one ([`connection`]).

pub(crate) mod connection;
pub mod policy;
pub mod pool;
pub mod resolve;
pub mod target;
