// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a client has asked for in vain.

/// Why a request was refused, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the error page.
    pub code: u16,
    /// Its text, without line end.
    pub reason: String,
}
