// SPDX-License-Identifier: AGPL-3.0-or-later
//! A frontend is replaced, and its clients stay: they move to the successor, each with what has been half read and half written,
//! and so do the links to proxies and handlers, with the instance id. Clients, proxies and handlers notice nothing.
//!
//! - [`record`]: what is written down of them, without I/O.
//! - [`talk`]: what predecessor and successor say to each other, and when it counts.
//! - [`relay`]: the way of packets for clients that can not move. They stay with the predecessor until it is drained, and the
//!   links are the successor's.
//!
//! The worker does the rest: `worker::giving`, `worker::taking` and `worker::relaying`.

pub mod record;
pub(crate) mod relay;
pub mod talk;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

/// Where a frontend waits for its successor, by the address of its first socket; none if that is not of this machine.
pub fn door(out: &str) -> Option<PathBuf> {
    let path = out.strip_prefix("ipc://").filter(|path| path.starts_with('/'))?;
    Some(format!("{path}-successor").into())
}
