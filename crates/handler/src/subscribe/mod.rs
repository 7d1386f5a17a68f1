//! Who gets what.

pub mod channels;
