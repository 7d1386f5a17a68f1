// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the end-to-end tests are made of: the suite, started from its real programs; a backend; a client; publishing.
//!
//! Everything waits for conditions, never for a fixed time, and everything has a time limit.

#![forbid(unsafe_code)]

pub mod client;
pub mod origin;
pub mod publish;
pub mod suite;
pub mod terminal;

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so; `what` is for the message if it never is.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
