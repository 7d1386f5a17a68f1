// SPDX-License-Identifier: AGPL-3.0-or-later
//! What every part of the worker needs while it deals with an event.

use std::time::Instant;

use limited::Limited;
use metrics::Histogram;

use crate::connect::target::Endpoint;
use crate::failure::Failure;
use crate::requesters::Requesters;

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Requests taken.
    pub(crate) requests: u64,
    /// Requests that went out on a connection that had waited.
    pub(crate) reused: u64,
    /// Connections made.
    pub(crate) connected: u64,
    /// Addresses that were tried beside another of the same name that had not answered.
    pub(crate) raced: u64,
    /// Requests sent again because the connection had died while it waited.
    pub(crate) repeated: u64,
    /// Requests that ended with an error.
    pub(crate) failed: u64,
    /// Requests refused because too many waited for names.
    pub(crate) lookups_refused: u64,
    /// Requests given up because their requester left or did not keep up.
    pub(crate) orphaned: u64,
    /// WebSockets that a successor of their proxy has claimed.
    pub(crate) adopted: u64,
    /// Time from requests to the heads of their responses.
    pub(crate) response: Histogram,
}

/// The way to requesters, the log, the counters, and the time of this turn.
pub(crate) struct Context {
    pub(crate) requesters: Requesters,
    pub(crate) warnings: Limited,
    pub(crate) counters: Counters,
    pub(crate) now: Instant,
}

impl Context {
    /// Notes a failed request: one line, unless others of its kind have just had one.
    pub(crate) fn failed(&mut self, endpoint: &Endpoint, failure: &Failure) {
        self.counters.failed += 1;
        self.warnings.warn(failure.condition(), self.now, format_args!("request to {endpoint} failed: {failure}"));
    }
}
