// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whole flows, without sockets: packets in, packets out.

mod adopted;
mod bench;
mod extensions;
mod holding;
mod internal;
mod proxying;
mod random;
mod sharing;
mod websockets;
