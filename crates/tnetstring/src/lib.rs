// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tagged netstrings: the data format of every packet inside the suite.
//!
//! A value is `<length>:<payload><type>`, where the length counts the payload's bytes in decimal and one byte after the
//! payload tells what it is: `,` bytes, `#` integer, `^` float, `!` boolean, `~` null, `]` list, `}` map.
//!
//! # Layout
//!
//! - [`item`]: reading without copying. [`split`] takes one value off the front of the input; nothing inside a value is
//!   looked at until somebody asks for it.
//! - [`checked`]: values that have been read to their last leaf, and are safe to walk.
//! - [`writer`]: writing without copying, from the last byte to the first.
//! - [`value`]: a tree for data whose shape is not known beforehand.
//! - [`de`] and [`ser`]: serde, for everything that is not on the data path ([`from_slice`], [`to_vec`]).
//! - [`bytes`]: lets serde see a field as a byte string.
//!
//! The reader is forgiving where other programs are: bytes after the top-level value are ignored, an integer may carry
//! a `+`, a null may have a payload. Duplicate keys are handed out as they come; the caller says which one counts.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_macros))]

pub mod bytes;
pub mod checked;
pub mod de;
pub mod error;
pub mod item;
pub mod kind;
pub mod ser;
pub mod value;
pub mod writer;

pub use checked::Checked;
pub use de::{from_item, from_slice};
pub use error::Error;
pub use item::{Entries, Item, Items, split};
pub use kind::Kind;
pub use ser::{append, to_vec};
pub use value::Value;
pub use writer::{Mark, Writer};

/// How deep lists and maps may be nested where a whole tree is built or walked ([`Value`], [`Checked`] and serde). Reading
/// item by item has no such limit because it does not recurse.
pub const MAX_DEPTH: usize = 32;
