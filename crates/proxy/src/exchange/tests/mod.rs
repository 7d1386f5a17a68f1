//! Whole flows, without sockets: packets in, packets out.

mod bench;
mod holding;
mod proxying;
mod random;
