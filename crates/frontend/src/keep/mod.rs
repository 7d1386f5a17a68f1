// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is kept for servers beside their sessions, so that the successor of one that died can go on with them.
//!
//! A server gives each session a *record* that only it understands ([`records`]). It is kept with the session, and with it which
//! messages the session has: every step of a server's fan-out has a number ([`places`]). Of a WebSocket, what its client has sent and
//! nobody has taken is kept as well ([`underway`]). A session whose server ends is an
//! *orphan* until the successor in the same place takes it up, for `recover_wait` at most.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod offer;
pub mod places;
pub mod records;
pub mod underway;

use self::records::RecordKey;

/// Whose the record of a session is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hand {
    /// The server's that has the session.
    #[default]
    Own,
    /// The server's that gives the session away. As long as nobody has spoken after it, its successor could go on.
    Giving,
    /// A former server's: whoever has got the session has something else to say.
    Former,
}

/// What is kept with one session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// What its server has said about it.
    pub record: Option<RecordKey>,
    /// When that came, in ms of the process.
    pub since: u32,
    /// The departure that has made it an orphan; 0: it has a server.
    pub orphan: u32,
    /// The last run that had come by then.
    pub since_run: u64,
    /// The last run that has brought something for it, or `since_run`.
    pub run: u64,
    /// Something for it waits with its server.
    pub lags: bool,
    /// Whose the record is.
    pub hand: Hand,
}
