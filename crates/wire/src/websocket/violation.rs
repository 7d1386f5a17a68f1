// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the other side may not send.

/// Why a connection can not go on. Nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A reserved bit is set that no extension was agreed on for.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// There is no such opcode.
    #[error("opcode {0} is not known")]
    Opcode(u8),
    /// A client must mask.
    #[error("a frame of the client has no mask")]
    Unmasked,
    /// A server must not mask.
    #[error("a frame of the server has a mask")]
    Masked,
    /// The length is not in its shortest form, or is 2^63 or more.
    #[error("a length is not in its shortest form or is too large")]
    Length,
    /// A control frame has more than 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    /// A control frame is not the last of its message.
    #[error("a control frame is in fragments")]
    FragmentedControl,
    /// A continuation without a message to go on with.
    #[error("a continuation does not follow the beginning of a message")]
    Continuation,
    /// A new message before the last one has ended.
    #[error("a message begins before the last one has ended")]
    Interleaved,
    /// The payload of a close frame has one byte, or a code that may not be sent.
    #[error("a close frame has a wrong code")]
    Close,
    /// Text or the reason of a close frame is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// What is said to be compressed is not.
    #[error("a compressed message can not be read")]
    Deflate,
    /// A message is larger than allowed.
    #[error("a message is larger than {0} bytes")]
    TooLarge(u64),
    /// Much is compressed that stands for next to nothing.
    #[error("compressed data has next to no content")]
    Empty,
}

impl Violation {
    /// The status for the close frame that answers it (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Violation::Utf8 | Violation::Deflate => 1007,
            Violation::Empty => 1008,
            Violation::TooLarge(_) => 1009,
            _ => 1002,
        }
    }
}
