// SPDX-License-Identifier: AGPL-3.0-or-later
//! How large the parts of a message may be.

/// Header fields that a head can have at most, whatever the settings say. The parser's table of them lives on the stack.
pub const MAX_HEADERS: usize = 1024;

/// Bounds for one message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head in bytes: first line, header fields, and the empty line that ends it.
    pub head_bytes: usize,
    /// Most header fields; values above [`MAX_HEADERS`] count as that.
    pub headers: usize,
}

impl Default for Limits {
    /// What Pushpin's frontend has: 8192 bytes, 64 header fields.
    fn default() -> Self {
        Limits { head_bytes: 8192, headers: 64 }
    }
}
