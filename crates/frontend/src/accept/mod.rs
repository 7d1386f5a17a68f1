// SPDX-License-Identifier: AGPL-3.0-or-later
//! Where clients come in.
//!
//! - [`listeners`]: the listening sockets.
//! - [`tickets`]: their sessions, which go on at any frontend.
//! - [`admission`]: how many clients there may be, without I/O.
//! - [`handshakes`]: whose TLS handshake goes on next, without I/O.

pub mod admission;
pub mod handshakes;
pub mod listeners;
pub mod tickets;

pub use admission::Admission;
pub use listeners::Listeners;
