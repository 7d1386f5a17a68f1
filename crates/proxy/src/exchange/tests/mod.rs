//! Whole flows, without sockets: packets in, packets out.

mod holding;
mod proxying;
mod stage;
