// SPDX-License-Identifier: AGPL-3.0-or-later
//! What has happened since the start.

use metrics::Histogram;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Requests taken.
    pub requests: u64,
    /// Requests that went out on a connection that had waited.
    pub reused: u64,
    /// Connections made.
    pub connected: u64,
    /// Addresses that were tried beside another of the same name that had not answered.
    pub raced: u64,
    /// Requests sent again because the connection had died while it waited.
    pub repeated: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Requests refused because too many waited for names.
    pub lookups_refused: u64,
    /// Requests given up because their requester left or did not keep up.
    pub orphaned: u64,
    /// WebSockets that a successor of their proxy has claimed.
    pub adopted: u64,
    /// Time from requests to the heads of their responses.
    pub response: Histogram,
}
