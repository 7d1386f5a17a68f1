//! From an item to packets.

pub mod fanout;
