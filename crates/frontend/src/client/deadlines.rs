// SPDX-License-Identifier: AGPL-3.0-or-later
//! How long a client may take for what the suite waits for.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

use std::time::Duration;

/// The settings of the same names. Zero switches one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first byte of a request's head (of the first request: from the connection) to its end.
    pub head: Duration,
    /// Between two reads of a request's body, while there is room for more.
    pub body: Duration,
    /// Between two writes of a response, while more of it waits.
    pub write: Duration,
    /// Bytes a second that a client which lags behind takes on average.
    pub min_rate: u64,
    /// Between a response and the next request.
    pub idle: Duration,
    /// For what a client still sends after its last response.
    pub linger: Duration,
    /// The same, between two reads of it.
    pub linger_quiet: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            head: Duration::from_secs(60),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            min_rate: 100,
            idle: Duration::from_secs(75),
            linger: Duration::from_secs(30),
            linger_quiet: Duration::from_secs(5),
        }
    }
}

/// Which of them has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// No request came.
    Idle,
    /// A head did not end.
    Head,
    /// A body did not go on.
    Body,
    /// A response was not read.
    Write,
    /// The client did not close after its last response.
    Linger,
}

impl Late {
    /// For the log.
    pub fn reason(self) -> &'static str {
        match self {
            Late::Idle => "no request came in time",
            Late::Head => "the head of its request did not end in time",
            Late::Body => "the body of its request, or a message or close of its WebSocket, did not come in time",
            Late::Write => "it reads its response too slowly or not at all",
            Late::Linger => "it did not close its connection after the last response",
        }
    }
}
