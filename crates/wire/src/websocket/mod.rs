// SPDX-License-Identifier: AGPL-3.0-or-later
//! WebSocket frames (RFC 6455), for both roles.
//!
//! A [`Reader`] gets whatever bytes have come, in a buffer that it may write to because it takes the mask off in place, and
//! gives back [`Event`]s whose payloads are slices of that buffer. A frame need not be complete: its payload is passed on in
//! the pieces in which it comes. Control frames are given whole. Writing is a [`Header`] followed by the payload, which a
//! client masks ([`mask`]).
//!
//! Reading is strict. What the RFC forbids ends the connection with the status that the RFC names
//! ([`Violation::close_code`]): reserved bits and opcodes, missing or unexpected masks, lengths that are not in their shortest
//! form, control frames that are long or in fragments, text that is not UTF-8 (noticed at the first wrong byte), close codes
//! that may not be sent.

mod close;
mod handshake;
mod header;
mod reader;
mod utf8;
mod violation;

pub use close::{is_sendable, write_close};
pub use handshake::{accept_value, is_key};
pub use header::{Header, MAX_HEADER, Opcode, mask};
pub use reader::{Event, Message, Reader, Standing};
pub use utf8::Utf8;
pub use violation::Violation;

/// The longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const MAX_CONTROL: usize = 125;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We masked what we sent; the other side does not.
    Client,
    /// The other side masks what it sends.
    Server,
}
